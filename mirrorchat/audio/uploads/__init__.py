"""The containers of uploads: each is told by its bytes, and its first audio track is read within bounds."""
