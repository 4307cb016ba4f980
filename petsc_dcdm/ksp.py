"""The Deep Conjugate Direction Method as a PETSc Krylov solver.

Kaneda, Akar, Chen, Kala, Hyde, Teran: A Deep Conjugate Direction Method for Iteratively Solving Linear Systems, ICML
2023
(arXiv 2205.10763). The preconditioner's output is made A-orthogonal to the last m directions and an exact line search
steps along it; nothing is asked of the preconditioner, not even linearity. With the same PC it is PETSc's
``-ksp_type fcg -ksp_fcg_mmax m -ksp_fcg_truncation_type standard``.

Three reductions a step, whatever m is: all d . A p_i at once, (d . A d, r . d) at once, |r|.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.options import KSP_OPTIONS, print_help, read
from petsc_dcdm.petsc_library import petsc_library

Reason = PETSc.KSP.ConvergedReason

_UNSET_PC = (None, PETSc.PC.Type.NONE, PETSc.PC.Type.ILU, PETSc.PC.Type.ICC, PETSc.PC.Type.BJACOBI)
"""PC types that count as not chosen: none, and PETSc's defaults, which KSPSetFromOptions has set before ours is
called.
"""


class KSP:
    """Python type ``petsc_dcdm.KSP``; see :mod:`petsc_dcdm.options` for its options. All methods are collective."""

    def __init__(self) -> None:
        self.history = 2
        self.true_residual_every = 50
        self._work: list[PETSc.Vec] = []

    def create(self, ksp: PETSc.KSP) -> None:
        """True residuals: the unpreconditioned norm, unless the user says none (inside another solver)."""
        library = petsc_library()
        if library is not None:  # petsc4py's KSP declares no support for it
            for side in (PETSc.PC.Side.LEFT, PETSc.PC.Side.RIGHT):
                library.KSPSetSupportedNorm(ctypes.c_void_p(ksp.handle), int(PETSc.KSP.NormType.NONE), int(side), 1)
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)

    def destroy(self, ksp: PETSc.KSP) -> None:
        self.reset(ksp)

    def reset(self, ksp: PETSc.KSP) -> None:
        for vec in self._work:
            vec.destroy()
        self._work = []

    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        prefix = ksp.getOptionsPrefix()
        print_help(KSP_OPTIONS, prefix, "Deep conjugate direction method (petsc_dcdm.KSP)", ksp.getComm())
        values = read(KSP_OPTIONS, prefix)
        self.history = values["ksp_dcdm_history"]
        self.true_residual_every = values["ksp_dcdm_true_residual_every"]
        self._install_pc(ksp, prefix)

    def _install_pc(self, ksp: PETSc.KSP, prefix: str | None) -> None:
        """Choosing only the KSP brings its preconditioner; a type of none that the program set counts as unset
        (clients do that).
        """
        if PETSc.Options().hasName((prefix or "") + "pc_type"):
            return
        pc = ksp.getPC()
        if pc.getType() in _UNSET_PC:
            pc.setType(PETSc.PC.Type.PYTHON)
            pc.setPythonType("petsc_dcdm.PC")
            pc.setFromOptions()

    def setUp(self, ksp: PETSc.KSP) -> None:
        self._install_pc(ksp, ksp.getOptionsPrefix())
        if ksp.getNormType() not in (PETSc.KSP.NormType.UNPRECONDITIONED, PETSc.KSP.NormType.NONE):
            raise ValueError("petsc_dcdm.KSP tests the true residual: -ksp_norm_type must be unpreconditioned or none")

    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        if viewer.getType() == PETSc.Viewer.Type.ASCII:
            viewer.printfASCII(
                f"    deep conjugate direction method (Kaneda et al., ICML 2023): history {self.history}, "
                f"true residual every {self.true_residual_every or 'never but before convergence'}\n"
            )

    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The loop of DESIGN section 2. Collective. ``x`` holds the initial guess if the KSP says it is non-zero."""
        A, _ = ksp.getOperators()
        pc = ksp.getPC()
        null_space = A.getNullSpace()
        needs_norm = ksp.getNormType() != PETSc.KSP.NormType.NONE
        max_it = ksp.getTolerances()[3]
        loop = _Loop(ksp, A, b, x, self._vectors(b))
        r = loop.r

        if ksp.getInitialGuessNonzero():
            loop.true_residual()
        else:
            x.set(0.0)
            b.copy(r)
        directions: deque[tuple[PETSc.Vec, PETSc.Vec, float]] = deque()
        free = list(loop.pairs)
        its = 0
        if loop.check(its, needs_norm, exact=True):
            return
        since_true = 0
        while its < max_it:
            d, Ad = free.pop()
            pc.apply(r, d)
            if null_space:
                null_space.remove(d)
            if directions:
                betas = _dots(d, [Ap for _, Ap, _ in directions])
                d.maxpy(
                    [-beta / pAp for beta, (_, _, pAp) in zip(betas, directions, strict=True)],
                    [p for p, _, _ in directions],
                )
            A.mult(d, Ad)
            dAd, rd = _dots(d, [Ad, r])
            if not np.isfinite(dAd) or not np.isfinite(rd):
                loop.stop(its, Reason.DIVERGED_NANORINF, "the preconditioner or the matrix produced NaN or Inf")
                return
            if dAd == 0.0 or rd == 0.0:
                loop.stop(
                    its, Reason.DIVERGED_BREAKDOWN, "the preconditioner gave no direction (d . A d or r . d is 0)"
                )
                return
            alpha = rd / dAd
            x.axpy(alpha, d)
            r.axpy(-alpha, Ad)
            its += 1
            since_true += 1
            if self.history:
                directions.append((d, Ad, dAd))
                if len(directions) > self.history:
                    free.append(directions.popleft()[:2])
            else:
                free.append((d, Ad))
            exact = bool(self.true_residual_every) and since_true >= self.true_residual_every
            if exact:
                loop.true_residual()
                since_true = 0
            if loop.check(its, needs_norm, exact):
                return
        loop.stop(its, Reason.CONVERGED_ITS if not needs_norm else Reason.DIVERGED_MAX_IT)

    def _vectors(self, b: PETSc.Vec) -> list[PETSc.Vec]:
        """The residual and ``history + 1`` pairs (d, A d), kept from solve to solve."""
        wanted = 1 + 2 * (self.history + 1)
        fits = self._work and self._work[0].getSizes() == b.getSizes() and self._work[0].getType() == b.getType()
        if not fits:
            self.reset(None)
        while len(self._work) < wanted:
            self._work.append(b.duplicate())
        return self._work[:wanted]


