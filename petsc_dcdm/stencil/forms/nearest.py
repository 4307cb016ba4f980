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

from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import FormError, MatrixError, raise_together
from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries import CsrRows
from petsc_dcdm.stencil.entries_numpy import NumpyRows, read, row_reader
from petsc_dcdm.stencil.entries_report import SUM_ROUNDING, Problem, StencilError
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
from petsc_dcdm.stencil.forms.symmetry import check_symmetry
from petsc_dcdm.stencil.local_csr import local_csr

MIXED = 0.6
"""Mixed derivatives relative to the geometric mean of the second derivatives of both axes, up to which it pays."""

POSITIVE = 0.1
"""The mean over the rows of what they give linear functions with the wrong sign, relative to the diagonal."""

REACTION = 1.0
"""The mean negative row sum relative to the lowest eigenvalue of a grid whose sides are all Dirichlet sides."""

PENALTY = 1e6
"""As in csr.h."""


@dataclass(frozen=True)
class Nearness:
    """What is known of the matrix whose nearest operator the network is set up on.

    Attributes
    ----------
    bound
        no eigenvalue of D^-1 A is larger, D the diagonal of the matrix
    mixed
        mixed derivatives relative to the others, the largest of xy, xz, yz
    """

    bound: float
    mixed: float


@dataclass
class _Sums:
    """What the local rows add up to, in the arrays of a :class:`RowStencil` that is not cleaned yet; global numbers."""

    w_low: list[np.ndarray]
    w_high: list[np.ndarray]
    s: np.ndarray
    diagonal: np.ndarray
    mixture: np.ndarray
    bound: float
    ghosts: Ghosts | None
    dirichlet: np.ndarray
    dirichlet_diagonal: np.ndarray
    penalties: int


def nearest(A: PETSc.Mat, grid: Grid, threads: int, refusal: FormError) -> tuple[RowStencil, Nearness]:
    """The nearest operator of what was refused; w_high is always there, and :func:`join_sides` makes one of both.

    Collective; raises MatrixError on all ranks alike where there is none, the ``refusal`` where the matrix is of
    another kind.
    """
    comm = A.getComm().tompi4py()
    box = ((0, 0, 0), grid.shape) if comm.Get_size() == 1 else grid.box
    kind = row_reader(comm)
    if not comm.allreduce(kind is CsrRows and box is not None, op=MPI.LAND):
        box = None
    first = A.getOwnershipRange()[0]
    with local_csr(A, kind is CsrRows) as local:
        rows = read(kind, local, grid.shape, first, grid.cells, threads)
        sign, scale = sign_and_scale(rows, comm)
        found = _add_up(A, rows, grid, sign, scale, box, refusal)
    check_symmetry(A, found.dirichlet)
    return _clean(found, comm, grid, box, sign, scale, refusal)


def _add_up(
    A: PETSc.Mat,
    rows: CsrRows | NumpyRows,
    grid: Grid,
    sign: float,
    scale: float,
    box: tuple[tuple[int, ...], tuple[int, ...]] | None,
    refusal: FormError,
) -> _Sums:
    comm, first = A.getComm().tompi4py(), A.getOwnershipRange()[0]
    shape = (rows.rows,) if box is None else tuple(size + 2 for size in box[1])
    rows.find_dirichlet()
    penalties, ghosts = 0, None
    while True:
        if comm.Get_size() > 1:
            ghosts = ghosts or Ghosts(A, rows.ghost_columns(), grid)
            rows.set_ghosts(ghosts.columns, ghosts.cells, ghosts.dirichlet(rows.dirichlet))
        low, high, (s, diagonal) = ([_zeros(shape) for _ in range(count)] for count in (3, 3, 2))
        error: MatrixError | None = None
        mixture, bound = np.zeros(3), 0.0
        try:
            on_box = {} if box is None else {"box": box}
            mixture, bound = rows.add_up(low, high, s, diagonal, sign=sign, scale=scale, **on_box)
        except StencilError as problem:
            error = refusal if problem.problem is Problem.NOT_NEIGHBOUR else explain_row(problem, grid, first)
        raise_together(comm, error)
        couplings = sum(np.abs(face) for face in (*low, *high))
        stiff = np.any((s > PENALTY * couplings) & (couplings > 0))
        if penalties or not comm.allreduce(bool(stiff), op=MPI.LOR):
            break
        least = comm.allreduce(float(diagonal[diagonal > 0].min(initial=np.inf)), op=MPI.MIN)
        penalties = comm.allreduce(rows.find_penalties(least / scale))
        if not penalties:
            break
    dirichlet = np.flatnonzero(rows.dirichlet.view(bool))
    return _Sums(
        low,
        high,
        s,
        diagonal,
        comm.allreduce(mixture),
        comm.allreduce(bound, op=MPI.MAX),
        ghosts,
        dirichlet,
        rows.diagonals(dirichlet),
        penalties,
    )


