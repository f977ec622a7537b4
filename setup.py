"""The part of the installation that setup.cfg cannot say: XTTS's networks in C++, for two kinds of CPU.

Where they cannot be compiled, MirrorChat is installed without them and torch does the work. They are opened through
ctypes (mirrorchat/native.py), so they need no Python headers.
"""

from glob import glob

from setuptools import Extension, setup

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma"]
AMX = [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"]


def library(name: str, flags: list[str]) -> Extension:
    return Extension(
        f"mirrorchat.{name}",
        sources=sorted(glob("native/*.cpp")),
        depends=sorted(glob("native/*.h")),
        # GCC 12 warns of its own headers.
        extra_compile_args=["-std=c++20", "-O3", "-Wno-uninitialized", "-Wno-maybe-uninitialized", *flags],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
    )


setup(ext_modules=[library("_native_avx512", AVX512), library("_native_amx", AMX)])
