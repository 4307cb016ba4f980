"""The stencil of an assembled matrix: face conductances, extra diagonal, Dirichlet rows.

Every row of a 5- or 7-point matrix, normalised so that its diagonal is positive, reads

    d x_i - sum_f w_f x_f = b_i,      w_f >= 0,      s = d - sum_f w_f >= 0.

A row that has only its diagonal is a Dirichlet row: it is decoupled, and couplings of other rows to it count
into their ``s`` (DESIGN 3.2). Matrices that are not of this form are refused with a sentence that names the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.csr import CsrRows, Problem, Shape, StencilError, StencilReport
from petsc_dcdm.grid.csr_numpy import NumpyRows, read, row_reader
from petsc_dcdm.grid.discovery import Grid, size_text
from petsc_dcdm.grid.errors import MatrixError, raise_together
from petsc_dcdm.grid.local_csr import local_csr
from petsc_dcdm.models.packed import HAS_S, PackedStencil

ROUNDING = 1e-9
"""Relative to the diagonal: entries and row sums that are smaller are taken for rounding of the assembly."""


@dataclass
class RowStencil:
    """What the local rows say in float64, divided by ``scale``: diagonals are positive and at most 1.

    packed         w and s in one byte a cell, where that is possible: on such a box, for voxel geometry; the arrays are
                   then empty
    w_low, w_high  per axis x, y, z: conductance to the low and to the high neighbour, 0 where there is none; in the
                   order of the rows, or where these are a box of the grid on all ranks, on that box with a halo of one
                   cell (nz + 2, ny + 2, nx + 2).
                   ``w_high`` is only read where the matrix is not symmetric to the last bit.
    s              extra diagonal, coupling to Dirichlet rows included; 0 in Dirichlet rows
    box            offset and shape of that box, or None
    dirichlet      local rows that have only their diagonal, and that diagonal as in the matrix, 1 where it is 0
    mean_w         global mean conductance along x, y, z over the faces that conduct, 0 where there is none
    active, extra  global counts of the rows that are coupled, and of those that have an s
    """

    packed: PackedStencil | None
    w_low: list[np.ndarray]
    w_high: list[np.ndarray] | None
    s: np.ndarray
    box: tuple[Shape, Shape] | None
    dirichlet: np.ndarray
    dirichlet_diagonal: np.ndarray
    mean_w: tuple[float, ...]
    scale: float
    active: int
    extra: int


def _cell_text(cell: int, shape: Shape) -> str:
    _, ny, nx = shape
    return f"({cell % nx}, {cell // nx % ny}, {cell // (nx * ny)})"


def _explain(error: StencilError, grid: Grid, first: int) -> MatrixError:
    """The sentence for the first row that does not fit."""
    row, value = error.row + first, error.value
    entry = f"row {row}, column {error.column}"
    cell = int(grid.cells[error.row]) if grid.cells is not None else row
    where = f"row {row} (cell {_cell_text(cell, grid.shape)} of the {size_text(grid.shape)} grid from {grid.source})"
    serves = "petsc_dcdm serves 5- and 7-point stencils"
    return MatrixError(
        {
            Problem.NOT_FINITE: f"the matrix has {value} in row {row}; check its assembly",
            Problem.DIAGONAL: f"{where} has diagonal {value:g} after the sign of the first row is taken out: a Poisson "
            "matrix has diagonals of one sign (give identity rows the sign of the others)",
            Problem.SIGN: f"{entry}: the off-diagonal entry {value:g} has the sign of the diagonal; those of a Poisson "
            "matrix are <= 0 where the diagonal is > 0, or all signs the other way round",
            Problem.ROW_SUM: f"{where} has row sum {value:g} against the sign of its diagonal: it is not diagonally "
            "dominant, so this is no Poisson matrix",
            Problem.PERIODIC: f"{where} is coupled to column {error.column} at the other end of its grid line: "
            "periodic boundaries are not supported",
            Problem.NOT_NEIGHBOUR: f"{where} is coupled to column {error.column}, which is no face neighbour; {serves}",
            Problem.OUTSIDE: f"{where} is coupled to column {error.column}, which has no cell of the grid; {serves}",
        }[error.problem]
    )


def _set_ghosts(A: PETSc.Mat, rows: CsrRows | NumpyRows, cells: np.ndarray) -> None:
    """Cells and Dirichlet flags of the columns that live on other ranks. Collective."""
    columns = rows.ghost_columns()
    # One scatter carries both: the cell number is exact in float64, the Dirichlet flag is its sign.
    code = A.createVecRight()
    code.setArray(np.where(rows.dirichlet, -cells - 1.0, cells))
    wanted = PETSc.IS().createGeneral(columns.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    ghosts = PETSc.Vec().createSeq(columns.size)
    scatter = PETSc.Scatter().create(code, wanted, ghosts, None)
    scatter.scatter(code, ghosts)
    found = ghosts.getArray(readonly=True).astype(np.int64)
    rows.set_ghosts(columns, np.where(found < 0, -found - 1, found), (found < 0).astype(np.uint8))
    for petsc_object in (scatter, wanted, code, ghosts):
        petsc_object.destroy()


def extract(A: PETSc.Mat, grid: Grid, threads: int) -> RowStencil:
    """Reads and checks the local rows of ``A``. Collective; raises MatrixError on all ranks alike.

    The symmetry of couplings is settled in :mod:`petsc_dcdm.grid.system` if w_high is set.
    """
    comm = A.getComm().tompi4py()
    first, last = A.getOwnershipRange()
    n = last - first
    kind = row_reader(comm)
    box = ((0, 0, 0), grid.shape) if comm.Get_size() == 1 else grid.box
    if not comm.allreduce(kind is CsrRows and box is not None, op=MPI.LAND):
        box = None
    with local_csr(A, kind is CsrRows) as local:
        indptr, values = local.indptr, local.values
        rows = read(kind, local, grid.shape, first_column=first, cells=grid.cells, first_cell=first, threads=threads)
        rows.find_dirichlet()
        if comm.Get_size() > 1:
            _set_ghosts(A, rows, np.arange(first, last, dtype=np.int64) if grid.cells is None else grid.cells)
        signs = comm.allgather(rows.first_sign())
        sign = next((s for s in signs if s), 1.0)
        # The scale only has to be of the right size: a first diagonal will do, the rest is settled by the largest.
        largest = comm.allreduce(float(np.abs(values[: indptr[1]]).max(initial=0.0)) if n else 0.0, op=MPI.MAX)
        scale = 1.0 / largest if np.isfinite(largest) and largest > 0 else 1.0
        options: dict[str, Any] = {"sign": sign, "scale": scale, "rounding": ROUNDING}
        if box is not None:
            options["box"] = box
        packed, w_low, s, w_high = None, [], np.zeros(0), None
        error, report = None, None
        try:
            found = rows.extract_packed(**options) if isinstance(rows, CsrRows) and box is not None else None
            packed, report = found or (None, None)
        except StencilError as problem:
            error = _explain(problem, grid, first)
        raise_together(comm, error)
        if box is not None:
            packed = _agree(packed, report, comm)
        if packed is None:
            shape = (n,) if box is None else tuple(size + 2 for size in box[1])
            w_low, s = [np.zeros(shape) for _ in range(3)], np.zeros(shape)
            try:
                report = rows.extract(w_low, s, **options)
            except StencilError as problem:
                error = _explain(problem, grid, first)
            raise_together(comm, error)
            assert report is not None
            if comm.allreduce(report.symmetry) % 2**64:
                w_high = [np.zeros(shape) for _ in range(3)]
                rows.extract(w_low, s, w_high=w_high, **options)
        assert report is not None
        dirichlet = np.flatnonzero(rows.dirichlet)
        diagonal = _sums(indptr, values, dirichlet)
    extra = np.count_nonzero(s if packed is None else packed.cells & HAS_S)
    totals = comm.allreduce(np.array([*report.w_sum, *report.w_count, n - dirichlet.size, extra], dtype=float))
    mean_w = tuple(float(total / count) if count else 0.0 for total, count in zip(totals[:3], totals[3:6], strict=True))
    largest = comm.allreduce(report.max_diagonal, op=MPI.MAX) * scale
    if largest > 0 and not 0.5 <= largest <= 1.0:
        scale /= largest
        for array in (*w_low, *(w_high or ()), s):
            array /= largest
        packed = packed and packed.scaled(1.0 / largest)
    return RowStencil(
        packed=packed,
        w_low=w_low,
        w_high=w_high,
        s=s,
        box=box,
        dirichlet=dirichlet,
        dirichlet_diagonal=np.where(diagonal == 0.0, 1.0, diagonal),
        mean_w=mean_w,
        scale=sign / scale,
        active=int(totals[6]),
        extra=int(totals[7]),
    )


def _agree(packed: PackedStencil | None, report: StencilReport | None, comm: MPI.Intracomm) -> PackedStencil | None:
    """The packed stencil in terms that all ranks share; None if one has none or it is not symmetric. Collective."""
    if not comm.allreduce(packed is not None, op=MPI.LAND):
        return None
    assert packed is not None and report is not None
    if comm.allreduce(report.symmetry) % 2**64:
        return None
    if comm.Get_size() == 1:
        return packed
    known = comm.allgather((packed.c, packed.s_value))
    return packed.agreed([c for c, _ in known], [values for _, values in known])


def _sums(indptr: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sum of the entries of the given rows: of rows that have nothing else, the diagonal."""
    lengths = indptr[rows + 1] - indptr[rows]
    if rows.size and (lengths == 1).all():
        return values[indptr[rows]]
    return np.array([values[indptr[row] : indptr[row + 1]].sum() for row in rows], dtype=float)
