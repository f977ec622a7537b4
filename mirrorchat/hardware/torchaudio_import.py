"""Makes `import torchaudio` work with a CPU build of torch.

torchaudio's wheels on PyPI are linked against CUDA, so their compiled extension does not load with such a build. XTTS
needs only torchaudio's operations in Python (resampling, mel spectrograms), which work without the extension.
"""

import importlib
import sys
import types
from collections.abc import Callable

EXTENSION = "torchaudio._extension"


def import_torchaudio() -> None:
    """Import torchaudio. If its compiled extension does not load, an empty one takes its place.

    Raises ModuleNotFoundError if torchaudio is not installed.
    """
    try:
        importlib.import_module("torchaudio")
    except (OSError, RuntimeError):  # a CUDA library is missing; or the CUDA versions of torch and torchaudio differ
        _forget_torchaudio()
        sys.modules[EXTENSION] = _empty_extension()
        importlib.import_module("torchaudio")


def _forget_torchaudio() -> None:
    for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
        del sys.modules[name]


def _empty_extension() -> types.ModuleType:
    """Return the extension module that torchaudio has in a wheel without compiled code."""
    module = types.ModuleType(EXTENSION, "Stands in for torchaudio's compiled operations, which do not load here.")
    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_refuse,
    )
    return module


def _refuse(function: Callable[..., object]) -> Callable[..., object]:
    def refused(*_args: object, **_kwargs: object) -> object:
        raise RuntimeError(f"{function.__name__} needs torchaudio's compiled extension, which does not load here")

    return refused