def _clean(
    found: _Sums,
    comm: MPI.Intracomm,
    grid: Grid,
    box: tuple[tuple[int, ...], tuple[int, ...]] | None,
    sign: float,
    scale: float,
    refusal: FormError,
) -> tuple[RowStencil, Nearness]:
    """Signs and row sums made those of a stencil, where they are near enough."""
    low, high, s, diagonal = found.w_low, found.w_high, found.s, found.diagonal
    active = diagonal > 0
    relative = s[active] / diagonal[active]
    total = np.zeros(diagonal.shape)
    along, faces, wrong = np.zeros(3), np.zeros(3), 0.0
    sums = np.zeros(3)
    for axis in range(3):
        for side in (low[axis], high[axis]):
            part = side[active] / diagonal[active]
            along[axis] += part.sum()
            wrong -= float(part[part < 0].sum())
            np.maximum(side, 0.0, out=side)
            total += side
        sums[axis], faces[axis] = low[axis].sum(), np.count_nonzero(low[axis])
    small = relative[(np.abs(relative) > 4 * SUM_ROUNDING) & (relative <= ROUNDING)]
    below = relative[relative < -ROUNDING]
    numbers = [active.sum(), wrong, small[small < 0].sum(), small[small > 0].sum(), below.sum(), s[s < 0].sum()]
    totals = comm.allreduce(np.array([*along, *sums, *faces, *numbers, s.sum()], float))
    along, sums, faces = totals[:3], totals[3:6], totals[6:9]
    count, wrong, negative, positive, below_sum, s_below, s_sum = totals[9:]
    mean_w = tuple(float(a / b) if b else 0.0 for a, b in zip(sums, faces, strict=True))
    near = _near_enough(found, grid, along, mean_w, (count, wrong, below_sum, s_below, s_sum), refusal)

    least_sum = comm.allreduce(float(relative.min(initial=np.inf)), op=MPI.MIN)
    noise = 4 * SUM_ROUNDING
    if positive > 0 and -negative >= NOISE * positive:
        noise = ROUNDING
    elif 0 < least_sum <= noise:
        noise = 0.0
    s[s <= noise * diagonal] = 0.0
    total += s
    most_sum = comm.allreduce(float(relative.max(initial=0.0)), op=MPI.MAX)
    least = comm.allreduce(float(total[active].min(initial=np.inf)), op=MPI.MIN)
    largest = comm.allreduce(float(total.max(initial=0.0)), op=MPI.MAX)
    factor = range_factor(least, largest, 1.0)
    for array in (*low, *high, s):
        array *= factor
    extra = comm.allreduce(int(np.count_nonzero(s)))
    stencil = RowStencil(
        box=box,
        packed=None,
        w_low=low,
        w_high=high,
        s=s,
        dirichlet=found.dirichlet,
        dirichlet_diagonal=found.dirichlet_diagonal,
        mean_w=tuple(factor * w for w in mean_w),
        scale=sign / (scale * factor),
        active=int(count),
        extra=extra,
        nearly_closed=bool(extra > 0 and most_sum <= NEARLY_CLOSED),
        penalties=found.penalties,
        ghosts=found.ghosts,
        exact=False,
    )
    return stencil, near


def _near_enough(
    found: _Sums,
    grid: Grid,
    along: np.ndarray,
    mean_w: tuple[float, ...],
    numbers: tuple[float, ...],
    refusal: FormError,
) -> Nearness:
    """Raises MatrixError, on all ranks alike, where the matrix is too far from its nearest operator."""
    count, wrong, below, s_below, s_sum = numbers
    mixed = 0.0
    for pair, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        scale = np.sqrt(max(along[a], 0.0) * max(along[b], 0.0))
        mixed = max(mixed, float(found.mixture[pair] / scale) if scale else np.inf if found.mixture[pair] else 0.0)
    why = ""
    if mixed > MIXED:
        why = f"its mixed derivatives are {mixed:.2g} of the others, of which at most {MIXED:g} can be made up for"
    elif wrong > POSITIVE * count:
        why = f"entries of the wrong sign are {wrong / count:.2g} of the diagonal, of which {POSITIVE:g} can be made up for"
    elif below < 0:
        lowest = sum(w * (np.pi / n) ** 2 for w, n in zip(mean_w, grid.shape[::-1], strict=True) if n > 1)
        if s_sum <= 0:
            why = "its entries add up to a negative number, so that it is not positive definite"
        elif -s_below > REACTION * lowest * count:
            why = (
                f"its negative row sums are {-s_below / (lowest * count):.2g} of the lowest eigenvalue that the "
                "grid can have, so that it hardly is positive definite"
            )
    if why:
        raise MatrixError(f"{refusal}; {why}: -pc_dcdm_fallback gamg, or another PC, serves this matrix")
    return Nearness(found.bound, mixed)


def join_sides(w_low: list[np.ndarray], w_high: list[np.ndarray], layout: Layout) -> None:
    """``w_low``: the mean of what the two sides of every face say, 0 where a side says 0; halos are filled. Padded
    arrays of this rank's box. Collective.
    """
    for axis, (own, other) in enumerate(zip(w_low, w_high, strict=True)):
        layout.exchange(other)
        here, there = interior(own), neighbours(other, axis)[0]
        here[...] = np.where((here > 0) & (there > 0), 0.5 * (here + there), 0.0)
        layout.exchange(own)


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    return aligned_zeros(int(np.prod(shape)), np.float64).reshape(shape)
