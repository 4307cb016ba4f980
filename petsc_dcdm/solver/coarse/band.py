"""The coarsest level factored within its band, compiled: where one rank has all of it and it is small."""

from __future__ import annotations

import sys

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.backends.cpu.band import BandFactors
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.solver.coarse.shift import shift_of


class BandCoarseSolver:
    """Callable on the array of the right-hand side, see `petsc_dcdm.solver.coarse.solver.PetscCoarseSolver`; for one
    rank. `factors` are for those who solve without coming back to Python.
    """

    name = "Cholesky factors of a band"

    ksp: PETSc.KSP | None = None
    """There is none."""

    def __init__(self, factors: BandFactors, limit: int = sys.maxsize, prefix: str = "") -> None:
        self.factors, self._limit, self._prefix = factors, limit, prefix
        self._out = np.zeros(factors.shape, np.float32)

    @property
    def unknowns(self) -> int:
        return self.factors.unknowns

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Factor other values on a grid of the same shape; False where it is another, or this does not serve it."""
        if operator.shape != self.factors.shape or any(layout.periodic):
            return False
        self._out[...] = 0.0
        return self.factors.update(operator) and self.unknowns <= self._limit

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """The solution for the float32 right-hand side, 0 at inactive cells; overwritten by the next call."""
        self.factors.solve(np.ascontiguousarray(r), self._out)
        return self._out

    def view(self, viewer: PETSc.Viewer) -> None:
        """How many unknowns there are."""
        viewer.printfASCII(
            f"    solver of the coarsest level, on 1 rank: {self.name}, "
            f"{self.factors.unknowns} unknowns, {self.factors.width + 1} wide (another one: options with the prefix "
            f"{self._prefix})\n"
        )

    def destroy(self) -> None:
        """Nothing of PETSc's is kept."""


def band_coarse_solver(operator: CoarseOperator, limit: int, prefix: str) -> BandCoarseSolver | None:
    """The solver for an operator that this rank has all of and that is no ring; None where it does not serve, nor of
    more than ``limit`` unknowns. ``prefix`` of options that put another in its place.
    """
    try:
        factors = BandFactors(operator, shift_of(operator))
    except KernelsUnavailable:
        return None
    serves = factors.unknowns <= limit and factors.cheap and factors.factor()
    return BandCoarseSolver(factors, limit, prefix) if serves else None
