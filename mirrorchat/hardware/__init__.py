"""The machine: its memory, its GPUs, its programs, and our libraries in C++."""
