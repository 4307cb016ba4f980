"""Matrices that the network cannot serve, under ``-pc_dcdm_fallback``: PETSc's flexible GCR with that preconditioner.

The loop of conjugate directions wants a symmetric matrix, and what is refused often is none. GCR takes the steps of a
flexible GMRES, and has x and r at each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.errors import BrokenMatrix, BuildError, NoRows, UnsupportedSystem
from petsc_dcdm.solver.explained import say
from petsc_dcdm.solver.loop.convergence import BORNE_OUT, Reason, rounding
from petsc_dcdm.solver.options import option_defaults
from petsc_dcdm.stencil.forms.symmetry import NotSymmetric

RUNS = 3
"""How often GCR begins again where the true residual is not what its recurrence says."""


def other_pc(
    pc: PETSc.PC,
    kind: str,
    prefix: str = "pc_dcdm_fallback_",
    matrix: PETSc.Mat | None = None,
    defaults: dict[str, str] | None = None,
) -> PETSc.PC:
    """A preconditioner of type ``kind`` for the operators of ``pc``, or for ``matrix``, set up; options prefix: that of
    ``pc`` and ``prefix``, ``defaults`` of what follows it. Collective.
    """
    prefix = (pc.getOptionsPrefix() or "") + prefix
    other = PETSc.PC().create(pc.getComm())
    other.setOptionsPrefix(prefix)
    other.setOperators(*(pc.getOperators() if matrix is None else (matrix, matrix)))
    other.setType(kind)
    with option_defaults(prefix, defaults or {}):
        other.setFromOptions()
    other.setUp()
    return other


def with_remedy(problem: UnsupportedSystem, pc: PETSc.PC) -> UnsupportedSystem:
    """The same error, whose sentence names a fallback where one may serve the matrix."""
    if isinstance(problem, (BrokenMatrix, BuildError, NoRows)):
        return problem
    # Aggregation makes convection worse, and takes no dense matrix.
    dense = "dense" in pc.getOperators()[1].getType()
    kind = "bjacobi" if dense or isinstance(problem, NotSymmetric) else "gamg"
    option = f"-{pc.getOptionsPrefix() or ''}pc_dcdm_fallback"
    return type(problem)(f"{problem}; {option} {kind} would use another preconditioner")


class Otherwise:
    """Keeps the inner solver from solve to solve. All methods are collective."""

    def __init__(self) -> None:
        self._inner: PETSc.KSP | None = None

    def reset(self) -> None:
        if self._inner is not None:
            self._inner.destroy()
            self._inner = None

    def solve(self, ksp: PETSc.KSP, pc: PETSc.PC, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        """Solve for ``ksp``, with its tolerances, convergence test, monitors and history. The inner solver's options
        prefix is that of ``ksp`` and ``dcdm_fallback_``.
        """
        inner = self._inner
        if inner is None:
            inner = self._inner = PETSc.KSP().create(ksp.getComm())
            inner.setOptionsPrefix((ksp.getOptionsPrefix() or "") + "dcdm_fallback_")
            inner.setPC(pc)
            inner.setType(PETSc.KSP.Type.GCR)
            inner.setInitialGuessNonzero(True)
            inner.setFromOptions()
        inner.setPC(pc)
        inner.setOperators(*ksp.getOperators())
        run = _Run(ksp)
        inner.setConvergenceTest(run.test)
        A, _ = ksp.getOperators()
        mult = A.multTranspose if transposed else A.mult
        max_it = ksp.getTolerances()[3]
        for _ in range(RUNS):
            inner.setTolerances(max_it=max_it - run.its)
            (inner.solveTranspose if transposed else inner.solve)(b, x)
            if run.reason <= 0 or run.borne_out(mult, b, x):
                break
        run.end()


class _Run:
    """Asks the outer solver's test about the inner one's iterations."""

    def __init__(self, ksp: PETSc.KSP) -> None:
        self._ksp = ksp
        self._needs_norm = ksp.getNormType() != PETSc.KSP.NormType.NONE
        self._first = self.its = 0
        self._asked = -1
        self._norm = np.inf
        self.reason = 0

    def test(self, inner: PETSc.KSP, its: int, norm: float) -> int:
        """The outer solver's test, once for each iteration."""
        ksp, self.its = self._ksp, self._first + its
        if self.its == self._asked:  # a new run begins where the last one ended
            return 0
        self._asked, self._norm = self.its, norm
        ksp.setIterationNumber(self.its)
        if not self._needs_norm:
            ksp.monitor(self.its, 0.0)
            return 0
        ksp.logConvergenceHistory(norm)
        ksp.setResidualNorm(norm)
        self.reason = int(ksp.callConvergenceTest(self.its, norm)) if np.isfinite(norm) else Reason.DIVERGED_NANORINF
        ksp.setConvergedReason(self.reason)
        ksp.monitor(self.its, norm)
        return self.reason

    def borne_out(self, mult: Callable[[PETSc.Vec, PETSc.Vec], None], b: PETSc.Vec, x: PETSc.Vec) -> bool:
        """Whether the true residual is what the test was satisfied with; if not the next run begins here."""
        r = b.duplicate()
        mult(x, r)
        r.aypx(-1.0, b)
        norm = float(r.norm())
        r.destroy()
        if norm <= BORNE_OUT * self._norm or norm <= rounding(self._ksp, b, x):
            return True
        self._first, self.reason = self.its, Reason.DIVERGED_BREAKDOWN
        return False

    def end(self) -> None:
        """The outer solver's reason."""
        ksp = self._ksp
        if self.reason == 0:
            self.reason = Reason.DIVERGED_MAX_IT if self._needs_norm else Reason.CONVERGED_ITS
        elif self.reason == Reason.DIVERGED_BREAKDOWN:
            say(
                ksp.getComm(),
                "KSP",
                "the fallback's residuals are not what its recurrence says; ask for a larger -ksp_rtol",
            )
        ksp.setConvergedReason(self.reason)
