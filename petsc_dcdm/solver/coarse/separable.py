"""The coarsest level by fast diagonalisation: for large ones that are nearly a product of functions of x, y and z."""

from __future__ import annotations

from math import prod

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.backends.cpu.separable import SeparableSolver
from petsc_dcdm.backends.cpu.separable_fit import factors_of
from petsc_dcdm.grid.errors import raise_together
from petsc_dcdm.grid.layout import CoarseOperator, Layout
from petsc_dcdm.solver.coarse import parts


class SeparableCoarseSolver(parts.PartsCoarseSolver):
    """As `petsc_dcdm.solver.coarse.parts.PartsCoarseSolver`, with the inverse of a product in place of parts.

    Attributes
    ----------
    serves
        whether the medium is one; if not, nothing can be solved
    """

    name = "fast diagonalisation"
    """What solves it, for people."""

    _inverse: SeparableSolver | None = None

    def _set_up(self, operator: CoarseOperator) -> None:
        problem: Exception | None = None
        self._inverse = None
        if self._has_box:
            *w, s = [self._whole(a) for a in (*operator.w, operator.s)]
            try:
                factors = factors_of(w, s)
                if factors is not None:
                    self._inverse = SeparableSolver(factors, self._threads)
            except Exception as error:
                problem = RuntimeError(f"the coarse solver can not be set up: {error}")
        raise_together(self._everyone, problem)
        self.serves = bool(self._everyone.bcast(self._inverse is not None))
        self.unknowns = prod(self._shape)

    def update(self, operator: CoarseOperator, layout: Layout) -> bool:
        """Set up for other values on the same boxes; False where these are others, or no product any more."""
        return super().update(operator, layout) and self.serves

    def solve(self, r: np.ndarray, out: np.ndarray) -> None:
        """From an array of the whole level to another, float32 and along x without gaps. Not collective."""
        assert self._inverse is not None
        self._inverse.solve(r, self._x)
        if out is not self._x:
            out[...] = self._x

    def view(self, viewer: PETSc.Viewer) -> None:
        """What solves it."""
        where = "on every rank, each all of it" if len(self._boxes) > 1 else "on 1 rank"
        viewer.printfASCII(
            f"    solver of the coarsest level, {where}: {self.name}, {self.unknowns} unknowns, of a medium that is "
            "nearly a product of functions of x, y and z\n"
        )


def separable_solver(
    comm: PETSc.Comm, operator: CoarseOperator, layout: Layout, threads: int, has_box: bool
) -> SeparableCoarseSolver | None:
    """That solver, or None where the medium is no such product, or there are no kernels. Collective. Arguments as of
    `petsc_dcdm.solver.coarse.solver.coarse_solver`; no axis is a ring.
    """
    mpi = comm.tompi4py()
    if not parts.serves(comm, operator):
        return None
    # Of a product every box is one: most media are told before anything is gathered.
    if mpi.Get_size() > 1 and not mpi.allreduce(not has_box or _is_product(operator), op=MPI.LAND):
        return None
    solver = SeparableCoarseSolver(comm, operator, layout, threads, has_box)
    if solver.serves:
        return solver
    solver.destroy()
    return None


def _is_product(operator: CoarseOperator) -> bool:
    thin = sum(n > 1 for n in operator.shape) < 2
    return thin or factors_of(operator.w, operator.s) is not None
