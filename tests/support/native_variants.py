"""The compiled libraries for tests, which skip where this CPU, or this installation, has none of them."""

import ctypes

import pytest

from mirrorchat.hardware import native

NAMES = [name for name, _ in native.VARIANTS]


def variant_or_skip(name: str) -> native.Library:
    """Return one of the variants that this CPU runs."""
    library = native.variant(name)
    if library is None:
        pytest.skip(f"no compiled library: {name} is not there, or needs another CPU")
    return library


def tiles_or_skip() -> native.Library:
    """Return the variant that has the vocoder."""
    return variant_or_skip("_native_amx")


def search_functions_or_skip() -> ctypes.CDLL:
    """Return the CTC search's functions."""
    functions = native.search_library()
    if functions is None:
        pytest.skip("no compiled library: _native_search is not there")
    return functions
