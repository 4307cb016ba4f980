"""Between the rows of a PETSc vector and the boxes of the grid: built once, used at every apply.

On one rank with one row per cell nothing is copied: the box is a view of the vector's memory.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.boxes import BoxPartition
from petsc_dcdm.grid.discovery import Grid


def _send_to_owners(comm: MPI.Intracomm, owner: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Every column of the int64 array ``values`` (k, n) goes to the rank ``owner`` names.

    Collective; returns (k, received).
    """
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=comm.Get_size())
    received = np.empty_like(counts)
    comm.Alltoall(counts, received)
    out = np.empty((values.shape[0], int(received.sum())), dtype=np.int64)
    for row_in, row_out in zip(values, out, strict=True):
        comm.Alltoallv([np.ascontiguousarray(row_in[order]), counts], [row_out, received])
    return out


class RowMap:
    """Moves values between the rows as PETSc distributes them and this rank's box.

    box_index   index in the box (x fastest) of each row that lies in it; None if the rows are the box.
    """

    def __init__(self, A: PETSc.Mat, grid: Grid, boxes: BoxPartition, comm: MPI.Intracomm) -> None:
        """Collective."""
        rank = comm.Get_rank()
        self.shape = boxes.box(rank)[1]
        first, last = A.getOwnershipRange()
        cells = np.arange(first, last, dtype=np.int64) if grid.cells is None else grid.cells
        self._scatter: Any = None
        self._box_vec: Any = None
        if comm.Get_size() == 1:
            index = cells
        else:
            owner = boxes.owner(cells)
            rows, cells = _send_to_owners(comm, owner, np.stack([np.arange(first, last, dtype=np.int64), cells]))
            index = boxes.local_index(rank, cells)
            order = np.argsort(index, kind="stable")
            rows, index = rows[order], index[order]
            in_place = rows.size == last - first and bool((rows == np.arange(first, last)).all())
            if not comm.allreduce(in_place, op=MPI.LAND):
                row_vec = A.createVecRight()
                self._box_vec = PETSc.Vec().createMPI((rows.size, PETSc.DECIDE), comm=A.getComm())
                wanted = PETSc.IS().createGeneral(rows.astype(PETSc.IntType), comm=A.getComm())
                self._scatter = PETSc.Scatter().create(row_vec, wanted, self._box_vec, None)
                wanted.destroy()
                row_vec.destroy()
        whole = index.size == prod(self.shape) and bool((index == np.arange(index.size)).all())
        self.box_index: np.ndarray | None = None if whole else index
        self._box = None if whole else np.zeros(prod(self.shape))

    @property
    def copies(self) -> bool:
        """Whether values are copied on the way, False when the box is the vector's own memory."""
        return self._scatter is not None or self.box_index is not None

    def to_box(self, vec: PETSc.Vec) -> np.ndarray:
        """The vector's values on this rank's box, float64 (nz, ny, nx), 0 where there is no row. Collective.

        The array is a view of the vector or of a buffer that the next call overwrites: read it at once, do not write.
        """
        source = vec
        if self._scatter is not None:
            self._scatter.scatter(vec, self._box_vec)
            source = self._box_vec
        values = source.getArray(readonly=True)
        if self.box_index is None:
            return values.reshape(self.shape)
        assert self._box is not None
        self._box[self.box_index] = values
        return self._box.reshape(self.shape)

    def from_box(self, box: np.ndarray, vec: PETSc.Vec) -> None:
        """Write the box's values into the rows of ``vec``. Collective. Rows outside every box do not exist."""
        values = box.ravel() if self.box_index is None else box.ravel()[self.box_index]
        if self._scatter is None:
            vec.setArray(values)
        else:
            self._box_vec.setArray(values)
            self._scatter.scatter(self._box_vec, vec, mode=PETSc.ScatterMode.REVERSE)

    def destroy(self) -> None:
        """Collective."""
        for petsc_object in (self._scatter, self._box_vec):
            if petsc_object is not None:
                petsc_object.destroy()
        self._scatter = self._box_vec = None
