"""Two ways to take the steps of the method: on PETSc's vectors with any matrix and preconditioner, or on the grid.

Both hold x and r and hide where they live; :class:`petsc_dcdm.ksp.KSP` decides when to stop. On the grid the matrix is
replaced by the stencil that the preconditioner has extracted from it and a step makes two passes over memory. True
residuals are taken with the matrix, or with the stencil where set-up has found every entry of the matrix in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from petsc4py import PETSc


@dataclass(frozen=True)
class Outcome:
    """d . A d of the direction and r . d before the step; where one is 0 or not finite no step was taken."""

    energy: float
    slope: float


class Steps(Protocol):
    """All methods are collective."""

    def start(self, nonzero_guess: bool) -> None:
        """Take b and x from the Krylov solver, where x is 0 without a guess; r = b - A x."""

    def step(self) -> Outcome:
        """One direction, one exact line search along it: x and r move."""

    def norm(self) -> float:
        """|r|."""

    def true_residual(self) -> None:
        """Replace r by b - A x."""

    def store(self) -> None:
        """Bring x to the vector of the Krylov solver."""


class VectorSteps:
    """Steps on PETSc's vectors. Three reductions a step: all d . A p_i, (d . A d, r . d), and |r|."""

    def __init__(
        self,
        A: PETSc.Mat,
        pc: PETSc.PC,
        b: PETSc.Vec,
        x: PETSc.Vec,
        work: list[PETSc.Vec],
        history: int,
        transposed: bool,
    ) -> None:
        """``work`` holds r and ``history + 1`` pairs of d and A d. ``transposed``: A' x = b is solved."""
        self._mult = A.multTranspose if transposed else A.mult
        self._pc, self._b, self._x = pc, b, x
        self._null_space = A.getNullSpace()
        self._r = work[0]
        self._free = list(zip(work[1::2], work[2::2], strict=True))
        self._before: deque[tuple[PETSc.Vec, PETSc.Vec, float]] = deque()
        self._history = history

    def start(self, nonzero_guess: bool) -> None:
        if nonzero_guess:
            self.true_residual()
        else:
            self._b.copy(self._r)

    def true_residual(self) -> None:
        self._mult(self._x, self._r)
        self._r.aypx(-1.0, self._b)

    def norm(self) -> float:
        return float(self._r.norm())

    def step(self) -> Outcome:
        r = self._r
        d, Ad = self._free.pop()
        self._pc.apply(r, d)
        if self._null_space:
            self._null_space.remove(d)
        if self._before:
            betas = _dots(d, [Ap for _, Ap, _ in self._before])
            scales = [-beta / pAp for beta, (_, _, pAp) in zip(betas, self._before, strict=True)]
            d.maxpy(scales, [p for p, _, _ in self._before])
        self._mult(d, Ad)
        energy, slope = _dots(d, [Ad, r])
        if not np.isfinite(energy * slope) or energy == 0.0 or slope == 0.0:
            self._free.append((d, Ad))
            return Outcome(energy, slope)
        alpha = slope / energy
        self._x.axpy(alpha, d)
        r.axpy(-alpha, Ad)
        self._before.append((d, Ad, energy))
        if len(self._before) > self._history:
            self._free.append(self._before.popleft()[:2])
        return Outcome(energy, slope)

    def store(self) -> None:
        """x is in its place already."""


def _dots(d: PETSc.Vec, vecs: list[PETSc.Vec]) -> list[float]:
    """d . v of every vector in one reduction. Collective. (Vec.mDot is not implemented in petsc4py 3.18.)"""
    for vec in vecs:
        d.dotBegin(vec)
    return [d.dotEnd(vec) for vec in vecs]


class GridSteps:
    """Steps on the boxes of the grid: compiled, two reductions each, directions in single precision.

    x and r are the vectors' own memory where the rows are the box, buffers elsewhere.
    """

    def __init__(self, A: PETSc.Mat, system: Any, loop: Any, b: PETSc.Vec, x: PETSc.Vec, r: PETSc.Vec) -> None:
        """``system`` is the preconditioner's GridSystem, ``loop`` its DirectionLoop; ``r`` is to hold the residual."""
        self._A, self._system, self._loop, self._b, self._x, self._r = A, system, loop, b, x, r
        self._rows = system.rows
        # Directions are not freed of the null space one by one: the sum of them is, at the end.
        self._null_space = A.getNullSpace()
        self._norm = 0.0

    def start(self, nonzero_guess: bool) -> None:
        self._loop.restart()
        self._guess = self._x.copy() if nonzero_guess and self._null_space else None
        # What the first step takes the residual from; it leaves the next one in its box.
        source = self._b
        if not nonzero_guess:
            self._norm = float(self._b.norm())
        elif not self._loop.exact:
            self._residual()
            source = self._r
        if self._rows.copies:
            self._x_box, self._r_box, room = self._loop.boxes()
            if nonzero_guess:
                self._rows.to_box(self._x, self._x_box)
            self._now = self._rows.to_box(source, room)
        else:
            self._x_box, self._r_box = (v.getArray().reshape(self._rows.shape) for v in (self._x, self._r))
            self._now = self._rows.to_box(source)
        self._right = self._now
        finite = True
        if nonzero_guess and self._loop.exact:
            if self._system.dirichlet.size:
                self._right = self._now if self._rows.copies else self._loop.room()
                finite = self._system.without_dirichlet(self._A, self._x, self._now, self._right)
            self.true_residual()
            self._norm = self._norm if finite else np.nan
        if not np.isfinite(self._norm):
            self._r.set(0.0)  # its memory serves the next solve, too, which writes to active cells only

    def _residual(self) -> None:
        """r = b - A x with the matrix."""
        self._A.mult(self._x, self._r)
        self._r.aypx(-1.0, self._b)
        self._norm = float(self._r.norm())

    def true_residual(self) -> None:
        if self._loop.exact:
            # Dirichlet rows keep their values: what other rows have of them is in the right-hand side already.
            self._norm = self._loop.residual(self._x_box, self._right, self._r_box)
            self._touched()
        else:
            self.store()
            self._residual()
            if self._rows.copies:
                self._rows.to_box(self._r, self._r_box)
        self._now = self._r_box

    def norm(self) -> float:
        return self._norm

    def step(self) -> Outcome:
        found = self._loop.step(self._x_box, self._now, self._norm, self._r_box)
        self._norm, self._now = found.norm, self._r_box
        self._touched()
        return Outcome(found.energy, found.slope)

    def _touched(self) -> None:
        """The boxes have changed: where they are the vectors' own memory, PETSc has to know."""
        if not self._rows.copies:
            self._x.stateIncrease()
            self._r.stateIncrease()

    def store(self) -> None:
        if self._rows.copies:
            self._rows.from_box(self._x_box, self._x)
        if self._null_space:
            if self._guess is None:
                self._null_space.remove(self._x)
            else:
                self._x.axpy(-1.0, self._guess)
                self._null_space.remove(self._x)
                self._x.axpy(1.0, self._guess)
