"""Worker processes for native libraries: the server's side, the worker's side, and the workers."""
