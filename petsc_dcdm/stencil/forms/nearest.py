"""The 5- or 7-point operator nearest to a compact 9- or 27-point matrix, or to one whose signs are a little wrong.

Along each axis a face gets the sum of all entries of a row that go one to that side, whatever their other steps, the
mean of what its two rows say: the operator has the same action on linear functions as the matrix, and on constants,
since each row keeps its sum. Bilinear and trilinear elements become the usual finite differences. Couplings to
Dirichlet rows are in that sum only, so that rows beside them lose nothing of their symmetry, and a closed matrix has a
closed operator. What is negative after that (conductances, row sums) is taken for 0.

The operator is spectrally equivalent to the matrix as far as the matrix has no mixed derivatives; sweeps of the matrix
itself (:mod:`petsc_dcdm.solver.sweeps`) take care of the frequencies that linear functions do not tell about. How far
that carries is measured in docs/measurements/compact.md, which the limits below come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import FormError, MatrixError, raise_together
from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows, read, row_reader
from petsc_dcdm.stencil.entries.report import SUM_ROUNDING, Problem, StencilError
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.extract import (
    NEARLY_CLOSED,
    NOISE,
    ROUNDING,
    Ghosts,
    RowStencil,
    explain_row,
    range_factor,
    sign_and_scale,
)
from petsc_dcdm.stencil.forms.axis_sums import AxisSums, forward_places
from petsc_dcdm.stencil.forms.row_scaling import RowFactors
from petsc_dcdm.stencil.forms.symmetry import check_symmetry
from petsc_dcdm.stencil.local_csr import local_csr

MIXED = 0.8
"""Mixed derivatives relative to the geometric mean of the second derivatives of both axes, up to which it pays."""

POSITIVE = 0.1
"""The mean over the rows of what they give linear functions with the wrong sign, relative to the diagonal, unless their
sums, as those of mass matrices, are more.
"""

NEGATIVE = 0.25
"""The lowest row sum relative to its diagonal, with the other sign: beyond it is no small violation."""

REACTION = 1.5
"""The mean negative row sum relative to the lowest eigenvalue of a grid whose sides are all Dirichlet sides."""

NO_SUM = 4 * SUM_ROUNDING
"""Relative to the diagonal: what rounding leaves of the sum of 27 entries that is meant to be 0."""


@dataclass
class Nearness:
    """What is known of the matrix whose nearest operator the network is set up on.

    Attributes
    ----------
    couplings
        of the matrix on this rank's box, in units of the operator: see :class:`AxisSums`; padded, with their halo
    bound
        no eigenvalue of D^-1 A is larger, D the diagonal of the matrix
    mixed
        mixed derivatives relative to the others, the largest of xy, xz, yz
    differs
        whether couplings differ from the operator's: else only row sums do
    """

    couplings: np.ndarray
    bound: float
    mixed: float
    differs: bool

    def move(self, on_own_box: Callable[[np.ndarray], np.ndarray], layout: Layout) -> None:
        """The couplings from the rows to the padded box, by what moves one array; halos are filled. Collective."""
        if not self.differs:
            self.couplings = np.zeros((0, 0, 0, 0), np.float32)  # a view would keep them
            return
        read = list(self.couplings)
        moved = [on_own_box(coupling) for coupling in read]
        if any(new is not old for new, old in zip(moved, read, strict=True)):
            self.couplings = np.stack(moved)
        for coupling in self.couplings:
            layout.exchange(coupling, corners=True)


@dataclass
class _Rows:
    """What was read of the local rows; ``penalties`` is a global number."""

    sums: AxisSums
    ghosts: Ghosts | None
    dirichlet: np.ndarray
    dirichlet_diagonal: np.ndarray
    empty: np.ndarray
    penalties: int


Place = tuple[Shape, Shape]


def nearest(
    A: PETSc.Mat, grid: Grid, threads: int, refusal: FormError, ghosts: Ghosts | None = None
) -> tuple[RowStencil, Nearness]:
    """The nearest operator of what was refused; w_high is always there, and :func:`join_sides` makes one of both.
    ``ghosts``: those of a matrix with this pattern, if they are known; they stay the caller's.

    Collective; raises MatrixError on all ranks alike where there is none, the ``refusal`` where the matrix is of
    another kind.
    """
    comm = A.getComm().tompi4py()
    box = ((0, 0, 0), grid.shape) if comm.Get_size() == 1 else grid.box
    kind = row_reader(comm)
    if not comm.allreduce(kind is CsrRows and box is not None, op=MPI.LAND):
        box = None
    with local_csr(A, kind is CsrRows) as local:
        rows = read(kind, local, grid.shape, A.getOwnershipRange()[0], grid.cells, threads, grid.periodic)
        sign, scale = sign_and_scale(rows, comm)
        found = _read(A, rows, grid, sign, scale, box, refusal, ghosts)
    try:
        if AxisSums.winds(comm.allreduce(found.sums.twists, op=MPI.BOR)):
            raise refusal
        if comm.allreduce(found.sums.symmetry) % 2**64:
            check_symmetry(A, found.dirichlet)
        return _clean(found, comm, grid, box, sign, scale, refusal)
    except MatrixError:
        if found.ghosts is not None and found.ghosts is not ghosts:
            found.ghosts.destroy()
        raise


def _read(
    A: PETSc.Mat,
    rows: CsrRows | NumpyRows,
    grid: Grid,
    sign: float,
    scale: float,
    box: Place | None,
    refusal: FormError,
    known: Ghosts | None,
) -> _Rows:
    comm, first = A.getComm().tompi4py(), A.getOwnershipRange()[0]
    shape = (rows.rows,) if box is None else tuple(size + 2 for size in box[1])
    options: dict[str, Any] = {"sign": sign, "scale": scale} | ({} if box is None else {"box": box})
    rows.find_dirichlet()
    penalties, ghosts = 0, known
    while True:
        if comm.Get_size() > 1:
            ghosts = ghosts or Ghosts(A, rows.ghost_columns(), grid)
            rows.set_ghosts(ghosts.columns, ghosts.cells, ghosts.dirichlet(rows.dirichlet))
        sums = AxisSums.zeros(shape, grid.dimension)
        error: MatrixError | None = None
        try:
            rows.add_up(sums, **options)
        except StencilError as problem:
            error = refusal if problem.problem is Problem.NOT_NEIGHBOUR else explain_row(problem, grid, first)
        try:
            raise_together(comm, error)
        except MatrixError:
            if ghosts is not None and ghosts is not known:
                ghosts.destroy()
            raise
        # A row whose sum is nearly its diagonal may be one whose value a penalty fixes.
        stiff = bool(np.any((sums.s > 0.9 * sums.diagonal) & (sums.diagonal > 0)))
        if penalties or not comm.allreduce(stiff, op=MPI.LOR):
            break
        diagonal = sums.diagonal
        least = comm.allreduce(float(diagonal[diagonal > 0].min(initial=np.inf)), op=MPI.MIN)
        penalties = comm.allreduce(rows.find_penalties(least / scale))
        if not penalties:
            break
    return _Rows(sums, ghosts, *rows.fixed(), penalties)


def _clean(
    found: _Rows,
    comm: MPI.Intracomm,
    grid: Grid,
    box: Place | None,
    sign: float,
    scale: float,
    refusal: FormError,
) -> tuple[RowStencil, Nearness]:
    """Signs and row sums made those of a stencil, where they are near enough."""
    sums = found.sums
    s, diagonal = sums.s, sums.diagonal
    inverse = np.divide(1.0, diagonal, out=np.zeros(diagonal.shape), where=diagonal > 0)
    relative = s * inverse
    total = np.zeros(diagonal.shape)
    along, weight, faces, wrong = np.zeros(3), np.zeros(3), np.zeros(3), 0.0
    for axis in range(3):
        for side in (sums.low[axis], sums.high[axis]):
            if not side.any():
                continue
            if side.min() < 0:
                wrong -= float(np.vdot(np.minimum(side, 0.0), inverse))
                np.maximum(side, 0.0, out=side)
            along[axis] += np.vdot(side, inverse)
            total += side
        weight[axis], faces[axis] = sums.low[axis].sum(), np.count_nonzero(sums.low[axis])
    small = relative[(np.abs(relative) > NO_SUM) & (relative <= ROUNDING)]
    numbers = [np.count_nonzero(diagonal), wrong, small[small < 0].sum(), small[small > 0].sum()]
    numbers += [s[relative < -ROUNDING].sum(), s.sum(), np.maximum(relative, 0.0).sum(), *sums.wrapped]
    totals = comm.allreduce(np.array([*along, *weight, *faces, *sums.mixture, *numbers], float))
    along, weight, faces, mixture = totals[:3], totals[3:6], totals[6:9], totals[9:12]
    active, wrong, negative, positive, below, s_sum, held, *ends_meet = totals[12:]
    x, y, z = map(bool, ends_meet)
    periodic = z, y, x
    mean_w = tuple(float(a / b) if b else 0.0 for a, b in zip(weight, faces, strict=True))
    total += np.maximum(s, 0.0)
    there = diagonal > 0
    ends = np.empty(5)
    own = [-relative[there].min(initial=np.inf), relative.max(initial=0.0), sums.magnitude]
    comm.Allreduce(np.array([*own, -total[there].min(initial=np.inf), total.max(initial=0.0)]), ends, op=MPI.MAX)
    mixed = _largest_mixture(mixture, along)
    wrong, below, held = (value / max(active, 1.0) for value in (wrong, below, held))
    _refuse_far(
        refusal, grid.shape, periodic, mean_w, mixed, 0.0 if wrong <= held else wrong, below, float(ends[0]), s_sum
    )

    noise = NO_SUM
    if positive > 0 and -negative >= NOISE * positive:
        noise = ROUNDING
    elif 0 < -ends[0] <= NO_SUM:
        noise = 0.0
    s[s <= noise * diagonal] = 0.0
    factor = range_factor(float(-ends[3]), float(ends[4]), 1.0)
    if factor != 1.0:
        for array in (*sums.low, *sums.high, s, sums.couplings):
            array *= factor
    beside = [number for number, place in enumerate(forward_places(grid.dimension)) if sum(map(abs, place)) > 1]
    far = any(sums.couplings[number].any() for number in beside)
    extra, differs = comm.allreduce(np.array([np.count_nonzero(s), far or wrong > 0], np.int64))
    stencil = RowStencil(
        box=box,
        packed=None,
        w_low=sums.low,
        w_high=sums.high,
        s=s,
        dirichlet=found.dirichlet,
        dirichlet_diagonal=found.dirichlet_diagonal,
        empty=found.empty,
        mean_w=tuple(factor * w for w in mean_w),
        scale=sign / (scale * factor),
        active=int(active),
        extra=int(extra),
        nearly_closed=bool(extra > 0 and ends[1] <= NEARLY_CLOSED),
        penalties=found.penalties,
        ghosts=found.ghosts,
        periodic=periodic,
        exact=False,
    )
    return stencil, Nearness(sums.couplings, float(ends[2]), mixed, bool(differs))


def _largest_mixture(mixture: np.ndarray, along: np.ndarray) -> float:
    """Of xy, xz, yz the largest relative to the geometric mean of both axes; 0 where one axis has nothing."""
    mixed = 0.0
    for pair, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        mean = float(np.sqrt(max(along[a], 0.0)) * np.sqrt(max(along[b], 0.0)))
        mixed = max(mixed, float(mixture[pair]) / mean if mean else 0.0)
    return mixed


def _refuse_far(
    refusal: FormError,
    shape: Shape,
    periodic: Periodic,
    mean_w: tuple[float, ...],
    mixed: float,
    wrong: float,
    below: float,
    lowest: float,
    s_sum: float,
) -> None:
    """Raises MatrixError, on all ranks alike, where the matrix is too far from its nearest operator.

    wrong, below: means over the rows, of the first relative to the diagonal
    lowest: minus the lowest row sum, relative to its diagonal
    """
    why = ""
    if wrong > POSITIVE:
        why = f"entries of the wrong sign are {wrong:.2g} of the diagonal, of which {POSITIVE:g} can be made up for"
    elif mixed > MIXED:
        why = f"its mixed derivatives are {mixed:.2g} of the others, of which {MIXED:g} can be made up for"
    elif below < 0:
        along = list(zip(mean_w, shape[::-1], periodic[::-1], strict=True))
        wave = sum(w * (np.pi / n) ** 2 for w, n, ring in along if n > 1 and not ring)
        # Without sides the lowest is that of constants, which the sum of all entries tells; this is the next one.
        wave = wave or min(w * (2 * np.pi / n) ** 2 for w, n, ring in along if ring)
        if lowest > NEGATIVE:
            why = f"row sums go down to -{lowest:.2g} of the diagonal, of which {NEGATIVE:g} can be made up for"
        elif s_sum <= 0:
            why = "its entries add up to a negative number, so that it is not positive definite"
        elif -below > REACTION * wave:
            why = (
                f"its negative row sums are {-below / wave:.2g} of the lowest eigenvalue that the grid can have with "
                "all sides fixed, so that it hardly is positive definite"
            )
    if why:
        raise MatrixError(f"{refusal}; {why}")


def join_sides(w_low: list[np.ndarray], w_high: list[np.ndarray], layout: Layout) -> None:
    """``w_low``: the mean of what the two sides of every face say, 0 where a side says 0; halos are filled. Padded
    arrays of this rank's box. Collective.
    """
    for axis, (own, other) in enumerate(zip(w_low, w_high, strict=True)):
        layout.exchange(other)
        here, there = interior(own), neighbours(other, axis)[0]
        here[...] = np.where((here > 0) & (there > 0), 0.5 * (here + there), 0.0)
        layout.exchange(own)


def nearest_of_scaled(
    A: PETSc.Mat, grid: Grid, threads: int, refusal: FormError, known: Ghosts | None, factors: RowFactors | None
) -> tuple[RowStencil, Nearness]:
    """:func:`nearest` for rows that are divided by ``factors``, which takes a copy of the matrix."""
    if factors is None:
        return nearest(A, grid, threads, refusal, known)
    symmetric = A.copy()
    inverse = A.createVecLeft()
    inverse.setArray(1.0 / factors.values)
    symmetric.diagonalScale(inverse)
    try:
        stencil, near = nearest(symmetric, grid, threads, refusal, known)
    finally:
        inverse.destroy()
        symmetric.destroy()
    diagonal = stencil.dirichlet_diagonal * factors.values[stencil.dirichlet]
    return replace(stencil, dirichlet_diagonal=diagonal), near
