"""Rows whose unknowns follow from their own diagonals: they are solved before the loop, which never sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil.entries.binding import kernels, pointer
from petsc_dcdm.stencil.entries.numpy_rows import read, row_reader
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.forms.conversion import is_aij
from petsc_dcdm.stencil.local_csr import local_csr

LAST_BITS = 4 * float(np.finfo(np.float64).eps)
"""Relative to an unknown: corrections that are smaller are rounding."""


@dataclass(frozen=True)
class FixedRows:
    """Rows without couplings (identity rows, solid cells), and rows whose diagonal is a penalty that fixes the value.

    Others may couple to them, one way or both. In a transposed system it is the other way round: they couple to others
    that do not couple to them.

    Attributes
    ----------
    rows
        int64, local
    diagonal
        float64, as in the matrix; 0 in rows that are all zero
    empty
        those of the rows that are all zero
    anywhere
        whether any rank has such rows
    coupled
        whether some of them have couplings all the same (penalties)
    certain
        whether this is known of the matrix that is solved; else of another that stands for it
    """

    rows: np.ndarray
    diagonal: np.ndarray
    empty: np.ndarray
    anywhere: bool
    coupled: bool = False
    certain: bool = True

    def begin(self, b: PETSc.Vec, x: PETSc.Vec, guessed: bool) -> bool:
        """x = b / diagonal there, and what it was in rows that are all zero; without a guess x is 0. Returns whether b
        is not 0 in one of the rows. Collective.
        """
        if not self.anywhere:
            return False
        given = b.getArray(readonly=True)
        some = bool(over_all(x.comm.tompi4py(), _some_at(given, self.rows), op=MPI.LOR))
        if some or guessed:
            with x as unknowns:
                values = given[self.rows]
                unknowns[self.rows] = self._quotient(values, unknowns[self.rows] if self.empty.size else None)
        return some

    def correct(self, r: PETSc.Vec, x: PETSc.Vec) -> bool:
        """x += r / diagonal there. Returns whether that moved any of them beyond its last bits. Collective."""
        if not self.anywhere:
            return False
        change = r.getArray(readonly=True)[self.rows]
        before = np.zeros(0)
        if change.any():  # in solid cells there is nothing, as a rule
            change, before = self._quotient(change), x.getArray(readonly=True)[self.rows]
            change[np.abs(change) <= LAST_BITS * np.abs(before)] = 0.0
        moved = bool(over_all(x.comm.tompi4py(), bool(change.any()), op=MPI.LOR))
        if moved and before.size:
            with x as unknowns:
                unknowns[self.rows] = before + change
        elif moved:
            x.stateIncrease()  # a norm that PETSc keeps is to be gone on all ranks or on none: the next is collective
        return moved

    def clear(self, v: PETSc.Vec) -> None:
        """v = 0 there, where it is finite: NaN stays, and so does the residual of rows that are all zero. To be called
        on all ranks.
        """
        if self.rows.size and _some_at(v.getArray(readonly=True), self.rows):
            with v as values:
                values[self.rows] *= np.where(self.diagonal == 0.0, 1.0, 0.0)
        elif self.anywhere:
            v.stateIncrease()  # as in `correct`

    def left_of(self, b: PETSc.Vec, mult: Callable[[PETSc.Vec, PETSc.Vec], None]) -> PETSc.Vec:
        """The right-hand side without what these unknowns add to other rows, and 0 here; a new vector. Collective."""
        if not self.anywhere:
            return b.copy()
        known, left = b.duplicate(), b.duplicate()
        known.set(0.0)
        self.begin(b, known, guessed=False)
        mult(known, left)
        known.destroy()
        left.aypx(-1.0, b)
        self.clear(left)
        return left

    def precondition(self, r: PETSc.Vec, z: PETSc.Vec) -> None:
        """z = r / diagonal there."""
        if self.rows.size:
            with z as values:
                values[self.rows] = self._quotient(r.getArray(readonly=True)[self.rows])

    def _quotient(self, values: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
        """values / diagonal; what ``otherwise``, or 0, has in rows that are all zero."""
        if not self.empty.size:
            return np.asarray(values / self.diagonal)
        out = np.zeros(values.size) if otherwise is None else otherwise
        return np.divide(values, self.diagonal, out=out, where=self.diagonal != 0.0)


def _some_at(values: np.ndarray, rows: np.ndarray) -> bool:
    """Whether one of ``values[rows]`` is not 0."""
    try:
        return bool(kernels().dcdm_some_at(pointer(values), pointer(rows), rows.size))
    except KernelsUnavailable:
        return bool((values[rows] != 0.0).any())


def no_fixed_rows() -> FixedRows:
    none = np.zeros(0, np.int64)
    return FixedRows(none, np.zeros(0), none, anywhere=False)


def find_fixed_rows(A: PETSc.Mat) -> FixedRows:
    """Those of an AIJ matrix, whatever else it is; none of another kind. Collective."""
    comm = A.getComm().tompi4py()
    if not is_aij(A) or A.getSize()[0] != A.getSize()[1]:
        return no_fixed_rows()
    kind = row_reader(comm)
    with local_csr(A, kind is CsrRows) as local:
        reader = read(kind, local, (1, 1, A.getSize()[0]), A.getOwnershipRange()[0])
        coupled = reader.find_dirichlet() == 0
        diagonal = np.abs(reader.diagonals(np.arange(coupled.size)))
        least = over_all(comm, float(diagonal[coupled].min(initial=np.inf)), op=MPI.MIN)
        penalties = over_all(comm, reader.find_penalties(least))
        rows, diagonal, empty = reader.fixed()
    anywhere = bool(over_all(comm, rows.size > 0, op=MPI.LOR))
    return FixedRows(rows, diagonal, empty, anywhere, coupled=penalties > 0)
