"""The stencil of an assembled matrix: face conductances, extra diagonal, Dirichlet rows.

Every row of a 5- or 7-point matrix, normalised so that its diagonal is positive, reads

    d x_i - sum_f w_f x_f = b_i,      w_f >= 0,      s = d - sum_f w_f >= 0.

A row that has only its diagonal is a Dirichlet row: it is decoupled, and couplings of other rows to it count into
their ``s`` (DESIGN 3.2). Matrices that are not of this form are refused with a sentence that names the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.discovery import Grid, size_text
from petsc_dcdm.grid.errors import MatrixError, raise_together

ROUNDING = 1e-9
"""Relative to the diagonal: what differs by less is taken for rounding of the assembly."""


@dataclass
class RowStencil:
    """What the local rows say, in the order of the rows; all float64, normalised to a positive diagonal.

    w_low, w_high   per axis x, y, z: conductance to the low and to the high neighbour, 0 where there is none
    s               extra diagonal, coupling to Dirichlet rows included; 0 in Dirichlet rows
    diagonal        of the row, as stored in the matrix but for the sign
    dirichlet       rows that have only their diagonal
    sign            -1.0 if the matrix is negative definite, else 1.0 (the same on all ranks)
    """

    w_low: list[np.ndarray]
    w_high: list[np.ndarray]
    s: np.ndarray
    diagonal: np.ndarray
    dirichlet: np.ndarray
    sign: float


def _refuse(A: PETSc.Mat) -> MatrixError | None:
    """What can be told without looking at the entries."""
    if np.issubdtype(PETSc.ScalarType, np.complexfloating):
        return MatrixError("this PETSc has complex scalars; petsc_dcdm needs a PETSc configured with real scalars")
    rows, columns = A.getSize()
    if rows != columns:
        return MatrixError(f"the matrix is {rows} x {columns}; petsc_dcdm solves square systems")
    if A.getBlockSize() > 1:
        return MatrixError(f"the matrix has block size {A.getBlockSize()}; petsc_dcdm solves scalar systems, with one unknown per cell")
    if "aij" not in A.getType() or "baij" in A.getType():
        return MatrixError(f"the matrix is of type {A.getType()}; petsc_dcdm reads its stencil from an AIJ matrix (-mat_type aij)")
    return None


def _column_cells(A: PETSc.Mat, cells: np.ndarray, dirichlet: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell number and Dirichlet flag of each global column in ``columns``. Collective."""
    first, last = A.getOwnershipRange()
    if A.getComm().getSize() == 1:
        return cells[columns], dirichlet[columns]
    outside = np.unique(columns[(columns < first) | (columns >= last)])
    # One scatter carries both: the cell number is exact in float64, the Dirichlet flag is its sign.
    code = A.createVecRight()
    code.setArray(np.where(dirichlet, -cells - 1.0, cells))
    wanted = PETSc.IS().createGeneral(outside.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    ghosts = PETSc.Vec().createSeq(outside.size)
    scatter = PETSc.Scatter().create(code, wanted, ghosts, None)
    scatter.scatter(code, ghosts)
    ghost_code = ghosts.getArray(readonly=True).astype(np.int64)
    for petsc_object in (scatter, wanted, code, ghosts):
        petsc_object.destroy()
    local = (columns >= first) & (columns < last)
    at = np.where(local, columns - first, 0)
    if outside.size:
        ghost = ghost_code[np.searchsorted(outside, columns) % outside.size]
        ghost_cells, ghost_flags = np.where(ghost < 0, -ghost - 1, ghost), ghost < 0
        return np.where(local, cells[at], ghost_cells), np.where(local, dirichlet[at], ghost_flags)
    return cells[at], dirichlet[at]


def _cell_text(cell: int, shape: tuple[int, int, int]) -> str:
    nz, ny, nx = shape
    return f"({cell % nx}, {cell // nx % ny}, {cell // (nx * ny)})"


def extract(A: PETSc.Mat, grid: Grid) -> RowStencil:
    """Reads and checks the local rows of ``A``. Collective; raises MatrixError on all ranks alike.

    The symmetry of couplings between two rows is checked where both meet, in :mod:`petsc_dcdm.grid.system`.
    """
    comm = A.getComm().tompi4py()
    raise_together(comm, _refuse(A))
    first, last = A.getOwnershipRange()
    indptr, indices, values = A.getValuesCSR()
    n = last - first
    rows = np.repeat(np.arange(n), np.diff(indptr))
    columns = indices.astype(np.int64)
    cells = np.arange(first, last, dtype=np.int64) if grid.cells is None else grid.cells

    on_diagonal = columns == rows + first
    diagonal = np.zeros(n)
    diagonal[rows[on_diagonal]] = values[on_diagonal]
    error: MatrixError | None = None
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        error = MatrixError(f"the matrix has {values[bad]} in row {rows[bad] + first}, column {columns[bad]}; check its assembly")
    raise_together(comm, error)

    positive, negative = comm.allreduce(np.array([(diagonal > 0).any(), (diagonal < 0).any()], dtype=int))
    sign = -1.0 if negative and not positive else 1.0
    diagonal *= sign
    coupled = ~on_diagonal & (values != 0)
    has_neighbours = np.zeros(n, dtype=bool)
    has_neighbours[rows[coupled]] = True
    if positive and negative:
        bad = int(np.flatnonzero(diagonal < 0)[0]) if (diagonal < 0).any() else 0
        error = MatrixError(
            f"the diagonal of the matrix has both signs (row {bad + first} has {diagonal[bad]:g}): it is not definite; "
            "give identity rows the sign of the others"
        ) if (diagonal < 0).any() else None
    elif (has_neighbours & (diagonal <= 0)).any():
        bad = int(np.flatnonzero(has_neighbours & (diagonal <= 0))[0])
        error = MatrixError(f"row {bad + first} couples to others but its diagonal is 0; a Poisson matrix has a positive diagonal")
    raise_together(comm, error)

    dirichlet = ~has_neighbours
    rows, columns, weights = rows[coupled], columns[coupled], -sign * values[coupled]
    column_cells, column_dirichlet = _column_cells(A, cells, dirichlet, columns)
    raise_together(comm, _check_couplings(grid, cells, rows, columns, weights, column_cells, diagonal, first))

    nz, ny, nx = grid.shape
    w_low = [np.zeros(n) for _ in range(3)]
    w_high = [np.zeros(n) for _ in range(3)]
    offset = column_cells - cells[rows]
    inner = ~column_dirichlet
    s = diagonal.copy()
    # Equal strides (an axis one cell long) carry no couplings of that axis: check_couplings has refused them.
    strides = {0: 1, 1: nx, 2: nx * ny}
    for axis, length in enumerate((nx, ny, nz)):
        if length == 1:
            continue
        for target, distance in ((w_low, -strides[axis]), (w_high, strides[axis])):
            here = inner & (offset == distance)
            target[axis][rows[here]] = weights[here]
            s -= target[axis]
    s[dirichlet] = 0.0
    short = s < -ROUNDING * diagonal
    if short.any():
        bad = int(np.flatnonzero(short)[0])
        error = MatrixError(
            f"row {bad + first} has diagonal {sign * diagonal[bad]:g} but couplings of {diagonal[bad] - s[bad]:g}: it is not diagonally "
            "dominant, so this is no Poisson matrix"
        )
    raise_together(comm, error)
    s[s < ROUNDING * diagonal] = 0.0
    return RowStencil(w_low, w_high, s, diagonal, dirichlet, sign)


def _check_couplings(
    grid: Grid,
    cells: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    column_cells: np.ndarray,
    diagonal: np.ndarray,
    first: int,
) -> MatrixError | None:
    """Every coupling must be of the right sign and lead to a face neighbour."""
    nz, ny, nx = grid.shape
    own = cells[rows]
    steps = (
        np.abs(column_cells % nx - own % nx)
        + np.abs(column_cells // nx % ny - own // nx % ny)
        + np.abs(column_cells // (nx * ny) - own // (nx * ny))
    )
    far = np.flatnonzero(steps != 1)
    if far.size:
        bad = int(far[0])
        here, there = _cell_text(int(own[bad]), grid.shape), _cell_text(int(column_cells[bad]), grid.shape)
        return MatrixError(
            f"row {rows[bad] + first} couples cell {here} to cell {there} of the {size_text(grid.shape)} grid ({grid.source}), which is no face "
            "neighbour; petsc_dcdm serves 5- and 7-point stencils without periodic boundaries"
        )
    wrong = np.flatnonzero(weights < -ROUNDING * diagonal[rows])
    if wrong.size:
        bad = int(wrong[0])
        return MatrixError(
            f"row {rows[bad] + first}, column {columns[bad]}: the off-diagonal entry has the sign of the diagonal; the off-diagonals of a "
            "Poisson matrix are <= 0 where the diagonal is > 0 (or all signs the other way round)"
        )
    np.maximum(weights, 0.0, out=weights)
    return None
