"""The local rows of an AIJ matrix in compressed form, without a copy where PETSc lets us have its own arrays.

petsc4py copies them (and for parallel matrices goes through MatGetRow): 0.1 s for 15 M non-zeros, more than the rest
of set-up. So we ask PETSc's C interface for its pointers; a parallel matrix comes in the two blocks that PETSc keeps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.memory import memory_at
from petsc_dcdm.native.petsc_library import petsc_library

INTEGER, FLOAT = np.dtype(PETSc.IntType), np.dtype(np.float64)
PetscInt = ctypes.c_int64 if INTEGER.itemsize == 8 else ctypes.c_int32

TOGETHER = 4096
"""Entries that are looked at together; numpy looks at all that it is given."""


class LocalRows(NamedTuple):
    """This rank's rows in compressed form.

    Without ``other`` the indices are global columns. With it they are local rows, and ``other`` = (indptr, indices,
    values, columns) has the entries in the columns of other ranks: its indices point into the global ``columns``, which
    are sorted.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    other: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None


def _view(pointer: ctypes.c_void_p, size: int, dtype: np.dtype) -> np.ndarray:
    if not size:
        return np.zeros(0, dtype)
    view: np.ndarray = np.frombuffer(memory_at(pointer.value or 0, size * dtype.itemsize), dtype)
    return view


@cache
def _library() -> ctypes.CDLL | None:
    """PETSc's, with the functions that are called here declared."""
    library = petsc_library()
    if library is not None:
        handle, place, flag = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int
        row_ij = [handle, PetscInt, flag, flag, ctypes.POINTER(PetscInt), place, place, ctypes.POINTER(flag)]
        signatures = {
            "MatGetRowIJ": (flag, row_ij),
            "MatRestoreRowIJ": (flag, row_ij),
            "MatSeqAIJGetArrayRead": (flag, [handle, place]),
            "MatSeqAIJRestoreArrayRead": (flag, [handle, place]),
            "MatMPIAIJGetSeqAIJ": (flag, [handle, place, place, place]),
        }
        declared(library, signatures)
    return library


class _Sequential(AbstractContextManager[LocalRows]):
    """The rows of a SEQAIJ matrix, PETSc's own arrays."""

    def __init__(self, library: ctypes.CDLL, mat: int) -> None:
        self._library, self._mat = library, mat

    def __enter__(self) -> LocalRows:
        ia, ja, values = self._places = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        n, done = PetscInt(), ctypes.c_int(0)
        self._row_ij = self._mat, 0, 0, 0, n, ia, ja, done
        if self._library.MatGetRowIJ(*self._row_ij) or not done.value:
            raise RuntimeError("PETSc does not show the row structure of a SEQAIJ matrix")
        self._library.MatSeqAIJGetArrayRead(self._mat, values)
        indptr = _view(ia, n.value + 1, INTEGER)
        entries = int(indptr[-1])
        return LocalRows(indptr, _view(ja, entries, INTEGER), _view(values, entries, FLOAT))

    def __exit__(self, *problem: object) -> None:
        self._library.MatSeqAIJRestoreArrayRead(self._mat, self._places[2])
        self._library.MatRestoreRowIJ(*self._row_ij)


@contextmanager
def _two_blocks(library: ctypes.CDLL, mat: int) -> Iterator[LocalRows]:
    """The rows of an MPIAIJ matrix."""
    own_block, other_block, columns = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    library.MatMPIAIJGetSeqAIJ(mat, own_block, other_block, columns)
    rows, count = PetscInt(), PetscInt()
    library.MatGetSize(other_block, ctypes.byref(rows), ctypes.byref(count))
    assert own_block.value is not None and other_block.value is not None
    with _Sequential(library, own_block.value) as own, _Sequential(library, other_block.value) as other:
        yield own._replace(other=(*other[:3], _view(columns, count.value, INTEGER).astype(np.int64)))


def local_csr(A: PETSc.Mat, blocks: bool = True) -> AbstractContextManager[LocalRows]:
    """This rank's rows of ``A``, for a ``with`` block; valid inside of it only. Not collective.

    ``blocks``: whether the two blocks of a parallel matrix will do.
    """
    library, kind = _library(), A.getType()
    if library is not None and kind == PETSc.Mat.Type.SEQAIJ:
        return _Sequential(library, A.handle)
    if library is not None and kind == PETSc.Mat.Type.MPIAIJ and blocks:
        return _two_blocks(library, A.handle)
    return nullcontext(LocalRows(*A.getValuesCSR()))


def all_zero(A: PETSc.Mat) -> bool:
    """Whether a matrix has no entry but zeros on any rank; False for kinds whose entries are not read. Collective.

    The first entry that is not zero ends the search, as a rule in the first row.
    """
    if "aij" not in A.getType() or "baij" in A.getType():
        return False
    first, end = A.getOwnershipRange()
    found = first < end and any(A.getRow(first)[1].tolist())
    if not found:
        with local_csr(A) as local:
            blocks = local.values, *(local.other[2:3] if local.other else ())
            found = any(map(_some, blocks))
    return not over_all(A.getComm().tompi4py(), found, op=MPI.LOR)


def _some(values: np.ndarray) -> bool:
    """Whether one is not zero."""
    return any((values[at : at + TOGETHER] != 0.0).any() for at in range(0, values.size, TOGETHER))
