"""When a solve is over: the application's test, asked once per iteration; claims that the true residual bears out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.native.petsc_library import petsc_library
from petsc_dcdm.solver.explained import say
from petsc_dcdm.solver.loop.steps import Steps, System
from petsc_dcdm.stencil.forms.conversion import has_entries

Reason = PETSc.KSP.ConvergedReason
PC_FAILED = -11
"""KSP_DIVERGED_PC_FAILED, which petsc4py calls by different names."""

EPS = float(np.finfo(np.float64).eps)

BORNE_OUT = 1.001
"""The true residual over the one that an application's test was satisfied with."""

LONG = 8
"""Steps without a tenth less of residual after which the reason is looked for."""

SMALL = 1e-6
"""Relative to the first residual: from here on a step that does not lessen it may be due to rounding."""

GROWN = 10
"""A residual so many times the least one is not one that will fall again, where that was rounding."""

ROUNDINGS = 10
"""A residual of so many times the rounding of b - A x is rounding."""

MANY = 60
"""Steps that are to come from which on it is worth while to set another preconditioner up. To set BoomerAMG up and to
solve with it takes 75 to 150 steps in space, 35 to 75 in the plane."""

INITIAL_RESIDUAL = ("ksp_converged_use_initial_residual_norm", "ksp_converged_use_min_initial_residual_norm")


class _Floor:
    """Tells from true residuals whether there is any use in going on.

    It is told of claims that the true residual does not bear out, and of residuals that do not fall any more. The
    recurrence starts from the true residual each time, so that only rounding comes between the two.
    """

    PATIENCE = 3
    """How often in a row the true residual may fail to halve."""

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


