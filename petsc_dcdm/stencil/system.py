"""From an assembled matrix to what a network is set up on: grid, boxes, the conductances of this rank's box."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import FormError, MatrixError, NeighbourError, raise_together
from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.reductions import over_all, reduce_by
from petsc_dcdm.native.node_team import ONE_RANK, OWN_BOXES, Sharing, Team, Workers
from petsc_dcdm.stencil.discovery import Grid, other_grids
from petsc_dcdm.stencil.extract import extract
from petsc_dcdm.stencil.fixed import FixedRows
from petsc_dcdm.stencil.forms.nearest import Nearness, join_sides, nearest_of_scaled
from petsc_dcdm.stencil.forms.row_scaling import RowFactors, find_row_factors, looks_scaled, weighted_square
from petsc_dcdm.stencil.forms.symmetry import TOLERANCE, NotSymmetric
from petsc_dcdm.stencil.ghosts import Ghosts
from petsc_dcdm.stencil.packed import PackedStencil
from petsc_dcdm.stencil.plan import coarse_limit, plan_coarsening
from petsc_dcdm.stencil.vec_map import RowMap, boxes_of
from petsc_dcdm.stencil.walls import keep_walls

COARSE_CELLS_PER_RANK = 64
"""Where there are so many ranks that the coarsest grid would leave some without a cell, it grows with them."""


@dataclass
class GridSystem:
    """The stencil of a matrix on this rank's box.

    Attributes
    ----------
    w, s
        float64 arrays (nz + 2, ny + 2, nx + 2) of the box with a halo of 0, in the convention of the models:
        w[a] conductance of the low face along axis a, s extra diagonal; 0 at inactive cells. For voxel
        geometry w is all of that in packed form and s is None, see :meth:`arrays`
    scale
        the matrix is ``scale`` times that operator; negative for a negative definite matrix
    fixed
        the rows that are solved without the network
    nearly_closed
        constants nearly are a null space, see :class:`RowStencil`
    singular
        no row has an extra diagonal: constants on the active cells are a null space
    active_cells
        global number of the other rows
    ghosts
        columns of other ranks, on several
    exact
        every entry of the matrix is in w and s, to rounding; else it may lack what the tolerances of set-up
        let pass
    near
        set where the stencil is not that of the matrix but of the nearest operator that has one
    factors
        the rows of the matrix are so many times those of the operator and ``scale``, which are symmetric; None: once
    team
        who works on this rank's box, which has w and s in its memory
    shares
        whether ranks share boxes, on whatever node; the same on all ranks
    why_alone
        each rank has a box although ranks may share one, if that is so
    """

    grid: Grid
    layout: BoxLayout
    rows: RowMap
    w: list[np.ndarray] | PackedStencil
    s: np.ndarray | None
    scale: float
    fixed: FixedRows
    nearly_closed: bool
    singular: bool
    active_cells: int
    ghosts: Ghosts | None
    exact: bool
    threads: int
    near: Nearness | None = None
    factors: RowFactors | None = None
    team: Workers = ONE_RANK
    shares: bool = False
    why_alone: str = ""
    _weights: np.ndarray | None = None

    def arrays(self) -> tuple[list[np.ndarray], np.ndarray]:
        """w and s as arrays whatever the form; copies where they are packed."""
        if isinstance(self.w, PackedStencil):
            return self.w.arrays()
        assert self.s is not None
        return self.w, self.s

    def norm_of_scaled(self, r: np.ndarray) -> float:
        """|D r| of a vector on this rank's box, D the ``factors``, fixed rows left out. Collective."""
        assert self.factors is not None
        if self._weights is None:
            d = self.factors.values.copy()
            d[self.fixed.rows] = 0.0
            padded = np.zeros(tuple(n + 2 for n in self.layout.shape))
            self.rows.fill(d, padded)
            self._weights = np.ascontiguousarray(interior(padded))
        square = weighted_square(self._weights, r, self.threads)
        return float(np.sqrt(self.layout.sum(np.array([square]))[0]))

    def destroy(self) -> None:
        """Collective."""
        self.layout.close()
        if self.ghosts is not None:
            self.ghosts.destroy()


