"""What the values in Dirichlet rows add to other rows, taken off the right-hand side once and for all."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.rows import Beside, CsrRows
from petsc_dcdm.stencil.local_csr import local_csr
from petsc_dcdm.stencil.system import GridSystem


def box_without_dirichlet(grid: GridSystem, A: PETSc.Mat, x: PETSc.Vec, b: np.ndarray, to: np.ndarray) -> bool:
    """``to``, which may be ``b``: the right-hand side without what the values of ``x`` in Dirichlet rows add to the
    other rows, and 0 in these. Both are float64 on the box of the only rank. Returns whether those values are all
    finite.
    """
    places = grid.grid
    with local_csr(A) as local:
        arrays = local.indptr, local.indices, local.values
        given = RowsOnGrid(*arrays, places.shape, cells=places.cells, periodic=places.periodic)
        rows = CsrRows(given, grid.threads)
        return rows.without_dirichlet(grid.fixed.rows, x.getArray(readonly=True), b, to)


def rows_without_dirichlet(grid: GridSystem, A: PETSc.Mat, x: PETSc.Vec, b: PETSc.Vec, to: PETSc.Vec) -> bool:
    """The same on several ranks, with vectors of their rows, ``to`` another one than ``b``; what is taken off a row is
    so in the same order as on one rank. Collective.
    """
    places, ghosts = grid.grid, grid.ghosts
    assert ghosts is not None
    own, first = x.getArray(readonly=True), A.getOwnershipRange()[0]
    there = ghosts.fetch(own.view(np.int64)).view(np.float64)
    cells, shape, periodic = places.cells, places.shape, places.periodic
    if places.box is None and cells is None:
        cells = places.first + np.arange(places.rows)
    if places.box is not None:  # which the rows fill in order: a grid of its own
        shape = places.box[1]
        z, y, x_ = (ring and n == whole for ring, n, whole in zip(periodic, shape, places.shape, strict=True))
        periodic = z, y, x_
    with local_csr(A) as local, to as out:
        given = RowsOnGrid(
            *(local.indptr, local.indices, local.values, shape, first),
            cells=cells if places.box is None else None,
            periodic=periodic,
            other=local.other,
        )
        rows = CsrRows(given, grid.threads)
        rows.set_ghosts(ghosts.columns, ghosts.cells, ghosts.flags)
        right = b.getArray(readonly=True)
        finite = rows.without_dirichlet(grid.fixed.rows, own, right, out, Beside(there, cells, places.first))
    return bool(over_all(x.comm.tompi4py(), finite, op=MPI.LAND))