class Convergence:
    """The end of one solve. All methods are collective.

    Norms are of what is left once the fixed rows are solved, and so are tolerances: identity rows may dominate the
    right-hand side by orders of magnitude. Neither are they looser than what the user asked for, relative to all of it.
    PETSc's test, which compares with the first residual, or with all of b where there is a guess, is handed such a
    tolerance as an absolute one, see :meth:`tolerances`.
    """

    def __init__(
        self, ksp: PETSc.KSP, steps: Steps, system: System, matrix_free: bool, no_solution: Callable[[float], str]
    ) -> None:
        """``no_solution``, which may take long: why there is none to this accuracy, "" if there may be one."""
        self._ksp, self._steps, self._system = ksp, steps, system
        self._no_solution = no_solution
        self._best, self._first, self._waited = np.inf, 0.0, 0
        self._matrix_free = matrix_free
        self._needs_norm = ksp.getNormType() != PETSc.KSP.NormType.NONE
        self._own_test = self._needs_norm and _is_default(ksp)
        self._looked_at = not steps.far or _monitored(ksp)
        self._rtol, self._atol, self._divtol, self._max_it = ksp.getTolerances()
        self._floor = _Floor()
        self._below = self._left = 0.0
        self._grown: float | None = None  # how much further than usual norms may grow, once PETSc's test has been told
        self.reference = 0.0
        """What tolerances are relative to."""

    @contextmanager
    def tolerances(self, first: float, whole: float, left: float | None, given: float | None) -> Iterator[None]:
        """For the length of the solve: tolerances that PETSc's test measures with as this class does. With a guess:

        Parameters
        ----------
        first
            norm of the first residual
        whole
            that of b, which counts where there are fixed rows
        left
            that of the right-hand side once the fixed rows are solved; ``first`` without a guess (None)
        given
            that of all of it, which PETSc's test takes tolerances relative to; ``first`` without a guess (None)
        """
        left, given, guessed = (first, first, False) if left is None or given is None else (left, given, True)
        self.reference = left
        if guessed and _counts_from_first(self._ksp):
            self.reference = given = first
        elif self._system.fixed.anywhere:
            self.reference = min(left, whole) if left else whole
        self.reference = self.reference or first
        self._measure_with(left)
        weights = self._system.weights
        as_petsc_has_it = self._below == max(self._rtol * given, self._atol) and first <= given and weights is None
        grown = max(self.reference, first) / (given or first or 1.0)
        if weights is not None:  # what a step lessens is the energy, in which rows of large factors count little
            grown *= weights.factors.spread
        if not as_petsc_has_it and isfinite(self._below):
            self._tell_petsc(grown)
        try:
            yield
        finally:
            if self._grown is not None:
                self._ksp.setTolerances(self._rtol, self._atol, self._divtol, self._max_it)

    def _tell_petsc(self, grown: float) -> None:
        """PETSc's test is to stop at the norm of this class, and to let norms grow so many times as far."""
        self._grown = grown * (1.0 if self._grown is None else self._grown)
        self._ksp.setTolerances(0.0, self._below, self._divtol * self._grown, self._max_it)

    def _measure_with(self, left: float) -> None:
        """Sets the norm that is to be reached, where that of what is left of the right-hand side is this."""
        self._left = left
        reachable = min(self._rtol * left, 32 * EPS * left)  # of all of b it may be less than rounding
        self._below = max(self._rtol * self.reference, self._atol, reachable)

    def check(self, its: int, exact: bool) -> bool:
        """Report iteration ``its``; True when the solve is over. ``exact``: r is b - A x, not its recurrence.

        The test is asked once. It is PETSc's own: then the true residual is taken where that would claim convergence,
        and the test is told of it. An application's: then its word counts if the true residual bears it out; it is told
        of that one where the recurrence falls below rounding, which no true residual would bear out.
        """
        ksp, steps = self._ksp, self._steps
        ksp.setIterationNumber(its)
        if not self._needs_norm:
            steps.store(freed=False)
            ksp.monitor(its, 0.0)
            return False
        norm = recurrence = steps.norm()
        told = not exact and self._is_to_be_true(norm)
        if told:
            steps.true_residual()
            norm = steps.norm()
        claimed = told and self._own_test
        if exact or told or self._looked_at or not self._own_test:
            steps.store(freed=not self._own_test or exact or told)
        ksp.logConvergenceHistory(norm)
        if not isfinite(norm):
            ksp.monitor(its, norm)
            what = "the residual became" if its else "the right-hand side or the initial guess has"
            if ksp.getNormType() == PETSc.KSP.NormType.NATURAL and isfinite(self._system.b.norm()):
                what = "the natural norm became"
            return self.stop(Reason.DIVERGED_NANORINF, f"{what} NaN or Inf")
        ksp.setResidualNorm(norm)
        reason = self._reason(ksp.callConvergenceTest(its, norm), norm)
        if reason > 0 and not exact and not told:
            steps.true_residual()
            claimed = not steps.norm() <= BORNE_OUT * norm
            reason, norm = (0, steps.norm()) if claimed else (reason, norm)
        ksp.setConvergedReason(reason)
        ksp.monitor(its, norm)
        if claimed and not reason and self._is_noise(norm):
            return self.stop(Reason.CONVERGED_RTOL)
        if (told or claimed) and not reason and self._floor.reached_at(norm):
            return self._nothing_more(norm, recurrence)
        if self._own_test and reason == Reason.DIVERGED_DTOL:
            return self.gone_wrong(reason)
        return bool(reason) or self._stands_still(norm)

    def far_from_over(self, left: float) -> bool:
        """Whether steps that leave this share of the error each would take more than `MANY`, and none of them is lost
        in rounding.
        """
        norm = self._ksp.getResidualNorm()
        if not self._needs_norm or not norm > self._below:
            return False
        soon = self._own_test and left < 1.0 and self._below > 0.0
        if soon and not np.log(self._below / norm) < MANY * np.log(left):
            return False
        # Asked last: the diagonal of a large matrix takes as long as half a step.
        return norm > ROUNDINGS * rounding(self._ksp, self._system.b, self._system.x)

    def go_on_with(self, steps: Steps, left: float | None = None) -> None:
        """Other steps from the same x. ``left``, where they have another norm: that of what is left of the right-hand
        side once the fixed rows are solved.
        """
        self._steps = steps
        if left is None or not self._left or not isfinite(left):
            return
        self.reference *= left / self._left
        self._measure_with(left)
        self._best, self._first, self._waited, self._floor = np.inf, 0.0, 0, _Floor()
        if self._own_test:
            now = steps.norm()
            self._tell_petsc(max(1.0, left / (now or left)))
            self._ksp.callConvergenceTest(0, now)  # else it goes by what it has found at the first step

    def _is_to_be_true(self, norm: float) -> bool:
        """Whether a test that is told of this norm has to be told of that of b - A x instead."""
        if self._own_test:
            return norm <= self._below
        if not norm < SMALL * self._first:
            return False
        return norm <= ROUNDINGS * rounding(self._ksp, self._system.b, self._system.x)

    def _reason(self, reason: int, norm: float) -> int:
        """The reason in the terms of the user's tolerances."""
        return Reason.CONVERGED_RTOL if reason == Reason.CONVERGED_ATOL and norm >= self._atol else reason

    def _is_noise(self, norm: float) -> bool:
        """Whether a matrix-free operator, by differences or in single precision, tells no more than a true residual of
        this norm. Then the recurrence is trusted, as PETSc's own methods do.
        """
        if not self._matrix_free:
            return False
        return norm <= ROUNDINGS / np.sqrt(EPS) * rounding(self._ksp, self._system.b, self._system.x)

    def _stands_still(self, norm: float) -> bool:
        """Whether r does not fall any more, because of rounding or because there is no solution."""
        self._first = max(self._first, norm) if self._best == np.inf else self._first
        if norm < 0.9 * self._best:
            self._best, self._waited = norm, 0
            return False
        self._waited += 1
        small = self._waited == 1 and self._best < SMALL * self._first
        if not small and self._waited % LONG:
            return False
        if self._best <= ROUNDINGS * rounding(self._ksp, self._system.b, self._system.x):
            self._steps.true_residual()
            now = self._steps.norm()
            if self._floor.reached_at(now) or now > GROWN * self._best:  # from rounding no direction can be made
                return self._nothing_more(now, norm)
            self._best, self._waited = now, 0
            return False
        if self._waited != LONG:
            return False
        why = self._no_solution(self._below)
        return bool(why) and self.stop(Reason.DIVERGED_BREAKDOWN, why)

    def _nothing_more(self, norm: float, recurrence: float) -> bool:
        """The true residual stays where it is: rounding, noise of the operator, or there is no solution."""
        none = self._no_solution(self._below) if norm > self._first else ""
        if none:  # then x grows without bounds, and what it holds with it
            return self.stop(Reason.DIVERGED_BREAKDOWN, none)
        part, level = self.relative(norm), rounding(self._ksp, self._system.b, self._system.x)
        if norm <= ROUNDINGS * level or self._best <= ROUNDINGS * level:
            if self._own_test and norm <= self._rtol * self._left:  # of all of b it is less than rounding
                return self.stop(Reason.CONVERGED_RTOL)
            why = f"the true residual stays at {part}: x holds no more in double precision"
            what = "b - A x is of the size of its rounding; ask for a larger -ksp_rtol"
            return self.stop(Reason.DIVERGED_BREAKDOWN, f"{why}, {what}")
        return self.stop(
            Reason.DIVERGED_BREAKDOWN,
            f"the true residual stays at {part} while its recurrence falls to {self.relative(recurrence)}: rounding at "
            "such contrasts of coefficients, or a matrix that is not symmetric; ask for a larger -ksp_rtol",
        )

    def relative(self, norm: float) -> str:
        """A norm in words."""
        return f"{norm / self.reference:.1e} of the right-hand side" if self.reference else f"{norm:.1e}"

    def stop(self, reason: int, why: str = "") -> bool:
        """Ends the solve; True."""
        self._ksp.setConvergedReason(reason)
        if why:
            its = self._ksp.getIterationNumber()
            say(self._ksp.getComm(), "KSP", f"stopped at step {its}: {why}")
        return True

    def gone_wrong(self, reason: int, why: str = "") -> bool:
        """The same where it was not to be expected: if there is no solution, that is why."""
        none = self._no_solution(self._below) if self._waited < LONG else ""  # else it was asked before
        return self.stop(Reason.DIVERGED_BREAKDOWN, none) if none else self.stop(reason, why)

    def finish(self) -> None:
        """After the last iteration that the user allows."""
        self.stop(Reason.DIVERGED_MAX_IT if self._needs_norm else Reason.CONVERGED_ITS)


