"""The part of the installation that setup.cfg cannot say: what is in C++.

The networks of XTTS and WeNet, for two kinds of CPU, and the search of the recognizer, for any. Where they cannot be
compiled, MirrorChat is installed without them; torch and Python do the work. They are opened through ctypes
(mirrorchat/hardware/native.py), so they need no Python headers.
"""

from glob import glob

from setuptools import Extension, setup

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma"]
AMX = [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
NETWORKS = ["native/gpt.cpp", "native/module.cpp", "native/vocoder.cpp", "native/wenet.cpp"]
SEARCH = ["native/prefix_beam.cpp"]
# Its sums are those of Python to the bit: a CPU that multiplies and adds at once may not do so.
EXACT = ["-ffp-contract=off"]


def library(name: str, sources: list[str], flags: list[str]) -> Extension:
    return Extension(
        f"mirrorchat.hardware.{name}",
        sources=sources,
        depends=sorted(glob("native/*.h")),
        # GCC 12 warns of its own headers.
        extra_compile_args=["-std=c++20", "-O3", "-Wno-uninitialized", "-Wno-maybe-uninitialized", *flags],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
    )


setup(
    ext_modules=[
        library("_native_avx512", NETWORKS, AVX512),
        library("_native_amx", NETWORKS, AMX),
        library("_native_search", SEARCH, EXACT),
    ]
)
