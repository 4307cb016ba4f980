"""Two ways to take the steps of the method: on PETSc's vectors with any matrix and preconditioner, or on the grid.

Both hold x and r and hide where they live; :class:`petsc_dcdm.KSP` decides when to stop. On the grid the matrix is
replaced by the stencil that the preconditioner has extracted from it and a step makes two passes over memory. True
residuals are taken with the matrix, or with the stencil where set-up has found every entry of the matrix in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any, NamedTuple, Protocol

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.backends.base import Loop
from petsc_dcdm.solver.device_vectors import VecBox, on_gpu
from petsc_dcdm.solver.loop.constant_mode import ConstantMode
from petsc_dcdm.solver.loop.scaled_rows import Weights
from petsc_dcdm.stencil.fixed import FixedRows
from petsc_dcdm.stencil.known_values import box_without_dirichlet, rows_without_dirichlet
from petsc_dcdm.stencil.system import GridSystem


class Outcome(NamedTuple):
    """d . A d of the direction and r . d before the step; where one is 0 or not finite no step was taken."""

    energy: float
    slope: float


class Steps(Protocol):
    """All methods are collective."""

    @property
    def far(self) -> bool:
        """Whether x lives elsewhere than in the vector of the Krylov solver, so that `store` takes its time."""

    def start(self, nonzero: bool) -> None:
        """Take b and x from the Krylov solver, where x is 0 unless ``nonzero``; r = b - A x."""

    def step(self) -> Outcome:
        """One direction, one exact line search along it: x and r move."""

    def norm(self) -> float:
        """The norm of r that is tested."""

    def true_residual(self) -> None:
        """Replace r by b - A x, with x freed of the null space, and exact in the fixed rows, where r is 0."""

    def store(self, freed: bool = True) -> None:
        """Bring x to the vector of the Krylov solver, ``freed`` of the null space."""


SWEEPS = 3
"""Corrections of the unknowns that penalties fix, each of which leaves 1e-6 of the error."""


@dataclass(frozen=True)
class System:
    """What is solved: ``mult(x, r)`` is A x or A' x, ``null_space`` one of that which was attached, or None; in the
    inner product u . W v of ``weights`` the matrix is symmetric, in the usual one if they are None.
    """

    mult: Callable[[PETSc.Vec, PETSc.Vec], None]
    b: PETSc.Vec
    x: PETSc.Vec
    fixed: FixedRows
    null_space: PETSc.NullSpace | None
    constants: ConstantMode | None = None
    weights: Weights | None = None

    def residual(self, r: PETSc.Vec) -> None:
        """r = b - A x, after x has been made exact in the fixed rows, where r is 0, and along nearly null constants.
        Collective.
        """
        self._residual(r)
        for _ in range(SWEEPS):
            if not self.fixed.correct(r, self.x):
                break
            self._residual(r)
        if self.fixed.certain:
            self.fixed.clear(r)
        if self.constants is not None and self.constants.correct(r, self.x):
            self._residual(r)
            self.fixed.clear(r)

    def _residual(self, r: PETSc.Vec) -> None:
        self.mult(self.x, r)
        r.aypx(-1.0, self.b)


class VectorSteps:
    """Steps on PETSc's vectors. Three reductions a step: all d . A p_i, (d . A d, r . d), and |r|."""

    far = False

    def __init__(
        self, system: System, pc: PETSc.PC, work: list[PETSc.Vec], history: int, natural: bool = False
    ) -> None:
        """``work`` holds r, ``history + 1`` pairs of d and W A d, and where the system has weights W one vector more.

        natural: the norm is sqrt(W r . d), of the direction that is taken next; else it is |r|.
        """
        self._system, self._pc, self._natural = system, pc, natural
        self._r = work[0]
        self._weighted = work[-1] if system.weights is not None else None
        pairs = work[1:] if self._weighted is None else work[1:-1]
        self._free = list(zip(pairs[::2], pairs[1::2], strict=True))
        self._before: deque[tuple[PETSc.Vec, PETSc.Vec, float]] = deque()
        self._history = history
        self._next: tuple[PETSc.Vec, PETSc.Vec] | None = None

    def start(self, nonzero: bool) -> None:
        if nonzero:
            self.true_residual()
        else:
            self._system.b.copy(self._r)

    def true_residual(self) -> None:
        if self._next is not None:
            self._free.append(self._next)
            self._next = None
        self._system.residual(self._r)

    def norm(self) -> float:
        if not self._natural:
            return float(self._r.norm())
        d, _ = self._direction()
        return float(np.sqrt(abs(self._r.dot(self._weigh(d)))))

    def _weigh(self, d: PETSc.Vec) -> PETSc.Vec:
        """W d, in memory that the next call overwrites; d itself where W is 1."""
        if self._weighted is None or self._system.weights is None:
            return d
        d.copy(self._weighted)
        self._system.weights.apply(self._weighted)
        return self._weighted

    def _direction(self) -> tuple[PETSc.Vec, PETSc.Vec]:
        """The preconditioned residual, and room for A times it."""
        if self._next is None:
            self._next = d, _ = self._free.pop()
            weights = self._system.weights
            (self._pc.applyTranspose if weights is not None and weights.transposed else self._pc.apply)(self._r, d)
            if self._system.null_space:
                self._system.null_space.remove(d)
            if self._system.constants is not None:
                self._system.constants.remove(d)
            self._system.fixed.clear(d)
        return self._next

    def step(self) -> Outcome:
        r = self._r
        d, Ad = self._direction()
        self._next = None
        if self._before:
            betas = _dots(d, [Ap for _, Ap, _ in self._before])
            scales = [-beta / pAp for beta, (_, _, pAp) in zip(betas, self._before, strict=True)]
            d.maxpy(scales, [p for p, _, _ in self._before])
        self._system.mult(d, Ad)
        self._system.fixed.clear(Ad)
        energy, slope = _dots(self._weigh(d), [Ad, r])
        if not np.isfinite(energy * slope) or energy == 0.0 or slope == 0.0:
            self._free.append((d, Ad))
            return Outcome(energy, slope)
        alpha = slope / energy
        self._system.x.axpy(alpha, d)
        r.axpy(-alpha, Ad)
        if self._system.weights is not None:
            self._system.weights.apply(Ad)
        self._before.append((d, Ad, energy))
        if len(self._before) > self._history:
            self._free.append(self._before.popleft()[:2])
        return Outcome(energy, slope)

    def store(self, freed: bool = True) -> None:
        """x is in its place already, and every direction was freed of the null space."""