def rounding(ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> float:
    """The size of what rounding leaves of b - A x. Collective."""
    A, P = ksp.getOperators()
    if has_entries(P):
        scaled = P.getDiagonal()
        scaled.pointwiseMult(scaled, x)
    else:  # differences, or a product of somebody's: it may have no diagonal
        scaled = b.duplicate()
        A.mult(x, scaled)
    size = EPS * (2 * float(scaled.norm()) + float(b.norm()))
    scaled.destroy()
    return size


def _counts_from_first(ksp: PETSc.KSP) -> bool:
    """Whether the user has asked for tolerances relative to the first residual although there is a guess."""
    database, prefix = PETSc.Options(), ksp.getOptionsPrefix() or ""
    return any(database.hasName(prefix + name) for name in INITIAL_RESIDUAL)


def _is_default(ksp: PETSc.KSP) -> bool:
    """Whether the convergence test is PETSc's own; False where that cannot be told."""
    library = petsc_library()
    if library is None:
        return False
    test, context, destroy = (ctypes.c_void_p() for _ in range(3))
    library.KSPGetConvergenceTest(
        ctypes.c_void_p(ksp.handle), ctypes.byref(test), ctypes.byref(context), ctypes.byref(destroy)
    )
    return test.value == ctypes.cast(library.KSPConvergedDefault, ctypes.c_void_p).value


def _monitored(ksp: PETSc.KSP) -> bool:
    """Whether somebody may look at x after a step. (Monitors of C programs without a context cannot be seen.)"""
    prefix = ksp.getOptionsPrefix() or ""
    given = [name for name in PETSc.Options().getAll() if name.startswith(prefix + "ksp_monitor")]
    library, context = petsc_library(), ctypes.c_void_p()
    if library is None or given or ksp.getMonitor():
        return True
    library.KSPGetMonitorContext(ctypes.c_void_p(ksp.handle), ctypes.byref(context))
    return context.value is not None
