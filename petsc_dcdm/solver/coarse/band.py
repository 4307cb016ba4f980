"""The coarsest level factored within its band, compiled: where one rank has all of it and it is small. Other ranks that
work on this one's box know that it is so, and no more.
"""

from __future__ import annotations

import sys

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.cpu.band import BandFactors
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.solver.coarse.shift import shift_of


class BandCoarseSolver:
    """Callable on the array of the right-hand side, see `petsc_dcdm.solver.coarse.solver.PetscCoarseSolver`. `factors`
    are for those who solve without coming back to Python; None on ranks that have nothing of the grid.
    """

    name = "Cholesky factors of a band"

    within_cycle = True
    """The kernels can solve with it, on all ranks of a team."""

    ksp: PETSc.KSP | None = None
    """There is none."""

    def __init__(
        self,
        factors: BandFactors | None,
        limit: int = sys.maxsize,
        prefix: str = "",
        comm: MPI.Intracomm = MPI.COMM_SELF,
        team: Workers = ONE_RANK,
    ) -> None:
        self.factors, self._limit, self._prefix, self._comm, self._team = factors, limit, prefix, comm, team
        self._out = np.zeros(() if factors is None else factors.shape, np.float32)

    @property
    def unknowns(self) -> int:
        """Of this rank: all of them, or none."""
        return 0 if self.factors is None else self.factors.unknowns

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Factor other values on a grid of the same shape; False where it is another, or this does not serve it.
        Collective.
        """
        served = self._team.do(self._update, operator, layout)
        return bool(over_all(self._comm, served is None or served, op=MPI.LAND))

    def _update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """On the rank that has the factors."""
        assert self.factors is not None
        if operator.shape != self.factors.shape or any(layout.periodic):
            return False
        self._out[...] = 0.0
        return self.factors.update(operator) and self.unknowns <= self._limit

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """The solution for the float32 right-hand side, 0 at inactive cells; overwritten by the next call. On the rank
        that has the factors.
        """
        assert self.factors is not None
        self.factors.solve(np.ascontiguousarray(r), self._out)
        return self._out

    def view(self, viewer: PETSc.Viewer) -> None:
        """How many unknowns there are. Collective."""
        width = 0 if self.factors is None else self.factors.width + 1
        unknowns, width = over_all(self._comm, np.array([self.unknowns, width]))
        viewer.printfASCII(
            f"    solver of the coarsest level, on 1 rank: {self.name}, {unknowns} unknowns, {width} wide (another "
            f"one: options with the prefix {self._prefix})\n"
        )

    def destroy(self) -> None:
        """Nothing of PETSc's is kept."""


def band_coarse_solver(
    operator: CoarseOperator, limit: int, prefix: str, comm: MPI.Intracomm, threads: int, team: Workers
) -> BandCoarseSolver | None:
    """The solver for an operator that is no ring and that one rank of ``comm`` has all of, the one that leads the
    ``team`` of all; None where it does not serve, nor of more than ``limit`` unknowns. ``prefix`` of options that put
    another in its place; ``threads`` of this rank, which count where it is the only one. Collective.
    """

    def make() -> BandFactors | None:
        try:
            factors = BandFactors(operator, shift_of(operator), threads, team)
        except KernelsUnavailable:
            return None
        return factors if factors.unknowns <= limit and factors.cheap and factors.factor() else None

    factors: BandFactors | None = team.do(make)
    serves = bool(over_all(comm, factors is not None or not team.leads, op=MPI.LAND))
    return BandCoarseSolver(factors, limit, prefix, comm, team) if serves else None
