"""The libraries in C++ (`native/`), opened through ctypes: XTTS's two networks for CPUs with AVX512-VNNI or AMX, and
the search of the recognizer for any CPU.

They are compiled when the project is installed, the networks once for each kind of CPU. Where there was no compiler, or
the CPU is another, there is no library, and torch or plain Python does the work.
"""

import ctypes
import functools
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

MADV_POPULATE_READ = 22  # of Linux 5.14; Python does not name it

VARIANTS = (  # the best first: the extension's name, and what it needs of the CPU
    ("_native_amx", ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni")),
    ("_native_avx512", ("avx512_vnni", "avx512_bw", "avx512_dq", "avx512_vl")),
)


class Library:
    """One compiled variant: `functions` are its C functions."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.tiles = path.name.startswith("_native_amx")  # has matrix products in tiles, of 8-bit numbers and bfloat16
        self.functions.team_create.restype = ctypes.c_void_p
        self.functions.team_create.argtypes = [ctypes.c_int]
        self.functions.team_destroy.argtypes = [ctypes.c_void_p]
        if self.functions.native_open() != 0:
            raise OSError("the system does not give this process the CPU's tile registers")


class Team:
    """Threads that compute together; `pointer` is what the library's functions take. One caller at a time.

    Raises MemoryError when the system gives no more threads.
    """

    def __init__(self, library: Library, threads: int) -> None:
        self._library = library
        self.pointer: int | None = library.functions.team_create(threads)
        if self.pointer is None:
            raise MemoryError(f"the system gives no {threads} threads")

    def __del__(self) -> None:
        if self.pointer is not None:
            self._library.functions.team_destroy(self.pointer)


@contextmanager
def mapped_in(tensor: torch.Tensor) -> Iterator[None]:
    """Hold the pages of a contiguous `tensor` in memory for now, where it is mapped from a file; harmless for others.

    They come all at once, which takes a fraction of the time of a fault for each. Afterwards the system may take them
    back, and reads them from the file again when they are used: weights that were copied into another form would else
    count twice.
    """
    page, start, end = mmap.PAGESIZE, tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    from_file = any(first <= start and end <= last for first, last in _file_mappings())
    whole, stop = -(-start // page) * page, end // page * page  # pages that it shares with a neighbour are left alone
    if not from_file or whole >= stop:
        yield
        return
    place = ctypes.c_void_p(whole), ctypes.c_size_t(stop - whole)
    advise = ctypes.CDLL(None).madvise
    advise(*place, MADV_POPULATE_READ)  # an error, on a kernel that does not know it, changes nothing
    yield
    advise(*place, mmap.MADV_DONTNEED)


def _file_mappings() -> Iterator[tuple[int, int]]:
    """Yield the address ranges of this process that files are mapped to."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        fields = line.split()
        if fields[4] != "0":  # the file's inode
            first, last = fields[0].split("-")
            yield int(first, 16), int(last, 16)


@functools.cache
def library() -> Library | None:
    """Return the best variant that was compiled and that this CPU runs, or None."""
    return next((found for name, _ in VARIANTS if (found := variant(name)) is not None), None)


@functools.cache
def variant(name: str) -> Library | None:
    """Return one of VARIANTS, or None where it was not compiled or this CPU does not run it."""
    capabilities = torch.cpu.get_capabilities()
    path = compiled(name)
    if path is None or not all(capabilities.get(need) for need in dict(VARIANTS)[name]):
        return None
    try:
        return Library(path)
    except OSError:
        return None


@functools.cache
def search_library() -> ctypes.CDLL | None:
    """Return the C functions of the CTC prefix beam search, or None where they were not compiled."""
    path = compiled("_native_search")
    try:
        return None if path is None else ctypes.CDLL(str(path))
    except OSError:
        return None


def compiled(name: str) -> Path | None:
    """Return the file of the extension `name`, or None where it was not compiled."""
    found = find_spec(f"mirrorchat.hardware.{name}")
    return None if found is None or found.origin is None else Path(found.origin)
