"""What callers send: containers and tracks, decoded within bounds."""
