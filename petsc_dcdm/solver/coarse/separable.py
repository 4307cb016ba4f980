"""The coarsest level by fast diagonalisation: for large ones that are nearly a product of functions of x, y and z."""

from __future__ import annotations

from math import prod

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.cpu.separable import SeparableSolver
from petsc_dcdm.backends.cpu.separable_fit import factors_of
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.solver.coarse import parts


class SeparableCoarseSolver(parts.PartsCoarseSolver):
    """As `petsc_dcdm.solver.coarse.parts.PartsCoarseSolver`, with the inverse of a product in place of parts."""

    name = "fast diagonalisation"
    """What solves it, for people."""

    _inverse: SeparableSolver | None = None

    @property
    def serves(self) -> bool:
        """Whether the medium is a product; if not, nothing can be solved."""
        return self.unknowns > 0

    def _arrays_of(self, operator: CoarseOperator) -> list[np.ndarray]:
        """w and s, which parts are made of if this does not serve."""
        return [*operator.w, operator.s]

    def _make(self, arrays: list[np.ndarray]) -> int:
        """The inverse; returns how many unknowns that has, 0 where there is none."""
        factors = factors_of(arrays[:3], arrays[3])
        self._inverse = None if factors is None else SeparableSolver(factors, self._threads, self._team)
        return 0 if factors is None else prod(self._shape)

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Set up for other values on the same boxes; False where these are others, or no product any more."""
        return super().update(operator, layout) and self.serves

    def solve(self, r: np.ndarray, out: np.ndarray) -> None:
        """See `petsc_dcdm.solver.coarse.parts.PartsCoarseSolver`."""
        assert self._inverse is not None
        self._team.do(self._inverse.solve, r, self._x)
        if out is not self._x:
            out[...] = self._x

    @property
    def description(self) -> str:
        """How many unknowns there are, and of what."""
        return f"{self.unknowns} unknowns, of a medium that is nearly a product of functions of x, y and z"


def separable_solver(
    comm: PETSc.Comm, operator: CoarseOperator, layout: Layout, threads: int, team: Workers
) -> SeparableCoarseSolver | None:
    """That solver, or None where the medium is no such product. Collective. Arguments as of
    `petsc_dcdm.solver.coarse.parts.PartsCoarseSolver`, whose `serves` has said that there are kernels and no rings.
    """
    mpi = comm.tompi4py()
    # Of a product every box is one: most media are told before anything is gathered.
    if mpi.Get_size() > 1 and not over_all(mpi, not team.leads or _is_product(operator), op=MPI.LAND):
        return None
    solver = SeparableCoarseSolver(comm, operator, layout, threads, team)
    if solver.serves:
        return solver
    solver.destroy()
    return None


def _is_product(operator: CoarseOperator) -> bool:
    thin = sum(n > 1 for n in operator.shape) < 2
    return thin or factors_of(operator.w, operator.s) is not None
