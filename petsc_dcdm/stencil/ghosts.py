"""The columns of a rank's rows that other ranks own: what is known of them, asked of their owners."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.stencil.discovery import Grid


class Ghosts:
    """The columns of this rank's rows that are rows of other ranks: which they are, their cells, and whether they are
    Dirichlet rows. It depends on the pattern of the matrix only.
    """

    def __init__(self, A: PETSc.Mat, columns: np.ndarray, grid: Grid) -> None:
        """Collective. ``columns``: int64, sorted."""
        comm = A.getComm().tompi4py()
        ranges = np.asarray(A.getOwnershipRanges(), np.int64)
        owner = np.searchsorted(ranges, columns, side="right") - 1
        self._sf = PETSc.SF().create(A.getComm())
        remote = np.stack([owner, columns - ranges[owner]], axis=1).astype(PETSc.IntType)
        self._sf.setGraph(grid.rows, None, remote)
        self.columns = self.cells = columns
        self.flags = np.zeros(0, np.uint8)
        """Of Dirichlet rows, as they were fetched last."""
        if over_all(comm, grid.cells is not None, op=MPI.LOR):
            cells = np.arange(grid.first, grid.first + grid.rows) if grid.cells is None else grid.cells
            self.cells = self.fetch(cells)

    def dirichlet(self, flags: np.ndarray) -> np.ndarray:
        """uint8: the flags of these columns from those of everybody's rows. Collective."""
        self.flags = self.fetch(flags)
        return self.flags

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """int64 or uint8: what these columns have, from what everybody's rows have. Collective."""
        unit = MPI.INT64_T if values.dtype == np.int64 else MPI.UNSIGNED_CHAR
        found = np.empty(self.columns.size, values.dtype)
        self._sf.bcastBegin(unit, values, found, MPI.REPLACE)
        self._sf.bcastEnd(unit, values, found, MPI.REPLACE)
        return found

    def destroy(self) -> None:
        """Collective."""
        self._sf.destroy()
