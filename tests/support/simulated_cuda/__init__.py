"""A CUDA device for tests, on a machine that has none: what runs on it is checked as a real one would never tell.

Tensors on it say `cuda:N`, and their numbers lie in the host's memory. It says nothing about speed or about rounding.

- An operation only joins the queue of its stream. It runs when the host waits for it, and until then its outputs are
  NaN. So whoever reads a pinned buffer too early, or writes to it too early, gets wrong numbers.
- A stream that reads what another one writes, without waiting for it, is an error; and so is memory that goes back to
  the allocator while another stream uses it.
- A capture records operations and does not run them. A replay runs them on the same memory.
- Tensors of different devices in one operation are an error. The current device and the current streams belong to the
  thread, and each thread begins on device 0.
- Each wait of the host is counted, and is an error during a capture and under `set_sync_debug_mode("error")`.
- Memory is counted as torch's allocator takes it, within what the card has; an allocation can be told to fail, and a
  device to be lost.

`install()` makes torch see the devices, `SimulatedCuda` is what a test holds, and `uninstall()` is the end of them.
"""

from support.simulated_cuda.installing import install, uninstall
from support.simulated_cuda.state import Gpu, SimulatedCuda

__all__ = ["Gpu", "SimulatedCuda", "install", "uninstall"]
