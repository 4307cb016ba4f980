"""Memory for large arrays: in huge pages where Linux has them, as the faults of small ones cost more than the work."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np

CACHE_LINE = 64
LARGE = 1 << 22
HUGE_PAGE = 1 << 21


def aligned_empty(size: int, dtype: type) -> np.ndarray:
    """An array [size] that starts at a cache line and holds anything. As `aligned_zeros`, which it is where large."""
    bytes_ = size * np.dtype(dtype).itemsize
    if bytes_ >= LARGE:
        return aligned_zeros(size, dtype)
    raw = np.empty(bytes_ + CACHE_LINE, np.uint8)
    return np.ndarray((size,), dtype, raw.data, -raw.ctypes.data % CACHE_LINE)


def aligned_zeros(size: int, dtype: type) -> np.ndarray:
    """Zeros [size] that start at a cache line. Large ones take memory only where they are written to."""
    bytes_ = size * np.dtype(dtype).itemsize
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or bytes_ < LARGE:
        raw = np.zeros(bytes_ + CACHE_LINE, np.uint8)
        return np.ndarray((size,), dtype, raw.data, -raw.ctypes.data % CACHE_LINE)
    # Not numpy's zeros: the C library may take them from memory that it has had before, and then writes to all of it.
    memory = mmap.mmap(-1, bytes_ + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(advice)
    raw = np.frombuffer(memory, np.uint8)
    return raw[-raw.ctypes.data % HUGE_PAGE :][:bytes_].view(dtype)
