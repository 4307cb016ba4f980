"""A pytest plugin, for run_scripts/check_native.sh: the large arrays of the kernels come from malloc and end where they
end, so that AddressSanitizer sees what is read or written beyond them.
"""

from __future__ import annotations

import ctypes
import weakref

import numpy as np

from petsc_dcdm.native import memory

_c = ctypes.CDLL(None)
_c.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_c.free.argtypes = [ctypes.c_void_p]


def _exact(size: int, dtype: type, byte: int) -> np.ndarray:
    bytes_, address = int(size) * np.dtype(dtype).itemsize, ctypes.c_void_p()
    if bytes_ == 0:
        return np.zeros(0, dtype)
    if _c.posix_memalign(ctypes.byref(address), memory.CACHE_LINE, bytes_) or not address.value:
        raise MemoryError(f"no {bytes_} bytes")
    buffer = (ctypes.c_uint8 * bytes_).from_address(address.value)
    weakref.finalize(buffer, _c.free, address.value)
    ctypes.memset(address.value, byte, bytes_)
    return np.frombuffer(buffer, np.uint8).view(dtype)


def aligned_zeros(size: int, dtype: type, clear: object = None, small_do: bool = False) -> np.ndarray:
    """As `petsc_dcdm.native.memory.aligned_zeros`, which leaves room on both sides."""
    return _exact(size, dtype, 0)


def aligned_empty(size: int, dtype: type, small_do: bool = False) -> np.ndarray:
    """As `petsc_dcdm.native.memory.aligned_empty`; NaN, as far as that goes."""
    return _exact(size, dtype, 0xFF)


memory.aligned_zeros, memory.aligned_empty = aligned_zeros, aligned_empty
