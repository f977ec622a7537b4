"""The errors after which this process cannot use its GPU any more. Only a new process can."""

import torch

OUT_OF_MEMORY = 2  # the number of `cudaErrorMemoryAllocation`
CHAIN = 8  # errors of a chain that are looked at

# cuBLAS, cuDNN and cuFFT report a failed kernel, and expandable memory segments a failed driver, as a RuntimeError like
# any other: only the text tells it. Texts such as CUBLAS_STATUS_ALLOC_FAILED are about one computation, and so are the
# internal errors of cuFFT and cuDNN: they mostly mean that there was no memory for a plan or a handle.
MARKS = (
    "_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "_STATUS_MAPPING_ERROR",
    "CUFFT_EXEC_FAILED",
    "CUDA driver error",
)


def is_gpu_lost(error: BaseException | None) -> bool:
    """Return whether `error`, or an error that led to it, means that the GPU is lost to this process."""
    for _ in range(CHAIN):
        if error is None:
            return False
        if _is_lost(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def raise_if_gpu_lost(error: BaseException) -> None:
    """Raise `error` again if it means that the GPU is lost: what caught it cannot go on."""
    if is_gpu_lost(error):
        raise error


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) != OUT_OF_MEMORY
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in MARKS)
