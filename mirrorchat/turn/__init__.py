"""The parts of a turn: its events, its times, and how many callers speech keeps up with."""