def _dots(d: PETSc.Vec, vecs: list[PETSc.Vec]) -> list[float]:
    """d . v of every vector in one reduction. Collective. (Vec.mDot is not implemented in petsc4py 3.18.)"""
    for vec in vecs:
        d.dotBegin(vec)
    return [d.dotEnd(vec) for vec in vecs]


class GridSteps:
    """Steps on the boxes of the grid, by the loop of a backend.

    x and r are the vectors' own memory where the rows are the box, buffers elsewhere. Of A = D S the loop has S and the
    residual D^-1 r, whose norm it needs; that of r, which is tested, is taken beside it.
    """

    def __init__(
        self, A: PETSc.Mat, grid: GridSystem, loop: Loop, system: System, vectors: Callable[[int], list[PETSc.Vec]]
    ) -> None:
        """``grid`` and ``loop`` are the preconditioner's, of ``A``; ``vectors`` gives so many work vectors."""
        self._A, self._grid, self._loop, self._system, self._vectors = A, grid, loop, system, vectors
        self._rows = grid.rows
        self.far = loop.on_device or grid.rows.copies
        self._x = system.x
        self._norm = self._scaled_norm = 0.0

    @cached_property
    def _r(self) -> PETSc.Vec:
        """Made when it is wanted: where the loop has a copy, few solves look at it. Collective."""
        return self._vectors(1)[0]

    def start(self, nonzero: bool) -> None:
        # What the first step takes the residual from; it leaves the next one in its box.
        source = self._system.b
        # Directions are not freed of the null space one by one: the sum of them is, when x is looked at.
        self._guess = self._x.copy() if nonzero and self._system.null_space else None
        self._loose, self._stored = False, True
        self._exact = self._loop.exact
        # What Dirichlet values add to other rows leaves b once.
        apart = nonzero and self._exact and self._system.fixed.anywhere
        finite = True
        if not nonzero and self._grid.factors is None:
            self._norm = float(source.norm())
        elif not nonzero:
            source.copy(self._r)
            source = self._r
            self._measure()
        elif not self._exact:
            self._residual()
            source = self._r
        elif apart and self._grid.shares:  # whose boxes have no room for two right-hand sides
            finite = rows_without_dirichlet(self._grid, self._A, self._x, source, self._r)
            source = self._r
        self._x_box: Any
        self._r_box: Any
        if self._rows.copies:
            filled = self._x.getSize() == self._rows.cells
            self._x_box, self._r_box, spare = self._loop.boxes(filled)
            if nonzero:
                self._rows.to_box(self._x, self._x_box)
            first: Any = self._rows.to_box(source, spare)
        elif self._loop.on_device and on_gpu(self._x):
            self._x_box, self._r_box, first = (VecBox(v, self._rows.shape) for v in (self._x, self._r, source))
        else:
            self._x_box, self._r_box = (v.getArray().reshape(self._rows.shape) for v in (self._x, self._r))
            first = self._rows.to_box(source)
        self._right = first
        if apart and not self._grid.shares:
            first = first if self._rows.copies else self._rows.to_box(source)
            self._right = first if self._rows.copies else self._loop.spare_box()
            finite = box_without_dirichlet(self._grid, self._A, self._x, first, self._right)
        self._loop.start(self._x_box, self._r_box, self._right, guess=nonzero)
        if nonzero and self._exact:
            self.true_residual()
            self._norm = self._norm if finite else np.nan
        if not self._rows.copies and not isfinite(self._norm):
            self._r.set(0.0)  # its memory serves the next solve, too, which writes to active cells only

    def _residual(self) -> None:
        """r = b - A x with the matrix."""
        self._system.residual(self._r)
        self._measure()

    def _measure(self) -> None:
        """The norm of r, which then is what the loop has of it."""
        self._norm = float(self._r.norm())
        if self._grid.factors is not None:
            self._grid.factors.divide(self._r)
            self._scaled_norm = float(self._r.norm())

    def true_residual(self) -> None:
        if self._loose or not self._exact:
            self.store()
        if self._exact:
            # Dirichlet rows keep their values: what other rows have of them is in the right-hand side already.
            self._norm = self._loop.residual(self._right)
            self._touched()
        else:
            self._residual()
            if self._rows.copies:
                self._rows.to_box(self._x, self._x_box)
                self._rows.to_box(self._r, self._r_box)
            self._loop.load(residual=True)

    def norm(self) -> float:
        return self._norm

    def step(self) -> Outcome:
        if not self._norm:
            return Outcome(0.0, 0.0)
        if self._grid.factors is None:
            found = self._loop.step(self._norm)
            self._norm = found.norm
        else:
            found = self._loop.step(self._scaled_norm)
            if found.taken:
                self._scaled_norm, self._norm = found.norm, self._grid.norm_of_scaled(self._r_box)
        self._loose, self._stored = self._system.null_space is not None, False
        self._touched()
        return Outcome(found.energy, found.slope)

    def _touched(self) -> None:
        """The boxes have changed: where they are the vectors' own memory, PETSc has to know."""
        if not self._rows.copies:
            self._x.stateIncrease()
            self._r.stateIncrease()

    def store(self, freed: bool = True) -> None:
        if not self._stored:
            self._loop.store()
            if self._rows.copies:
                self._rows.from_box(self._x_box, self._x)
            self._stored = True
        if not freed or not self._loose or self._system.null_space is None:
            return
        if self._guess is None:
            self._system.null_space.remove(self._x)
        else:
            self._x.axpy(-1.0, self._guess)
            self._system.null_space.remove(self._x)
            self._x.axpy(1.0, self._guess)
        if self._rows.copies:
            self._rows.to_box(self._x, self._x_box)
        self._loop.load(residual=False)
        self._loose = False
