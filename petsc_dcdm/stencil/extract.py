"""The stencil of an assembled matrix: face conductances, extra diagonal, Dirichlet rows.

Every row of a 5- or 7-point matrix, normalised so that its diagonal is positive, reads

    d x_i - sum_f w_f x_f = b_i,      w_f >= 0,      s = d - sum_f w_f >= 0.

A row that has only its diagonal is a Dirichlet row: it is decoupled, whatever its sign, and couplings of other rows to
it count into their ``s``. So is a row whose value a penalty fixes, by a diagonal far beyond its couplings. Matrices
that are not of this form are refused with a sentence that names the row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import BrokenMatrix, FormError, MatrixError, NeighbourError, raise_together
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.grid.shape import Periodic, Shape, size_text
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows, read, row_reader
from petsc_dcdm.stencil.entries.report import SUM_ROUNDING, MoreDirichlet, Problem, StencilError, StencilReport
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.entries.scales import range_factor, scaled, sign_and_scale
from petsc_dcdm.stencil.entries.shared import Told, agree, renumber_own, zeros_of
from petsc_dcdm.stencil.forms.row_scaling import RowFactors
from petsc_dcdm.stencil.ghosts import Flags, Ghosts, SharedFlags
from petsc_dcdm.stencil.local_csr import local_csr
from petsc_dcdm.stencil.packed import PackedStencil, Renumber, renumber_all

ROUNDING = 1e-9
"""Relative to the diagonal: entries and row sums of the wrong sign that are smaller are taken for rounding of the
assembly.
"""

NOISE = 0.1
"""Small row sums (below ROUNDING) of both signs are rounding, and taken for zero, where the negative ones add up to
this share of the positive ones; otherwise they are what the matrix means, however small.
"""

NEARLY_CLOSED = 1e-7
"""Relative to the diagonal: with every s below it the coarse solver, in single precision, cannot tell constants from a
null space.
"""


@dataclass
class RowStencil:
    """What the local rows say in float64, divided by ``scale``: diagonals are positive and at most 1, if their
    ratios are not beyond all measure.

    Attributes
    ----------
    box
        offset and shape of the box of the grid that the rows are on every rank, or None. All that follows is
        on that box with a halo of one cell (nz + 2, ny + 2, nx + 2), or without one in the order of the rows
    packed
        w and s in one byte a cell, where that is possible: for voxel geometry; the arrays are then empty
    w_low, w_high
        per axis x, y, z: conductance to the low and to the high neighbour, 0 where there is none. ``w_high``
        is only read where the matrix is not symmetric to the last bit.
    s
        extra diagonal, coupling to Dirichlet rows included; 0 in Dirichlet rows
    dirichlet
        local rows that have only their diagonal, or one so large that it fixes the value, and that diagonal
        as in the matrix; 0 in the rows ``empty``
    nearly_closed
        there is an s, and nowhere is it more than 1e-7 of the diagonal: constants nearly are a null space
    penalties
        global count of those rows that have couplings all the same
    mean_w
        global mean conductance along x, y, z over the faces that conduct, 0 where there is none
    active, extra
        global counts of the rows that are coupled, and of those that have an s
    shared
        the box is the whole grid, and the arrays are those of the leader of the team that all ranks are
    ghosts
        on several ranks
    periodic
        the axes (z, y, x) along which rows of any rank couple round the ends of grid lines
    exact
        every entry of the matrix is in w and s, to rounding, but those in columns of Dirichlet rows; for a
        packed stencil if it is symmetric
    """

    box: tuple[Shape, Shape] | None
    packed: PackedStencil | None
    w_low: list[np.ndarray]
    w_high: list[np.ndarray] | None
    s: np.ndarray
    dirichlet: np.ndarray
    dirichlet_diagonal: np.ndarray
    empty: np.ndarray
    mean_w: tuple[float, ...]
    scale: float
    active: int
    extra: int
    nearly_closed: bool
    penalties: int
    ghosts: Ghosts | None
    periodic: Periodic
    exact: bool
    shared: bool = False


def _cell_text(cell: int, shape: Shape) -> str:
    _, ny, nx = shape
    return f"({cell % nx}, {cell // nx % ny}, {cell // (nx * ny)})"


def explain_row(error: StencilError, grid: Grid, first: int) -> MatrixError:
    """The sentence for the first row that does not fit."""
    row, value = error.row + first, error.value
    entry = f"row {row}, column {error.column}"
    cell = int(grid.cells[error.row]) if grid.cells is not None else row
    where = f"row {row} (cell {_cell_text(cell, grid.shape)} of the {size_text(grid.shape)} grid from {grid.source})"
    serves = "petsc_dcdm serves 5- and 7-point stencils"
    kinds = {Problem.NOT_FINITE: BrokenMatrix, Problem.SIGN: FormError, Problem.ROW_SUM: FormError}
    kinds |= {Problem.NOT_NEIGHBOUR: NeighbourError, Problem.OUTSIDE: NeighbourError}
    kind = kinds.get(error.problem, MatrixError)
    return kind(
        {
            Problem.NOT_FINITE: f"the matrix has {value} in row {row}; check its assembly",
            Problem.DIAGONAL: f"{where} has diagonal {value:g} after the sign of the first row is taken out: a Poisson "
            "matrix has diagonals of one sign (give identity rows the sign of the others)",
            Problem.SIGN: f"{entry}: the off-diagonal entry {value:g} has the sign of the diagonal; those of a Poisson "
            "matrix are <= 0 where the diagonal is > 0, or all signs the other way round",
            Problem.ROW_SUM: f"{where} has row sum {value:g} against the sign of its diagonal: it is not diagonally "
            "dominant, so this is no Poisson matrix",
            Problem.NOT_NEIGHBOUR: f"{where} is coupled to column {error.column}, which is no face neighbour; {serves}",
            Problem.OUTSIDE: f"{where} is coupled to column {error.column}, which has no cell of the grid; {serves}",
        }[error.problem]
    )


def extract(
    A: PETSc.Mat,
    grid: Grid,
    threads: int,
    known: Ghosts | None = None,
    factors: RowFactors | None = None,
    team: Workers = ONE_RANK,
) -> RowStencil:
    """Reads and checks the local rows of ``A``. Collective; raises MatrixError on all ranks alike.

    ``known``: ghosts of a matrix with this pattern, if there are any; they stay the caller's. ``factors``: what rows
    are divided by first. ``team``: where it has all ranks each reads its rows right into the arrays of the leader.
    The symmetry of couplings is settled in :mod:`petsc_dcdm.stencil.system` if it is packed or w_high is set.
    """
    comm, ghosts = A.getComm().tompi4py(), known
    first, last = A.getOwnershipRange()
    n = last - first
    kind = row_reader(comm)
    shared = team.ranks == comm.Get_size() > 1
    box = ((0, 0, 0), grid.shape) if shared or comm.Get_size() == 1 else grid.box
    if kind is not CsrRows or not over_all(comm, box is not None, op=MPI.LAND):
        box = None
    if not shared or box is None:
        shared, team = False, ONE_RANK
    shape = (n,) if box is None else tuple(size + 2 for size in box[1])
    with local_csr(A, kind is CsrRows) as local:
        given = local if factors is None else factors.divided(local, threads)
        line = grid.box[1][2] if grid.box else 0
        rows = read(kind, given, grid.shape, first, grid.cells, threads, grid.periodic, line)
        sign, scale = sign_and_scale(rows, comm)
        options: dict[str, Any] = {"sign": sign, "scale": scale, "rounding": ROUNDING}
        if box is not None:
            options["box"] = box
        if comm.Get_size() > 1 and ghosts is None:
            ghosts = Ghosts(A, rows.ghost_columns(), grid, team)
        flags = Flags(rows, ghosts)
        if shared and ghosts is not None and isinstance(rows, CsrRows):
            flags = SharedFlags(rows, ghosts, first, A.getSize()[0], team)
        make, renumber = partial(zeros_of, team, shape), partial(renumber_own, grid) if shared else renumber_all

        def couplings(places: list[np.ndarray] | None = None, **more: Any) -> Found:
            try:
                places, explain = places or make(2, np.uint8), partial(explain_row, grid=grid, first=first)
                return _couplings(rows, comm, places, make, renumber, {**options, **more}, explain, factors is not None)
            except MatrixError:
                if ghosts is not None and ghosts is not known:
                    ghosts.destroy()  # the traceback may live longer than MPI
                raise

        found = None
        # Dirichlet rows mostly are short, or lie at the boundary: to look at all takes as long as a third of the rest.
        for longest in (1, 2 * grid.dimension, None) if kind is CsrRows else (None,):
            places = make(2, np.uint8)  # where ranks meet, before they have looked at anything
            flags.find(longest)
            with suppress(MoreDirichlet):
                found = couplings(places)
                break
        assert found is not None
        told = Told(comm, rows, found[4])
        penalties = 0
        if told.stiff:
            penalties = over_all(comm, rows.find_penalties(told.least_diagonal))
            if penalties:
                flags.tell()
                found = couplings()
                told = Told(comm, rows, found[4])
        sum_rounding = _sum_rounding(told)
        if sum_rounding is not None:
            found = couplings(sum_rounding=sum_rounding)
            told = Told(comm, rows, found[4])
        packed, w_low, w_high, s, _ = found
        dirichlet, diagonal, empty = rows.fixed()
        if factors is not None:
            diagonal = diagonal * factors.values[dirichlet]
    if (factor := range_factor(told.least_diagonal, told.max_diagonal, scale)) != 1.0:
        scale *= factor
        scaled(kind, [*w_low, *(w_high or ()), s], factor, team, threads)
        packed = packed and packed.scaled(factor)
    return RowStencil(
        *(box, packed, w_low, w_high, s, dirichlet, diagonal, empty),
        mean_w=told.mean_w,
        scale=sign / scale,
        active=told.coupled,
        extra=told.extra,
        nearly_closed=told.extra > 0 and told.most_sum <= NEARLY_CLOSED,
        penalties=penalties,
        ghosts=ghosts,
        periodic=told.periodic,
        # A row that is all zero has no solution that any stencil could be asked about; those of a penalty are not read.
        exact=not (told.inexact or told.empty or penalties) and w_high is None,
        shared=shared,
    )


def _sum_rounding(told: Told) -> float | None:
    """Up to where row sums are to be taken for zero, if the first reading, up to the rounding of a sum, was not right:
    all of them are noise, or none is, for constants are no null space where every row has a positive sum.
    """
    negative, positive = told.small_sums
    if positive > 0 and -negative >= NOISE * positive:
        return ROUNDING
    return 0.0 if 0 < told.least_sum <= SUM_ROUNDING else None


Found = tuple[PackedStencil | None, list[np.ndarray], list[np.ndarray] | None, np.ndarray, StencilReport]


def _couplings(
    rows: CsrRows | NumpyRows,
    comm: MPI.Intracomm,
    places: list[np.ndarray],
    make: Callable[[int, type], list[np.ndarray]],
    renumber: Renumber,
    options: dict[str, Any],
    explain: Callable[[StencilError], MatrixError],
    both: bool,
) -> Found:
    """The stencil packed if all ranks can, else w_low, w_high if it matters or ``both`` are wanted, and s, in so many
    arrays of zeros that ``make`` makes; ``renumber`` those of this rank's cells. ``places``: two of bytes.
    Collective; raises MatrixError on all ranks alike, and MoreDirichlet.
    """

    def together(read: Callable[[], Any]) -> Any:
        error: Exception | None = None
        found = None
        try:
            found = read()
            if found is not None:
                rows.fixed()  # while others still read: what is wanted of them soon
        except MoreDirichlet:
            error = MoreDirichlet()  # not what was raised: that would hold its frame, which holds it
        except StencilError as problem:
            error = explain(problem)
        raise_together(comm, error, before=MoreDirichlet)
        return found

    compiled = rows if isinstance(rows, CsrRows) else None
    found = together(lambda: compiled.extract_packed(**options, into=places) if compiled else None)
    packed = agree(found and found[0], comm, renumber)
    if packed is not None and found is not None:
        return packed, [], None, np.zeros(0), found[1]
    *w_low, s = make(4, np.float64)
    w_high = make(3, np.float64) if both else None
    report = together(lambda: rows.extract(w_low, s, w_high=w_high or (None,) * 3, **options))
    if w_high is None and over_all(comm, report.symmetry) % 2**64:
        w_high = make(3, np.float64)
        rows.extract(w_low, s, w_high=w_high, **options)
    return None, w_low, w_high, s, report
