"""The parts of a turn: admission, playback, sessions, the speaker reference, events and their reader."""
