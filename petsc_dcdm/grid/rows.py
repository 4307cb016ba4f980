"""Between the rows of a PETSc vector and the boxes of the grid: built once, used at every apply.

Where every rank's rows are its box in order (one rank with one row per cell; a DMDA whose cuts suit the coarsening)
nothing is copied: the box is a view of the vector's memory.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import BoxPartition
from petsc_dcdm.grid.discovery import Grid

CHUNK = 1 << 16
"""Rows that are looked at together: a cache full, so that no temporary is as long as the rows."""


class RowMap:
    """Moves values between the rows as PETSc distributes them and this rank's box."""

    def __init__(self, A: PETSc.Mat, grid: Grid, boxes: BoxPartition, comm: MPI.Intracomm, in_place: bool) -> None:
        """Collective. ``in_place``: every rank's rows are its box, x fastest."""
        self.shape = boxes.box(comm.Get_rank())[1]
        self._index: np.ndarray | None = None
        self._box: np.ndarray | None = None
        self._scatter: Any = None
        self._box_vec: Any = None
        if in_place:
            return
        first, last = A.getOwnershipRange()
        index = np.empty(last - first, PETSc.IntType)
        before = boxes.first_place(comm.Get_rank())
        for begin in range(0, index.size, CHUNK):
            end = min(begin + CHUNK, index.size)
            cells = np.arange(first + begin, first + end) if grid.cells is None else grid.cells[begin:end]
            index[begin:end] = boxes.place(cells)
        own = not index.size or bool(index.min() >= before and index.max() < before + prod(self.shape))
        if comm.allreduce(own, op=MPI.LAND):
            index -= before
            whole = index.size == prod(self.shape) and bool((np.diff(index) == 1).all())
            if not comm.allreduce(whole, op=MPI.LAND):
                self._index = index
                self._box = np.zeros(prod(self.shape))
            return
        row_vec = A.createVecRight()
        self._box_vec = PETSc.Vec().createMPI((prod(self.shape), PETSc.DECIDE), comm=A.getComm())
        places = PETSc.IS().createGeneral(index, comm=A.getComm())
        self._scatter = PETSc.Scatter().create(row_vec, None, self._box_vec, places)
        places.destroy()
        row_vec.destroy()

    @property
    def copies(self) -> bool:
        """Whether values are copied on the way, False when the box is the vector's own memory."""
        return self._scatter is not None or self._index is not None

    def to_box(self, vec: PETSc.Vec) -> np.ndarray:
        """The vector's values on this rank's box, float64 (nz, ny, nx), 0 where there is no row. Collective.

        The array is a view of the vector or of a buffer that the next call overwrites: read it at once, do not write.
        """
        if self._scatter is not None:
            self._scatter.scatter(vec, self._box_vec)
            return self._box_vec.getArray(readonly=True).reshape(self.shape)
        values = vec.getArray(readonly=True)
        if self._index is None:
            return values.reshape(self.shape)
        assert self._box is not None
        self._box[self._index] = values
        return self._box.reshape(self.shape)

    def from_box(self, box: np.ndarray, vec: PETSc.Vec) -> None:
        """Write the box's values, 0 where there is no row, into the rows of ``vec``. Collective."""
        if self._scatter is None:
            vec.setArray(box.ravel() if self._index is None else box.ravel()[self._index])
            return
        self._box_vec.setArray(box.ravel())
        self._scatter.scatter(self._box_vec, vec, mode=PETSc.ScatterMode.REVERSE)

    def destroy(self) -> None:
        """Collective."""
        for petsc_object in (self._scatter, self._box_vec):
            if petsc_object is not None:
                petsc_object.destroy()
        self._scatter = self._box_vec = None
