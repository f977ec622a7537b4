"""MirrorChat: ask a question aloud, hear the answer in your own voice."""

__version__ = "0.2.0"
