"""Hardware: memory, GPUs, and the C++ libraries of `native/`."""
