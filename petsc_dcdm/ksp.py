"""The Deep Conjugate Direction Method as a PETSc Krylov solver.

Kaneda, Akar, Chen, Kala, Hyde, Teran: A Deep Conjugate Direction Method for Iteratively Solving Linear Systems, ICML
2023
(arXiv 2205.10763). The preconditioner's output is made A-orthogonal to the last m directions and an exact line search
steps along it; nothing is asked of the preconditioner, not even linearity. With the same PC it is PETSc's
``-ksp_type fcg -ksp_fcg_mmax m -ksp_fcg_truncation_type standard``.
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from typing import Any

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.at_exit import forget, watch
from petsc_dcdm.explained import Explained, say
from petsc_dcdm.models.memory import aligned_zeros
from petsc_dcdm.options import KSP_OPTIONS, OptionError, print_help, read
from petsc_dcdm.petsc_build import require_real_double
from petsc_dcdm.petsc_library import petsc_library
from petsc_dcdm.steps import GridSteps, Steps, VectorSteps

Reason = PETSc.KSP.ConvergedReason

_UNSET_PC = (None, PETSc.PC.Type.NONE, PETSc.PC.Type.ILU, PETSc.PC.Type.ICC, PETSc.PC.Type.BJACOBI)
"""PC types that count as not chosen: none, and PETSc's defaults, which KSPSetFromOptions has set before ours is
called.
"""


def _like(b: PETSc.Vec) -> PETSc.Vec:
    """A work vector like ``b``; on the host in memory that is cheap to touch for the first time, which takes as long as
    a step in PETSc's own. What it holds is not defined. Collective.
    """
    if b.getType() not in (PETSc.Vec.Type.SEQ, PETSc.Vec.Type.MPI):
        return b.duplicate()
    memory = aligned_zeros(b.getLocalSize(), np.float64)
    return PETSc.Vec().createWithArray(memory, size=b.getSizes(), bsize=b.getBlockSize(), comm=b.getComm())


class _RoundingFloor:
    """Tells from true residuals whether there is any use in going on.

    It is asked where the recurrence claims convergence and the true residual does not bear it out. The recurrence
    starts from the true residual each time, so that only rounding comes between the two.
    """

    PATIENCE = 3
    """Claims in a row that fail to halve the true residual."""

    def __init__(self) -> None:
        self._best = np.inf
        self._failed = 0

    def reached_at(self, norm: float) -> bool:
        """Whether the true residual ``norm`` is where it stays."""
        if norm < 0.5 * self._best:
            self._best, self._failed = norm, 0
        else:
            self._failed += 1
        return self._failed >= self.PATIENCE


class KSP:
    """Python type ``petsc_dcdm.KSP``; see :mod:`petsc_dcdm.options` for its options. All methods are collective."""

    def __init__(self) -> None:
        self.history = 2
        self.true_residual_every = 50
        self.operator = "auto"
        self._steps: Steps | None = None
        """Of the solve that is going on."""
        self._floor = _RoundingFloor()
        self._work: list[PETSc.Vec] = []

    def create(self, ksp: PETSc.KSP) -> None:
        """True residuals: the unpreconditioned norm, unless the user says none (inside another solver)."""
        watch(ksp)
        require_real_double(ksp.getComm(), "KSP")
        library = petsc_library()
        if library is not None:  # petsc4py's KSP declares no support for it
            for side in (PETSc.PC.Side.LEFT, PETSc.PC.Side.RIGHT):
                library.KSPSetSupportedNorm(ctypes.c_void_p(ksp.handle), int(PETSc.KSP.NormType.NONE), int(side), 1)
        chosen = PETSc.Options().hasName((ksp.getOptionsPrefix() or "") + "ksp_norm_type")
        if not chosen and ksp.getNormType() != PETSc.KSP.NormType.NONE:
            ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)

    def destroy(self, ksp: PETSc.KSP) -> None:
        forget(ksp)
        self.reset(ksp)

    def reset(self, ksp: PETSc.KSP) -> None:
        self._free_vectors()

    def setFromOptions(self, ksp: PETSc.KSP) -> None:
        prefix = ksp.getOptionsPrefix()
        print_help(KSP_OPTIONS, prefix, "Deep conjugate direction method (petsc_dcdm.KSP)", ksp.getComm())
        with Explained(ksp.getComm(), "KSP"):
            values = read(KSP_OPTIONS, prefix)
        self.history = values["ksp_dcdm_history"]
        self.true_residual_every = values["ksp_dcdm_true_residual_every"]
        self.operator = values["ksp_dcdm_operator"]
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
            with Explained(ksp.getComm(), "KSP"):
                raise OptionError("the true residual is tested: -ksp_norm_type must be unpreconditioned or none")
        context = self._offering(ksp)
        if self.operator != "mat" and context is not None:
            context.keep_operator = True

    @staticmethod
    def _offering(ksp: PETSc.KSP) -> Any:
        """The context of a preconditioner that can take the steps on its grid, or None."""
        pc = ksp.getPC()
        context = pc.getPythonContext() if pc.getType() == PETSc.PC.Type.PYTHON else None
        return context if hasattr(context, "direction_loop") else None

    def view(self, ksp: PETSc.KSP, viewer: PETSc.Viewer) -> None:
        if viewer.getType() == PETSc.Viewer.Type.ASCII:
            viewer.printfASCII(
                f"    deep conjugate direction method (Kaneda et al., ICML 2023): history {self.history}, "
                f"true residual every {self.true_residual_every or 'never but before convergence'}, "
                f"operator {self.operator}\n"
            )

    def solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The loop of DESIGN section 2. Collective. ``x`` holds the initial guess if the KSP says it is non-zero."""
        self._solve(ksp, b, x, transposed=False)

    def solveTranspose(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """The same with A', on PETSc's vectors: A is symmetric but for Dirichlet rows that others couple to one way."""
        self._solve(ksp, b, x, transposed=True)

    def _solve(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> None:
        if self._has_no_solution(ksp, b):
            return
        projected = self._without_null_space(ksp, b)
        steps = self._steps = self._make_steps(ksp, projected or b, x, transposed)
        context = self._offering(ksp)
        try:
            with context.together() if context is not None else nullcontext():
                self._iterate(ksp, steps)
        finally:
            steps.store()
            self._steps = None
            if projected is not None:
                projected.destroy()

    @staticmethod
    def _without_null_space(ksp: PETSc.KSP, b: PETSc.Vec) -> PETSc.Vec | None:
        """b freed of the null space that the user has attached. PETSc has done so where it knows A to be symmetric."""
        A, _ = ksp.getOperators()
        null_space = A.getNullSpace()
        if not null_space or A.getTransposeNullSpace() or all(A.isSymmetricKnown()):
            return None
        projected = b.copy()
        null_space.remove(projected)
        return projected

    def _has_no_solution(self, ksp: PETSc.KSP, b: PETSc.Vec) -> bool:
        """Whether constants, a null space that nobody has attached, are too large a part of b for any x to converge."""
        A, P = ksp.getOperators()
        context = self._offering(ksp)
        if context is None or A != P or A.getNullSpace() or ksp.getNormType() == PETSc.KSP.NormType.NONE:
            return False
        part = context.constant_part(b)
        rtol, atol, _, _ = ksp.getTolerances()
        if not part > max(rtol * b.norm(), atol):  # also when there is a NaN, which the loop reports
            return False
        ksp.setIterationNumber(0)
        ksp.setResidualNorm(b.norm())
        why = (
            f"constants are a null space of the matrix and a part of the right-hand side ({part / b.norm():.1e} of its "
            "norm): there is no solution; attach the null space (MatSetNullSpace) for the solution of the rest"
        )
        return self._stop(ksp, Reason.DIVERGED_BREAKDOWN, why)

    def _iterate(self, ksp: PETSc.KSP, steps: Steps) -> None:
        needs_norm = ksp.getNormType() != PETSc.KSP.NormType.NONE
        max_it = ksp.getTolerances()[3]
        self._floor = _RoundingFloor()
        steps.start(ksp.getInitialGuessNonzero())
        its = since_true = 0
        done = self._check(ksp, steps, its, needs_norm, exact=True)
        while not done and its < max_it:
            found = steps.step()
            if not np.isfinite(found.energy * found.slope):
                done = self._stop(ksp, Reason.DIVERGED_NANORINF, "the preconditioner or the matrix gave NaN or Inf")
            elif found.energy == 0.0 or found.slope == 0.0:
                done = self._stop(ksp, Reason.DIVERGED_BREAKDOWN, "no direction: d . A d or r . d is 0")
            else:
                its += 1
                since_true += 1
                exact = bool(self.true_residual_every) and since_true >= self.true_residual_every
                if exact:
                    steps.true_residual()
                    since_true = 0
                done = self._check(ksp, steps, its, needs_norm, exact)
        if not done:
            self._stop(ksp, Reason.DIVERGED_MAX_IT if needs_norm else Reason.CONVERGED_ITS)

    def buildSolution(self, ksp: PETSc.KSP, x: PETSc.Vec) -> None:
        """x as it is now, for monitors that ask. (PETSc's own would apply the PC, on the right.)"""
        if self._steps is not None:
            self._steps.store()
        ksp.getSolution().copy(x)

    def _make_steps(self, ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, transposed: bool) -> Steps:
        """On the grid where the preconditioner offers it for this very matrix, else on PETSc's vectors."""
        A, _ = ksp.getOperators()
        why = "a transposed system is solved with the matrix" if transposed else "-ksp_dcdm_operator mat"
        if self.operator != "mat" and not transposed:
            context = self._offering(ksp)
            offer = (
                "the preconditioner is not petsc_dcdm.PC"
                if context is None
                else context.direction_loop(A, self.history)
            )
            if not isinstance(offer, str):
                system, loop = offer
                return GridSteps(A, system, loop, b, x, self._vectors(b, 1)[0])
            why = offer
        if self.operator == "stencil":
            with Explained(ksp.getComm(), "KSP"):
                raise OptionError(f"-ksp_dcdm_operator stencil: {why}; use auto or mat")
        return VectorSteps(A, ksp.getPC(), b, x, self._vectors(b, 3 + 2 * self.history), self.history, transposed)

    def _vectors(self, b: PETSc.Vec, wanted: int) -> list[PETSc.Vec]:
        """Work vectors like ``b``, kept from solve to solve."""
        fits = self._work and self._work[0].getSizes() == b.getSizes() and self._work[0].getType() == b.getType()
        if not fits:
            self._free_vectors()
        while len(self._work) < wanted:
            self._work.append(_like(b))
        return self._work[:wanted]

    def _free_vectors(self) -> None:
        for vec in self._work:
            vec.destroy()
        self._work = []

    def _check(self, ksp: PETSc.KSP, steps: Steps, its: int, needs_norm: bool, exact: bool) -> bool:
        """Report step ``its``; True when the solve is over. ``exact``: r is b - A x, not its recurrence.

        Convergence is only claimed on the true residual: where the recurrence says so, r is replaced and asked again.
        """
        ksp.setIterationNumber(its)
        if not needs_norm:
            ksp.monitor(its, 0.0)
            return False
        norm = steps.norm()
        claimed = not exact and np.isfinite(norm) and ksp.callConvergenceTest(its, norm) > 0
        if claimed:
            steps.true_residual()
            norm = steps.norm()
        ksp.logConvergenceHistory(norm)
        if not np.isfinite(norm):
            ksp.monitor(its, norm)
            what = "the residual became" if its else "the right-hand side or the initial guess has"
            return self._stop(ksp, Reason.DIVERGED_NANORINF, f"{what} NaN or Inf")
        ksp.setResidualNorm(norm)
        reason = ksp.callConvergenceTest(its, norm)
        ksp.setConvergedReason(reason)
        ksp.monitor(its, norm)
        if claimed and not reason and self._floor.reached_at(norm):
            why = (
                f"the true residual stays at {norm / ksp.getRhs().norm():.1e} of the right-hand side: x holds no more "
                "in double precision, whatever the solver; ask for a larger -ksp_rtol"
            )
            return self._stop(ksp, Reason.DIVERGED_BREAKDOWN, why)
        return bool(reason)

    def _stop(self, ksp: PETSc.KSP, reason: int, why: str = "") -> bool:
        ksp.setConvergedReason(reason)
        if why:
            say(ksp.getComm(), "KSP", f"stopped at step {ksp.getIterationNumber()}: {why}")
        return True
