"""The C++ libraries of `native/`, opened through ctypes.

XTTS's GPT and WeNet's int8 layers are for CPUs with AVX512-VNNI, XTTS's vocoder for those that also have AMX, and the
CTC search for any CPU. Installation compiles them, the networks once for each kind of CPU. Without a compiler, or on
another CPU, there is no library, and torch or Python computes instead.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch

Opened = TypeVar("Opened")

MADV_POPULATE_READ = 22  # since Linux 5.14; the module `mmap` does not have it

VARIANTS = (  # the fastest first: the name of the extension, and the CPU features that it needs
    ("_native_amx", ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni")),
    ("_native_avx512", ("avx512_vnni", "avx512_bw", "avx512_dq", "avx512_vl")),
)


class Library:
    """One compiled variant. `functions` are its C functions.

    Raises OSError if the system denies this process the CPU's tile registers.
    """

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.tiles = path.name.startswith("_native_amx")  # it has tiled matrix products of int8 and of bfloat16
        self.functions.team_create.restype = ctypes.c_void_p
        self.functions.team_create.argtypes = [ctypes.c_int]
        self.functions.team_destroy.argtypes = [ctypes.c_void_p]
        if self.functions.native_open() != 0:
            raise OSError("the system does not give this process the CPU's tile registers")


class Team:
    """A pool of threads that compute together. The library's functions take its `pointer`. One caller at a time.

    Raises MemoryError if the system gives no more threads.
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
    """Hold the pages of a contiguous `tensor` in memory while the block runs, if they are mapped from a file.

    All pages are read at once, which is much faster than a page fault for each. Afterwards the system may reclaim
    them: weights that were copied into another format would otherwise take their memory twice. Other tensors are not
    changed.
    """
    page, start, end = mmap.PAGESIZE, tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    from_file = any(first <= start and end <= last for first, last in _file_mappings())
    whole, stop = -(-start // page) * page, end // page * page  # not the pages that it shares with a neighbour
    if not from_file or whole >= stop:
        yield
        return
    pages = ctypes.c_void_p(whole), ctypes.c_size_t(stop - whole)
    advise = ctypes.CDLL(None).madvise
    advise(*pages, MADV_POPULATE_READ)  # an older kernel returns an error and does nothing
    yield
    advise(*pages, mmap.MADV_DONTNEED)


def _file_mappings() -> Iterator[tuple[int, int]]:
    """Yield the address ranges (start, end) of this process that are mapped from files."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        fields = line.split()
        if fields[4] != "0":  # the file's inode
            first, last = fields[0].split("-")
            yield int(first, 16), int(last, 16)


@functools.cache
def library() -> Library | None:
    """Return the fastest variant that was compiled and that this CPU supports, or None."""
    return next((found for name, _ in VARIANTS if (found := variant(name)) is not None), None)


@functools.cache
def variant(name: str) -> Library | None:
    """Return one of VARIANTS, None if it was not compiled or this CPU does not support it."""
    capabilities = torch.cpu.get_capabilities()
    if not all(capabilities.get(feature) for feature in dict(VARIANTS)[name]):
        return None
    return _opened(name, Library)


@functools.cache
def search_library() -> ctypes.CDLL | None:
    """Return the C functions of the CTC prefix beam search, None if they were not compiled."""
    return _opened("_native_search", lambda path: ctypes.CDLL(str(path)))


def _opened(name: str, opener: Callable[[Path], Opened]) -> Opened | None:
    path = compiled(name)
    try:
        return None if path is None else opener(path)
    except OSError:
        return None


def compiled(name: str) -> Path | None:
    """Return the file of the extension `name`, None if it was not compiled."""
    found = find_spec(f"mirrorchat.hardware.{name}")
    return None if found is None or found.origin is None else Path(found.origin)
