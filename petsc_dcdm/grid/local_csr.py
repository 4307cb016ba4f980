"""The local rows of an AIJ matrix in compressed form, without a copy where PETSc lets us have its own arrays.

petsc4py copies them (and for parallel matrices goes through MatGetRow): 0.1 s for 15 M non-zeros, more than the rest
of set-up. The sequential case therefore asks PETSc's C interface for its pointers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.petsc_library import petsc_library

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]


def _view(pointer: ctypes.c_void_p, size: int, dtype: np.dtype) -> np.ndarray:
    if not size:
        return np.zeros(0, dtype)
    buffer = (ctypes.c_byte * (size * dtype.itemsize)).from_address(pointer.value or 0)
    view: np.ndarray = np.frombuffer(memoryview(buffer), dtype)
    view.flags.writeable = False
    return view


@contextmanager
def local_csr(A: PETSc.Mat) -> Iterator[Csr]:
    """(indptr, indices, values) of this rank's rows, global columns; valid inside the ``with`` only. Not collective."""
    library = petsc_library() if A.getType() == PETSc.Mat.Type.SEQAIJ else None
    if library is None:
        yield A.getValuesCSR()
        return
    integer = np.dtype(PETSc.IntType)
    mat = ctypes.c_void_p(A.handle)
    n = (ctypes.c_int64 if integer.itemsize == 8 else ctypes.c_int32)()
    ia, ja, values, done = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int(0)
    row_ij = (mat, type(n)(0), ctypes.c_int(0), ctypes.c_int(0), ctypes.byref(n))
    if library.MatGetRowIJ(*row_ij, ctypes.byref(ia), ctypes.byref(ja), ctypes.byref(done)) or not done.value:
        yield A.getValuesCSR()
        return
    library.MatSeqAIJGetArrayRead(mat, ctypes.byref(values))
    try:
        indptr = _view(ia, n.value + 1, integer)
        yield indptr, _view(ja, int(indptr[-1]), integer), _view(values, int(indptr[-1]), np.dtype(np.float64))
    finally:
        library.MatSeqAIJRestoreArrayRead(mat, ctypes.byref(values))
        library.MatRestoreRowIJ(*row_ij, ctypes.byref(ia), ctypes.byref(ja), ctypes.byref(done))