def _not_symmetric(
    layout: BoxLayout, scale: float, axis: int, cell: Sequence[int], here: float, there: float
) -> NotSymmetric:
    """``cell`` (z, y, x) of the box has ``here`` for its high neighbour along ``axis``, which has ``there`` for it."""
    z, y, x = (int(o + i) for o, i in zip(layout.offset, cell, strict=True))
    return NotSymmetric(
        f"the matrix is not symmetric: cell ({x}, {y}, {z}) is coupled to its high neighbour along {'xyz'[axis]} with "
        f"{-here * scale:g} and coupled back with {-there * scale:g}, and no moderate scaling of its rows makes it "
        "symmetric, which petsc_dcdm needs (only Dirichlet rows may couple one way)"
    )


def _check_packed(
    packed: PackedStencil, layout: BoxLayout, scale: float, threads: int, team: Workers
) -> MatrixError | None:
    """The same for a packed stencil; its halo is filled on the way. Collective."""
    layout.exchange(packed.cells)
    found = packed.asymmetry(team.threads or threads, team)
    if found is None:
        return None
    axis, cell, below = found
    c = packed.c[axis]
    return _not_symmetric(layout, scale, axis, cell, c if below else 0.0, 0.0 if below else c)


def _check_arrays(w: list[np.ndarray], w_high: list[np.ndarray], layout: BoxLayout, scale: float) -> MatrixError | None:
    """Compare both sides of every face; the halo of ``w`` is filled on the way. Collective."""
    error: MatrixError | None = None
    for axis in range(3):
        layout.exchange(w[axis])
        there, here = neighbours(w[axis], axis)[1], interior(w_high[axis])
        difference = np.abs(there - here)
        wrong = difference > TOLERANCE * np.maximum(there, here)
        if error is None and wrong.any():
            at = np.unravel_index(int(np.argmax(difference * wrong)), wrong.shape)
            error = _not_symmetric(layout, scale, axis, [int(i) for i in at], float(here[at]), float(there[at]))
    return error


def build_system(
    A: PETSc.Mat,
    grid: Grid,
    comm: MPI.Intracomm,
    *,
    threshold: float | None,
    threads: int,
    sharing: Sharing = OWN_BOXES,
    previous: GridSystem | None = None,
) -> GridSystem:
    """Extracts, checks and distributes the stencil of ``A``. Collective; raises MatrixError on all ranks alike.

    A matrix whose rows are multiples of those of a symmetric one is read as that one, and their factors are kept. Where
    its couplings are not those of ``grid`` the rows may be other cells, see `other_grids`.

    Parameters
    ----------
    comm
        a private duplicate of the matrix's communicator, used for halos as long as the system lives
    threshold
        semi-coarsening threshold of the network, see :func:`plan_coarsening`; None for a network without levels,
        which pools blocks of two cells
    sharing
        the ranks that get a box, and who works on it
    previous
        of a matrix with the same pattern on the same grid: what depends on that only is taken over
    """
    build = partial(_build, A, comm=comm, threshold=threshold, threads=threads, sharing=sharing)
    system = None
    try:
        system = build(grid, previous)
    except NeighbourError as problem:
        refusal = problem.with_traceback(None)  # whose frames hold what is collectively destroyed
    others = other_grids(A, grid, threads) if system is None else iter(())
    while system is None and (other := next(others, None)) is not None:
        with suppress(NeighbourError):
            system = build(other, None)
    if system is None:
        raise refusal
    if previous is not None and previous.ghosts is not None and system.ghosts is not previous.ghosts:
        previous.ghosts.destroy()
    return system


def _build(
    A: PETSc.Mat,
    grid: Grid,
    previous: GridSystem | None,
    *,
    comm: MPI.Intracomm,
    threshold: float | None,
    threads: int,
    sharing: Sharing,
) -> GridSystem:
    """:func:`build_system` on this grid, for rows as they are or divided by factors that make them symmetric."""
    read = partial(_read, A, grid, comm, threshold, threads, sharing)

    def read_scaled(previous: GridSystem | None) -> GridSystem | None:
        factors = find_row_factors(A)
        if factors is not None:
            with suppress(MatrixError):
                return read(previous, factors)
        return None

    known = previous is not None and previous.factors is not None
    looks = known or looks_scaled(A, TOLERANCE)
    system = read_scaled(previous) if looks else None
    if system is not None:
        return system
    try:
        return read(None if looks else previous, None)
    except NotSymmetric as problem:
        refusal = NotSymmetric(str(problem))  # in terms of the matrix as it is
    system = None if looks else read_scaled(None)
    if system is None:
        raise refusal
    return system


