"""The local rows of an AIJ matrix in compressed form, without a copy where PETSc lets us have its own arrays.

petsc4py copies them (and for parallel matrices goes through MatGetRow): 0.1 s for 15 M non-zeros, more than the rest
of set-up. So we ask PETSc's C interface for its pointers; a parallel matrix comes in the two blocks that PETSc keeps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.petsc_library import petsc_library

INTEGER = np.dtype(PETSc.IntType)
PetscInt = ctypes.c_int64 if INTEGER.itemsize == 8 else ctypes.c_int32

LOOK = 4096
"""Entries that are looked at together; numpy looks at all that it is given."""


@dataclass(frozen=True)
class LocalRows:
    """This rank's rows in compressed form.

    Without ``other`` the indices are global columns. With it they are local rows, and ``other`` = (indptr, indices,
    values, columns) has the entries in the columns of other ranks: its indices point into the global ``columns``, which
    are sorted.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    other: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None


_memory = ctypes.pythonapi.PyMemoryView_FromMemory
"""A view of memory. A ctypes array would be a type of its own for every size, which takes its time to make."""
_memory.restype, _memory.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_READ = 0x100  # PyBUF_READ


def _view(pointer: ctypes.c_void_p, size: int, dtype: np.dtype) -> np.ndarray:
    if not size:
        return np.zeros(0, dtype)
    view: np.ndarray = np.frombuffer(_memory(pointer, size * dtype.itemsize, _READ), dtype)
    return view


@contextmanager
def _sequential(library: ctypes.CDLL, mat: ctypes.c_void_p) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """indptr, indices and values of a SEQAIJ matrix, PETSc's own arrays."""
    n = PetscInt()
    ia, ja, values, done = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int(0)
    row_ij = (mat, PetscInt(0), ctypes.c_int(0), ctypes.c_int(0), ctypes.byref(n))
    if library.MatGetRowIJ(*row_ij, ctypes.byref(ia), ctypes.byref(ja), ctypes.byref(done)) or not done.value:
        raise RuntimeError("PETSc does not show the row structure of a SEQAIJ matrix")
    library.MatSeqAIJGetArrayRead(mat, ctypes.byref(values))
    try:
        indptr = _view(ia, n.value + 1, INTEGER)
        yield indptr, _view(ja, int(indptr[-1]), INTEGER), _view(values, int(indptr[-1]), np.dtype(np.float64))
    finally:
        library.MatSeqAIJRestoreArrayRead(mat, ctypes.byref(values))
        library.MatRestoreRowIJ(*row_ij, ctypes.byref(ia), ctypes.byref(ja), ctypes.byref(done))


@contextmanager
def local_csr(A: PETSc.Mat, blocks: bool = True) -> Iterator[LocalRows]:
    """This rank's rows of ``A``; valid inside the ``with`` only. Not collective.

    ``blocks``: whether the two blocks of a parallel matrix will do.
    """
    library, kind = petsc_library(), A.getType()
    if library is not None and kind == PETSc.Mat.Type.SEQAIJ:
        with _sequential(library, ctypes.c_void_p(A.handle)) as own:
            yield LocalRows(*own)
    elif library is not None and kind == PETSc.Mat.Type.MPIAIJ and blocks:
        own_block, other_block, columns = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        library.MatMPIAIJGetSeqAIJ(
            ctypes.c_void_p(A.handle), ctypes.byref(own_block), ctypes.byref(other_block), ctypes.byref(columns)
        )
        rows, count = PetscInt(), PetscInt()
        library.MatGetSize(other_block, ctypes.byref(rows), ctypes.byref(count))
        with _sequential(library, own_block) as own, _sequential(library, other_block) as other:
            yield LocalRows(*own, (*other, _view(columns, count.value, INTEGER).astype(np.int64)))
    else:
        yield LocalRows(*A.getValuesCSR())


def all_zero(A: PETSc.Mat) -> bool:
    """Whether a matrix has no entry but zeros on any rank; False for kinds whose entries are not read. Collective.

    The first entry that is not zero ends the search.
    """
    if "aij" not in A.getType() or "baij" in A.getType():
        return False
    with local_csr(A) as local:
        blocks = local.values, *(local.other[2:3] if local.other else ())
        found = any(np.count_nonzero(v[at : at + LOOK]) for v in blocks for at in range(0, v.size, LOOK))
    return not over_all(A.getComm().tompi4py(), found, op=MPI.LOR)
