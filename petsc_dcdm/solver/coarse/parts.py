"""The coarsest level on coarse cells of several parts, compiled: for plans that walls or jumps have ended early."""

from __future__ import annotations

from math import prod

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.parts.solver import PartsSolver, finest_level
from petsc_dcdm.grid.errors import raise_together
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.native.build import have_kernels
from petsc_dcdm.native.node_team import ONE_RANK, Workers

MOST_GATHERED = 4_000_000
"""Cells of the coarsest level up to which each of several ranks holds and solves all of it: 400 MB."""


class PartsCoarseSolver:
    """Callable on the local array of the right-hand side, see `petsc_dcdm.solver.coarse.solver.PetscCoarseSolver`.

    One rank works on its own arrays. Of several boxes each one's ranks gather the whole level and solve it alone: one
    message each way is saved, and the answer is the same on any number of ranks. Ranks that share a box work on it
    together. All methods are collective.
    """

    ksp: PETSc.KSP | None = None
    """There is none."""

    name = "coarse cells of several parts"
    """What solves it, for people."""

    _solver: PartsSolver | None = None

    def __init__(
        self, comm: PETSc.Comm, operator: CoarseOperator, layout: Layout, threads: int, team: Workers = ONE_RANK
    ) -> None:
        """Raises the error of any rank on all of them, where set-up fails. ``team``: who works on the box; a rank that
        does not lead it calls `serve` while that one solves.
        """
        self._below_learned = _counts_on_it(layout)
        self._everyone, self._threads, self._team = comm.tompi4py(), team.threads or threads, team
        self._mpi = self._everyone.Split(int(team.leads), self._everyone.Get_rank())
        self._shape = operator.global_shape
        boxes = self._mpi.allgather((operator.offset, operator.shape))
        self._boxes = [tuple(slice(o, o + n) for o, n in zip(*box, strict=True)) for box in boxes]
        self._own = self._boxes[self._mpi.Get_rank()]
        self._counts = np.array([prod(shape) for _, shape in boxes])
        self._gathered = np.empty(int(self._counts.sum()), np.float32)
        self._x = team.zeros(prod(self._shape), np.float32).reshape(self._shape)
        if len(boxes) > 1:
            self._r = team.zeros(prod(self._shape), np.float32).reshape(self._shape)
        self._set_up(operator)

    def _set_up(self, operator: CoarseOperator) -> None:
        problem: Exception | None = None
        unknowns = None
        if self._team.leads:
            arrays = self._arrays_of(operator)
            arrays[:] = map(self._whole, arrays)
            try:
                unknowns = self._team.do(self._make, arrays)
            except Exception as error:
                problem = RuntimeError(f"the coarse solver can not be set up: {error}")
        else:
            self.serve()
        raise_together(self._everyone, problem)
        self.unknowns = self._everyone.bcast(unknowns)

    def _arrays_of(self, operator: CoarseOperator) -> list[np.ndarray]:
        """w and s, which nobody else needs."""
        return operator.take()

    def _make(self, arrays: list[np.ndarray]) -> int:
        """What solves the whole level, of w and s, which are let go of; returns how many unknowns that has."""
        self._solver = None  # its memory serves the new one
        grid = finest_level(arrays[:3], arrays[3], self._threads, self._team)
        arrays.clear()  # and theirs the levels below
        self._solver = PartsSolver(grid, self._threads, self._team)
        return self._solver.unknowns[0]

    def _whole(self, own: np.ndarray) -> np.ndarray:
        """The arrays (float64) of all boxes as one of the whole level; the array itself on one rank."""
        if len(self._boxes) == 1:
            return own
        whole, found = self._team.zeros(prod(self._shape), np.float64), np.empty(self._gathered.size)
        whole = whole.reshape(self._shape)
        self._mpi.Allgatherv(np.ascontiguousarray(own, np.float64), [found, self._counts])
        self._place(found, whole)
        return whole

    def _place(self, found: np.ndarray, whole: np.ndarray) -> None:
        """What the ranks have sent, box after box."""
        begin = np.concatenate(([0], np.cumsum(self._counts)))
        for box, first, last in zip(self._boxes, begin, begin[1:], strict=False):
            whole[box] = found[first:last].reshape(whole[box].shape)

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Set up for other values on the same boxes; False where these are others, or parts do not serve any more."""
        same = (
            not _wraps(operator)
            and operator.global_shape == self._shape
            and self._own == tuple(slice(o, o + n) for o, n in zip(operator.offset, operator.shape, strict=True))
        )
        if not self._everyone.allreduce(same, op=MPI.LAND):
            return False
        self._below_learned = _counts_on_it(layout)
        self._set_up(operator)
        return True

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """The solution for the float32 right-hand side of this rank's coarse box; 0 at inactive cells. The array
        returned is overwritten by the next call. By the ranks that have a box; the others `serve`.
        """
        if len(self._boxes) > 1:
            self._mpi.Allgatherv(np.ascontiguousarray(r), [self._gathered, self._counts])
            self._place(self._gathered, self._r)
            r = self._r
        self.solve(np.ascontiguousarray(r, np.float32), self._x)
        return self._x[self._own]

    def solve(self, r: np.ndarray, out: np.ndarray) -> None:
        """The same from an array of the whole level to another, float32 and along x without gaps, both of the team's
        memory. By one that leads a team, whose others `serve`.
        """
        assert self._solver is not None
        self._team.do(self._solver.solve_well if self._below_learned else self._solver.solve, r, out)

    def serve(self) -> None:
        """Work for the one that leads this rank, in place of each `solve`."""
        self._team.do(None)

    def view(self, viewer: PETSc.Viewer) -> None:
        """What solves it."""
        alone = "on 1 rank" if self._team.ranks == 1 else f"on {self._team.ranks} ranks that share a box"
        where = "for every box, each all of it" if len(self._boxes) > 1 else alone
        viewer.printfASCII(f"    solver of the coarsest level, {where}: {self.name}, {self.description}\n")

    @property
    def description(self) -> str:
        """How it solves, and how many unknowns each level has."""
        sizes = ", ".join(str(n) for n in self._solver.unknowns) if self._solver else ""
        return f"a K-cycle\n      unknowns of its levels: {sizes}"

    def destroy(self) -> None:
        """Collective. Nothing of PETSc's is kept."""
        if not MPI.Is_finalized():
            self._mpi.Free()


def serves(comm: PETSc.Comm, operator: CoarseOperator) -> bool:
    """Whether all ranks have the kernels, and room for it, and no side is coupled to the opposite one. Collective."""
    mpi = comm.tompi4py()
    large = mpi.Get_size() > 1 and prod(operator.global_shape) > MOST_GATHERED
    return not mpi.allreduce(not have_kernels() or large or _wraps(operator), op=MPI.LOR)


def _counts_on_it(layout: Layout) -> bool:
    """Whether one cycle is too little for the levels above: not for one that halves a single axis, and so leaves half
    of the unknowns (reservoir of 60 x 220 x 85 cells: 10 iterations of 65 ms instead of 8 of 108 ms).
    """
    return len(layout.plan) > 1 or any(len(axes) > 1 for axes in layout.plan)


def _wraps(operator: CoarseOperator) -> bool:
    """Whether a low side of the grid on this rank is coupled to the opposite one."""
    ends = [face[(slice(None),) * (2 - axis) + (slice(0, 1),)] for axis, face in enumerate(operator.w)]
    return any(operator.offset[2 - axis] == 0 and bool(end.any()) for axis, end in enumerate(ends))
