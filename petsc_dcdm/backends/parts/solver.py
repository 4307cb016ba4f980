"""The solver of a coarsest system on levels of parts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from petsc_dcdm.backends.cpu.sources import alike
from petsc_dcdm.backends.parts.grid import GridLevel
from petsc_dcdm.backends.parts.levels import Part, kernels, levels_below
from petsc_dcdm.backends.parts.stages import DENSE_MOST, STAGE_SUMS, SUMMED, PartsStage, stages_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers

STEPS, STEPS_BELOW = 6, 2
"""Of the polynomial before and after each correction, on the grid and on the levels below it: even, so that iterates
end where they were. Steps on the grid take a small part of the time of those on as many unknowns in rows: four of both
took one or two iterations fewer and twice the time."""

SPECTRUM, SPECTRUM_BELOW = (0.3, 1.95), (0.25, 1.95)
"""Eigenvalues of the matrix over its diagonal that the polynomial damps, on the grid and below; none is larger than 2.
Smaller ones are those of the coarse cells. From 0.15 on, on the grid, a twentieth of single stiff cells takes 13
iterations (64^3, with a smooth right-hand side 16) instead of 9 (12), layers at 256^2 21 instead of 12."""

WELL, MOST_CYCLES = 0.05, 8
"""Of `PartsSolver.solve_well`, the second as in part_well.c. Jumps of 1 : 1000 at 128^3 do not converge if two learned
levels get one cycle; exact solutions save no more iterations than this does."""

SUMS = MOST_CYCLES + 3
"""Of a plane, as in part_well.c."""

FLOATING = 1e-7
"""Share of the extra diagonal in that of a connected part of the coarsest level from which on it counts."""


class PartsSolver:
    """An approximate inverse of the operator of a grid: one K-cycle.

    Parameters
    ----------
    grid
        the finest level, by :func:`finest_level` for as many threads of the same team
    threads
        OpenMP threads, those of all ranks of a team.
    team
        who works on it: set-up and solutions are kernels of `Workers.do`, right-hand sides and what becomes of them
        are in its memory.

    Attributes
    ----------
    unknowns
        of each level, the finest first
    grid, stages
        the finest level, and those below it that the cycle visits

    Homogeneous, not quite linear: most levels below the finest combine two directions. Raises KernelsUnavailable where
    there is no compiler. Not collective.
    """

    def __init__(self, grid: GridLevel, threads: int, team: Workers = ONE_RANK) -> None:
        self._threads, self._team = threads, team
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None
        self.grid = grid
        first = self.grid.divide()
        levels = [] if first is None else levels_below(first, threads, team)
        self.stages = stages_of(self.grid, levels, threads, team)
        self.unknowns = [self.grid.unknowns, *(stage.n for stage in self.stages)]
        self._inverse: np.ndarray | None = None
        if levels and levels[-1].n <= DENSE_MOST:
            inverse = _inverse(levels[-1])[np.ix_(*2 * [self.stages[-1].unknown])]
            self._inverse = team.room(inverse.size, np.float32)
            self._inverse[:] = inverse.ravel()
        self._c = (PartsStage * len(self.stages)).from_buffer(
            team.room(len(self.stages) * ctypes.sizeof(PartsStage), np.uint8).data
        )
        for i, stage in enumerate(self.stages):
            self._c[i] = stage.c
        self._omegas = team.room(STEPS + STEPS_BELOW, np.float32)
        self._omegas[:] = np.concatenate((omegas(STEPS, *SPECTRUM), omegas(STEPS_BELOW, *SPECTRUM_BELOW)))
        self._sums = team.zeros(STAGE_SUMS * (max(self.unknowns) // SUMMED + 1), np.float64)

    def solve(self, r: np.ndarray, out: np.ndarray) -> None:
        """``out`` for the right-hand side ``r`` by one cycle, 0 at inactive cells; each float32 (nz, ny, nx), along x
        without gaps.
        """
        kernels().dcdm_parts_solve(*self._cycle(r, out), self._threads)

    def solve_well(self, r: np.ndarray, out: np.ndarray) -> None:
        """The same by as many cycles as it takes to reduce the residual to `WELL` of ``r``, at most `MOST_CYCLES`, each
        direction made conjugate to those before. For hierarchies that count on an exact solution. ``r`` and ``out`` may
        be one array.
        """
        if self._vectors is None:
            size = (2 * MOST_CYCLES + 1) * self.grid.vector_size
            self._vectors = self._team.room(size, np.float32), self._team.room(self.grid.c.n[2] * SUMS, np.float64)
        room = [array.ctypes.data for array in self._vectors]
        kernels().dcdm_parts_solve_well(*self._cycle(r, out), *room, WELL, self._threads)

    def _cycle(self, r: np.ndarray, out: np.ndarray) -> tuple[object, ...]:
        """What kernels want of the levels, and of the arrays that they go from and to."""
        places = (ctypes.byref(c) for c in (self.grid.c, self.grid.box(r), self.grid.box(out), self._c))
        inverse = None if self._inverse is None else self._inverse.ctypes.data
        rest = self._omegas.ctypes.data, STEPS, STEPS_BELOW, self._sums.ctypes.data
        return *places, len(self._c), inverse, *rest


def finest_level(w: Sequence[np.ndarray], s: np.ndarray, threads: int, team: Workers = ONE_RANK) -> GridLevel:
    """For `PartsSolver`: conductances of the low faces along x, y, z, and extra diagonal, float64 (nz, ny, nx), not
    kept. A cell is an unknown where any of them, or the high face of a neighbour, is positive.
    """
    *w, s = alike([*w, s], team, np.float64)
    return GridLevel(w, s, STEPS, threads, team)


def omegas(steps: int, low: float, high: float) -> np.ndarray:
    """float32 [steps]: weights of x + omega D^-1 (r - A x), one over the zeros of the Chebyshev polynomial on
    [low, high]; neighbours in it far from one another, so that nothing grows much in between.
    """
    angle = np.pi * (np.arange(steps) + 0.5) / steps
    zeros = (high + low) / 2 + (high - low) / 2 * np.cos(angle)
    order = np.arange(steps).reshape(2, -1).T.ravel() if steps % 2 == 0 else np.arange(steps)
    return (1.0 / zeros[order]).astype(np.float32)


def _inverse(level: Part) -> np.ndarray:
    """float32 (n, n). Where nothing holds a connected part its first unknown is held: that is exact for right-hand
    sides that have a solution, up to a constant.
    """
    n = level.n
    rows = np.repeat(np.arange(n), np.diff(level.row))
    A = np.zeros((n, n))
    A[rows, level.column] = -level.value.astype(float)
    A = (A + A.T) / 2
    weight = -A.sum(axis=1)
    diagonal, s = weight + level.s[:n], level.s[:n]
    label = np.arange(n)
    while True:
        before = label.copy()
        np.minimum.at(label, rows, label[level.column])
        if np.array_equal(before, label):
            break
    held, total = (np.bincount(label, values, minlength=n) for values in (s, diagonal))
    floating = np.flatnonzero((label == np.arange(n)) & (held <= FLOATING * total))
    extra = np.zeros(n)
    extra[floating] = np.where(diagonal[floating] > 0, diagonal[floating], 1.0)
    A[np.arange(n), np.arange(n)] = diagonal + extra
    return _inverted(A).astype(np.float32)


def _inverted(A: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix, by halves: nearly all of it is products of matrices, which
    takes a fifth of the time of LAPACK's elimination.
    """
    n = A.shape[0]
    if n <= 96:
        return np.linalg.inv(A)
    first, last = slice(0, n // 2), slice(n // 2, n)
    before = _inverted(A[first, first])
    share = before @ A[first, last]
    rest = _inverted(A[last, last] - A[last, first] @ share)
    found = np.empty_like(A)
    found[last, last] = rest
    found[first, last] = -share @ rest
    found[last, first] = found[first, last].T
    found[first, first] = before - found[first, last] @ share.T
    return found
