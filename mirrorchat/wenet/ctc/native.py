"""CTC prefix beam search in C++ (native/prefix_beam.cpp).

It gives the bits of `ctc.plain` about twenty times as fast.
"""

import ctypes

import numpy as np

from mirrorchat.wenet.ctc.context import ContextGraph
from mirrorchat.wenet.ctc.plain import FloatArray, ScoredPrefix

_NO_MEMORY, _NOT_NUMBERS = -1, -2


class _Graph(ctypes.Structure):
    """`Graph` in native/prefix_beam.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "tokens", "targets", "fail", "reached", "completed")),
        ("score", ctypes.c_double),
    )


class NativeSearch:
    """One search, computed by `functions` (from `native.search_library`).

    One thread may use it at a time; searches share no state. After a MemoryError of any method the search has ended.
    """

    def __init__(self, beam: int, graph: ContextGraph | None, functions: ctypes.CDLL) -> None:
        _declare(functions)
        self._functions = functions
        self._graph = graph  # the search reads its arrays
        self._pointer: int | None = functions.prefix_search_create(beam, None if graph is None else _fields_of(graph))
        if self._pointer is None:
            raise MemoryError("too little memory for a search")

    def __del__(self) -> None:
        if getattr(self, "_pointer", None) is not None:
            self._functions.prefix_search_destroy(self._pointer)

    def advance(self, log_probs: FloatArray) -> None:
        """Search the next frames (S, V), contiguous. Raises ValueError, before any change, for NaN or infinity."""
        status = self._functions.prefix_search_advance(self._open(), log_probs.ctypes.data, *log_probs.shape)
        if status == _NOT_NUMBERS:
            raise ValueError("the log probabilities hold NaN or infinity")
        if status == _NO_MEMORY:
            self._end()

    def prefixes(self) -> list[ScoredPrefix]:
        """Return the live prefixes, best first, scored as if the speech ended here."""
        total = ctypes.c_int64()
        count = self._functions.prefix_search_size(self._open(), ctypes.byref(total))
        lengths, scores = np.empty(count, np.int32), np.empty(count, np.float64)
        tokens, frames = np.empty((2, total.value), np.int32)
        peaks = np.empty(total.value, np.float32)
        places = (array.ctypes.data for array in (lengths, scores, tokens, frames, peaks))
        if self._functions.prefix_search_read(self._pointer, *places) == _NO_MEMORY:
            self._end()
        spelt, times, logs = tokens.tolist(), frames.tolist(), peaks.tolist()
        prefixes, start = [], 0
        for length, score in zip(lengths.tolist(), scores.tolist(), strict=True):
            span = slice(start, start := start + length)
            prefixes.append(ScoredPrefix(tuple(spelt[span]), score, tuple(times[span]), tuple(logs[span])))
        return prefixes

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the tokens with which all live prefixes begin."""
        length = self._functions.prefix_search_stable(self._open(), -1, None)
        tokens = np.empty(length, np.int32)
        self._functions.prefix_search_stable(self._pointer, length, tokens.ctypes.data)
        return tuple(tokens.tolist())

    def _open(self) -> int:
        if self._pointer is None:
            raise MemoryError("this search ended for lack of memory")
        return self._pointer

    def _end(self) -> None:
        self._functions.prefix_search_destroy(self._pointer)
        self._pointer = None
        raise MemoryError("too little memory for a search")


def _fields_of(graph: ContextGraph) -> "ctypes._Pointer[_Graph]":
    arrays = graph.arrays
    places = (arrays.first, arrays.tokens, arrays.targets, arrays.fail, arrays.reached, arrays.completed)
    return ctypes.pointer(_Graph(*(array.ctypes.data for array in places), graph.score))


def _declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes the argument and result types of the functions."""
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    functions.prefix_search_create.restype = pointer
    functions.prefix_search_create.argtypes = [ctypes.c_int32, ctypes.POINTER(_Graph)]
    functions.prefix_search_destroy.restype = None
    functions.prefix_search_destroy.argtypes = [pointer]
    functions.prefix_search_advance.argtypes = [pointer, pointer, count, count]
    functions.prefix_search_size.restype = count
    functions.prefix_search_size.argtypes = [pointer, ctypes.POINTER(count)]
    functions.prefix_search_read.argtypes = [pointer] * 6
    functions.prefix_search_stable.restype = count
    functions.prefix_search_stable.argtypes = [pointer, count, pointer]