def _dots(d: PETSc.Vec, vecs: list[PETSc.Vec]) -> list[float]:
    """d . v of every vector in one reduction. Collective. (Vec.mDot is not implemented in petsc4py 3.18.)"""
    for vec in vecs:
        d.dotBegin(vec)
    return [d.dotEnd(vec) for vec in vecs]


class _Loop:
    """What a step leaves behind in the KSP: iteration, norm, history, monitors, the convergence test and its reason."""

    def __init__(self, ksp: PETSc.KSP, A: PETSc.Mat, b: PETSc.Vec, x: PETSc.Vec, work: list[PETSc.Vec]) -> None:
        self.ksp, self.A, self.b, self.x = ksp, A, b, x
        self.r = work[0]
        self.pairs = list(zip(work[1::2], work[2::2], strict=True))

    def true_residual(self) -> None:
        self.A.mult(self.x, self.r)
        self.r.aypx(-1.0, self.b)

    def check(self, its: int, needs_norm: bool, exact: bool) -> bool:
        """Report step ``its``; True when the solve is over. ``exact``: r is b - A x, not its recurrence.

        Convergence is only claimed on the true residual: where the recurrence says so, r is replaced and asked again.
        """
        self.ksp.setIterationNumber(its)
        if not needs_norm:
            self.ksp.monitor(its, 0.0)
            return False
        norm = self.r.norm()
        if its and not exact and np.isfinite(norm) and self.ksp.callConvergenceTest(its, norm) > 0:
            self.true_residual()
            norm = self.r.norm()
        self.ksp.logConvergenceHistory(norm)
        if not np.isfinite(norm):
            self.ksp.monitor(its, norm)
            what = "the right-hand side or the initial guess has" if its == 0 else "the residual became"
            self.stop(its, Reason.DIVERGED_NANORINF, f"{what} NaN or Inf")
            return True
        self.ksp.setResidualNorm(norm)
        reason = self.ksp.callConvergenceTest(its, norm)
        self.ksp.setConvergedReason(reason)
        self.ksp.monitor(its, norm)
        return bool(reason)

    def stop(self, its: int, reason: int, why: str = "") -> None:
        self.ksp.setConvergedReason(reason)
        if why and self.ksp.getComm().getRank() == 0:
            print(f"petsc_dcdm.KSP: stopped at step {its}: {why}", file=sys.stderr)