def _read(
    A: PETSc.Mat,
    grid: Grid,
    comm: MPI.Intracomm,
    threshold: float | None,
    threads: int,
    sharing: Sharing,
    previous: GridSystem | None,
    factors: RowFactors | None,
) -> GridSystem:
    """:func:`build_system` for rows that are divided by ``factors``."""
    known = previous.ghosts if previous is not None else None
    refusal = near = None
    try:
        stencil = extract(A, grid, threads, known, factors, sharing.team if factors is None else ONE_RANK)
    except FormError as found:
        refusal = found.with_traceback(None)  # whose frames hold what is collectively destroyed
    if refusal is not None:
        stencil, near = nearest_of_scaled(A, grid, threads, refusal, known, factors)
    if sharing.teams and (near is not None or factors is not None):
        # What is made of the rows themselves works on the boxes of ranks.
        sharing = replace(OWN_BOXES, why="the matrix is served through its rows, which are no symmetric stencil")
    team, holders = sharing.team, sharing.holders
    pooling = ((0, 1, 2),)
    limit = max(coarse_limit(grid.shape), COARSE_CELLS_PER_RANK * len(holders or range(comm.Get_size())))
    plan = pooling if threshold is None else plan_coarsening(grid.shape, stencil.mean_w, threshold, limit)
    boxes = boxes_of(grid, comm, plan, holders, stencil.periodic)
    layout = BoxLayout(comm, boxes, plan)
    if isinstance(team, Team) and team.ranks == comm.Get_size():
        layout.one_team = True
        reduce_by(comm, team)
    same = previous is not None and previous.layout.boxes == boxes and previous.team is team
    rows = previous.rows if previous is not None and same else RowMap(grid, boxes, comm, threads, team)
    own = layout.offset, layout.shape
    on_box = not layout.one_team and over_all(comm, stencil.box == own and team.ranks == 1, op=MPI.LAND)

    def on_own_box(values: np.ndarray) -> np.ndarray:
        """What is in the order of the rows, or on their box, on this rank's padded box. Collective."""
        if on_box or stencil.shared:
            return values if team.leads else np.zeros((2, 2, 2), values.dtype)
        if stencil.box is not None:
            values = interior(values).ravel()
        size = tuple(n + 2 for n in layout.shape)
        zeros = np.zeros if team.ranks == 1 else team.zeros
        padded = zeros(prod(size), values.dtype.type).reshape(size)
        rows.fill(values, padded)
        return padded

    team.meet()
    w: list[np.ndarray] | PackedStencil
    if stencil.packed is not None:
        w, s = stencil.packed.moved(on_own_box), None
        if team.ranks > 1:
            w.s_value = team.zeros(w.s_value.size, np.float64)
            w.s_value[:] = stencil.packed.s_value
        error = _check_packed(w, layout, stencil.scale, threads, team)
    else:
        w, s = [on_own_box(face) for face in stencil.w_low], on_own_box(stencil.s)
        w_high = [on_own_box(face) for face in stencil.w_high or []]
        if near is not None:
            join_sides(w, w_high, layout)
            near.move(on_own_box, layout)
        error = _check_arrays(w, w_high, layout, stencil.scale) if w_high and near is None else None
    try:
        raise_together(comm, error)
    except MatrixError:
        layout.close()  # the traceback may live longer than MPI
        if stencil.ghosts is not None and stencil.ghosts is not known:
            stencil.ghosts.destroy()
        raise
    if factors is not None:
        factors.values[stencil.dirichlet] = 1.0
    if threshold is not None:
        layout.plan, layout.visits = keep_walls(w, layout, plan, stencil.mean_w, threshold, threads, team)
    return GridSystem(
        grid=grid if grid.periodic == boxes.periodic else replace(grid, periodic=boxes.periodic),
        layout=layout,
        rows=rows,
        w=w,
        s=s,
        scale=stencil.scale,
        fixed=FixedRows(
            stencil.dirichlet,
            stencil.dirichlet_diagonal,
            stencil.empty,
            anywhere=stencil.active < A.getSize()[0],
            coupled=stencil.penalties > 0,
        ),
        nearly_closed=stencil.nearly_closed,
        singular=stencil.active > 0 and stencil.extra == 0,
        active_cells=stencil.active,
        ghosts=stencil.ghosts,
        exact=stencil.exact and factors is None,
        threads=threads,
        near=near,
        factors=factors,
        team=team,
        shares=sharing.teams,
        why_alone=sharing.why,
    )
