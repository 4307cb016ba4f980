"""One solve of petsc_dcdm.KSP: from the fixed rows to the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.errors import OptionError
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.solver.loop.constant_mode import Closed, ConstantMode, how_closed
from petsc_dcdm.solver.loop.convergence import EPS, Convergence, Reason
from petsc_dcdm.solver.loop.net import Rate, describe
from petsc_dcdm.solver.loop.preconditioner import GridPreconditioner
from petsc_dcdm.solver.loop.steps import GridSteps, Steps, System, VectorSteps
from petsc_dcdm.stencil.forms.conversion import has_entries
from petsc_dcdm.stencil.regions import find_regions


@dataclass(frozen=True)
class Settings:
    """The options of petsc_dcdm.KSP."""

    history: int = 2
    true_residual_every: int = 50
    operator: str = "auto"


class OneSolve:
    """The loop of the deep conjugate direction method on one right-hand side. All methods are collective."""

    def __init__(
        self,
        settings: Settings,
        ksp: PETSc.KSP,
        context: GridPreconditioner | None,
        system: System,
        transposed: bool,
        vectors: Callable[[int], list[PETSc.Vec]],
    ) -> None:
        """
        Parameters
        ----------
        context
            of the preconditioner where that can take the steps on its grid, else None
        vectors
            gives so many work vectors
        """
        self._settings, self._ksp, self._context, self._system = settings, ksp, context, system
        self._transposed, self._vectors = transposed, vectors
        self._A, self._P = ksp.getOperators()
        self._has_entries = has_entries(self._A)
        self.measured = ""
        """A line for the view: what tolerances were relative to, where that is not all of the right-hand side."""

    def run(self) -> None:
        """Raises OptionError where the stencil was asked for and cannot be had."""
        ksp, system = self._ksp, self._system
        guessed = ksp.getInitialGuessNonzero()
        some_fixed = system.fixed.begin(system.b, system.x, guessed)
        closed = self._how_closed()
        steps = self._steps = self._on_grid(closed) or self._on_vectors(closed)
        ended = Convergence(ksp, steps, system, not self._has_entries, self._closed_regions)
        left = self._left() if guessed else None
        given = self._norm(ksp.getRhs()) if guessed else None
        whole = self._norm(system.b) if system.fixed.anywhere else 0.0
        steps.start(guessed or some_fixed or closed is Closed.NEARLY)
        try:
            with ended.tolerances(steps.norm(), whole, left, given):
                if system.fixed.anywhere:
                    self.measured = (
                        "    rows that their own diagonals decide were solved before the loop: norms are of the "
                        f"others, tolerances relative to {ended.reference:.3g}\n"
                    )
                if not self._has_no_solution(ended, closed):
                    self._iterate(ended, closed)
        finally:
            self._steps.store()
            if self._system.constants is not None:
                self._system.constants.destroy()

    def _iterate(self, ended: Convergence, closed: Closed) -> None:
        max_it, every = self._ksp.getTolerances()[3], self._settings.true_residual_every
        its = since_true = 0
        rate: Rate | None = Rate()
        done = ended.check(its, exact=True)
        while not done and its < max_it:
            steps = self._steps
            found = steps.step()
            finite = isfinite(found.energy * found.slope)
            none = not finite or found.energy == 0.0 or found.slope == 0.0
            if none and rate is not None and ended.far_from_over(1.0):
                rate = None
                if self._catch(f"there was no direction at step {its + 1}", ended, closed):
                    continue
            if not finite:
                done = ended.gone_wrong(Reason.DIVERGED_NANORINF, "the preconditioner or the matrix gave NaN or Inf")
            elif none and steps.norm():  # without a norm r may be 0 for long
                done = ended.gone_wrong(Reason.DIVERGED_BREAKDOWN, "no direction: d . A d or r . d is 0")
            else:
                its += 1
                since_true += 1
                exact = bool(every) and since_true >= every
                if exact:
                    steps.true_residual()
                    since_true = 0
                done = ended.check(its, exact)
                if rate is None or done:
                    continue
                rate.add(found)
                if rate.slow and ended.far_from_over(rate.left):
                    since_true = 0 if self._catch(describe(its, rate), ended, closed) else since_true
                    rate = None
        if not done:
            ended.finish()

    def _catch(self, why: str, ended: Convergence, closed: Closed) -> bool:
        """Go on from the same x along the directions of another preconditioner, if one is to be had."""
        if self._context is None or self._settings.operator == "stencil":
            return False
        self._steps.store()
        if not self._context.give_up(self._ksp.getPC(), why):
            return False
        if not isinstance(self._steps, VectorSteps):  # whose last directions are as good as ever
            self._steps = self._on_vectors(closed)
            self._steps.start(nonzero=True)
        natural = self._ksp.getNormType() == PETSc.KSP.NormType.NATURAL  # which is that of the other preconditioner now
        ended.go_on_with(self._steps, self._left() if natural else None)
        return True

    # The steps -----------------------------------------------------------------------------------------------------

    def _how_closed(self) -> Closed:
        """What constants are to the matrix, unless a null space is attached that says so."""
        if self._system.null_space is not None:
            return Closed.NO
        if self._context is not None:
            return self._context.closed(self._A)
        return how_closed(self._A, self._system.fixed) if self._has_entries else Closed.NO

    def _on_grid(self, closed: Closed) -> Steps | None:
        """Steps on the grid where the preconditioner offers it for this very matrix; else None."""
        why = "-ksp_dcdm_operator mat"
        if self._transposed:
            why = "a transposed system is solved with the matrix"
        elif closed is Closed.NEARLY:
            why = "constants nearly are a null space, which single precision does not resolve"
        elif self._ksp.getNormType() == PETSc.KSP.NormType.NATURAL:
            why = "the natural norm wants the preconditioned residual by itself"
        elif self._settings.operator != "mat":
            offer = (
                "the preconditioner is not petsc_dcdm.PC"
                if self._context is None
                else self._context.direction_loop(self._A, self._settings.history)
            )
            if not isinstance(offer, str):
                grid, loop = offer
                if grid.factors is None or not loop.on_device:
                    return GridSteps(self._A, grid, loop, self._system, self._vectors)
                offer = "rows were scaled, and the steps on this device know the residual of the symmetric matrix only"
            why = offer
        if self._settings.operator == "stencil":
            raise OptionError(f"-ksp_dcdm_operator stencil: {why}; use auto or mat")
        return None

    def _on_vectors(self, closed: Closed) -> Steps:
        system = self._system
        constants = None
        if closed is not Closed.NO:
            constants = ConstantMode(system.mult, system.b, system.fixed, closed, system.weights)
        self._system = replace(system, constants=constants)
        work = self._vectors(3 + 2 * self._settings.history + (system.weights is not None))
        natural = self._ksp.getNormType() == PETSc.KSP.NormType.NATURAL
        return VectorSteps(self._system, self._ksp.getPC(), work, self._settings.history, natural)

    def _left(self) -> float:
        """The norm of the right-hand side without what the fixed rows add to it."""
        left = self._system.fixed.left_of(self._system.b, self._system.mult)
        norm = self._norm(left)
        left.destroy()
        return norm

    def _norm(self, v: PETSc.Vec) -> float:
        """The norm that is tested."""
        if self._ksp.getNormType() != PETSc.KSP.NormType.NATURAL:
            return float(v.norm())
        z, weights = v.duplicate(), self._system.weights
        if weights is None:
            self._ksp.getPC().apply(v, z)
        else:
            (self._ksp.getPC().applyTranspose if self._transposed else self._ksp.getPC().apply)(v, z)
            weights.apply(z)
        square = abs(float(v.dot(z)))
        z.destroy()
        return float(np.sqrt(square))

    # Systems without a solution ------------------------------------------------------------------------------------

    def _has_no_solution(self, ended: Convergence, closed: Closed) -> bool:
        """Whether it is clear before the first step that no x can converge; then it is said, and over."""
        why = self._empty_row() or self._constant_part(ended, closed)
        if not why:
            return False
        self._ksp.setIterationNumber(0)
        self._ksp.setResidualNorm(ended.reference)
        return ended.stop(Reason.DIVERGED_BREAKDOWN, why)

    def _empty_row(self) -> str:
        fixed = self._system.fixed
        if not fixed.anywhere:
            return ""
        rows, comm = fixed.empty, self._A.getComm().tompi4py()
        if rows.size:
            rows = rows[self._system.b.getArray(readonly=True)[rows] != 0.0]
        own = float(int(rows[0]) + self._A.getOwnershipRange()[0] if rows.size else np.inf)
        first = over_all(comm, own, op=MPI.MIN)
        if first == np.inf:
            return ""
        return f"row {first:.0f} of the matrix is all zero and its right-hand side is not: there is no solution"

    def _constant_part(self, ended: Convergence, closed: Closed) -> str:
        system = self._system
        if closed is not Closed.ENTIRELY or self._ksp.getNormType() == PETSc.KSP.NormType.NONE:
            return ""
        if system.constants is not None:
            part = system.constants.part(system.b)
        else:  # the steps are on the grid
            assert self._context is not None
            part = self._context.constant_part(system.b)
        rtol, atol, _, _ = self._ksp.getTolerances()
        reference = ended.reference
        if self._ksp.getNormType() == PETSc.KSP.NormType.NATURAL:
            reference, atol = float(system.b.norm()), 0.0
        if not part > max(rtol * reference, atol, 64 * EPS * reference):  # so with NaN, which the loop tells
            return ""
        return (
            "constants are a null space of the matrix and a part of the right-hand side "
            f"({part:.1e}, the tolerance {rtol * reference:.1e}): there is no solution; attach the null space "
            "(MatSetNullSpace) for the solution of the rest"
        )

    def _closed_regions(self, tolerance: float) -> str:
        """Why no x leaves a residual below ``tolerance``: b in regions that nothing holds; "" elsewhere."""
        if not self._has_entries:
            return ""
        regions = find_regions(self._A)
        weights = self._system.weights
        factors = None if weights is None or self._transposed else weights.factors
        parts = regions.parts(self._system.b, factors)
        wrong = np.flatnonzero(parts > tolerance)
        if not wrong.size:
            return ""
        worst = wrong[np.argmax(parts[wrong])]
        return (
            f"in {wrong.size} of {parts.size} regions without a fixed value (rooms, pockets) the right-hand side does "
            f"not add up to 0; in that of row {regions.first[worst]}, of {regions.rows[worst]} rows, its constant part "
            f"is {parts[worst]:.1e}, the tolerance {tolerance:.1e}: there is no solution; make it add up, or attach a "
            "null space with one vector for each region (MatSetNullSpace)"
        )
