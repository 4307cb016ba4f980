"""Levels as the cycle works on them: some of those that set-up has made, in slices of rows of like lengths."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from petsc_dcdm.backends.parts.grid import GridLevel
from petsc_dcdm.backends.parts.levels import Part, kernels
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.structures import mirrors

MOST_WORK, MOST_WORK_FLAT = 1.2, 2.0
"""A stage combines two directions if all its visits together take no more than this share of one of the finest level,
and in space `LESS` of that from stage to stage: where unknowns get fewer slowly, work would double with each of them.
With 0.8 for all a reservoir of 60 x 220 x 85 cells takes 16 iterations, with 1.2 it takes 9; noise of deviation 3 at
256^2 takes 22, 15, 12 with 0.6, 1 and 1.4, layers there 20 with 1.4 and 17 with 2."""

LESS = 0.75
"""With 1 the reservoir takes as many iterations, of 150 ms each and not 90; with 0.65 it takes 11, with 0.5 32."""

DENSE_MOST, DENSE = 1500, 50
"""Unknowns of the coarsest level up to which its inverse is made, a larger one is smoothed only; numbers of the inverse
that are as much work as an unknown of other levels."""

SLICE, WINDOW = 16, 1024
"""Rows that are worked on together, and that are sorted among themselves; as in part_cycle.h."""

SUMMED, STAGE_SUMS = 1024, 6
"""Unknowns that are summed up as one, and how many sums."""

_i64, _pointer = ctypes.c_int64, ctypes.c_void_p


@mirrors("parts_stage")
class PartsStage(ctypes.Structure):
    """parts_stage of part_cycle.h."""

    _fields_ = [
        ("n", _i64),
        *[(name, _pointer) for name in ("slice", "word", "base", "rest", "rest_column", "rest_value", "rest_lane")],
        *[(name, _pointer) for name in ("s", "inverse", "child_first", "child", "part")],
        ("twice", _i64),
        *[(name, _pointer) for name in ("x", "y", "r", "kept", "image")],
    ]


class Stage:
    """A level in the order of the cycle.

    Attributes
    ----------
    place
        int32 [n]: the number of each unknown of the level here
    part
        int32 [n, to the end of the last slice]: the unknown of the next stage that each leads to, -1 for none
    twice
        whether its solution combines two directions
    """

    def __init__(self, level: Part, threads: int, team: Workers) -> None:
        self.n, self.twice, self._team = level.n, False, team
        slices = -(-level.n // SLICE)
        self.place = team.room(level.n, np.int32)
        self.slice, self.rest = (team.room(slices + 1, np.int64) for _ in range(2))
        c, k = level.c, kernels()
        self.base = team.room(-(-level.n // WINDOW), np.int32)
        arrays = self.place, self.base, self.slice, self.rest
        k.dcdm_parts_order(c, *(array.ctypes.data for array in arrays), threads)
        left = int(self.rest[-1])
        self.word = team.room(int(self.slice[-1]), np.uint32)
        self.rest_column, self.rest_value = team.room(left, np.int32), team.room(left, np.float32)
        self.rest_lane = team.room(left, np.uint8)
        whole = slices * SLICE
        self.s, self.inverse, self.x, self.y, self.r = (team.room(whole, np.float32) for _ in range(5))
        self.r[level.n :] = 0
        self.kept = self.image = np.empty(0, np.float32)
        self.part = np.empty(0, np.int32)
        self.child_first = self.child = self.part
        stage = self.c  # which has to live as long as the call
        k.dcdm_parts_pack(c, self.place.ctypes.data, ctypes.addressof(stage), threads)

    @property
    def unknown(self) -> np.ndarray:
        """The unknown of the level that each is, int32 [n]."""
        return np.argsort(self.place)

    @property
    def c(self) -> PartsStage:
        """For C; valid while the arrays are those of now."""
        stage = PartsStage(n=self.n, twice=int(self.twice))
        for name, kind in ((field[0], field[1]) for field in stage._fields_):
            if kind is _pointer:
                setattr(stage, name, getattr(self, name).ctypes.data)
        return stage

    def combine(self) -> None:
        """From now on the solution is of two directions."""
        self.twice = True
        self.kept, self.image = (self._team.room(self.s.size, np.float32) for _ in range(2))

    def stand_for(self, part: np.ndarray) -> None:
        """Take unknowns of the stage above that lead here, by their ``part``, int32."""
        self.child_first, self.child = self._team.room(self.n + 1, np.int32), self._team.room(part.size, np.int32)
        pointers = (array.ctypes.data for array in (self.child_first, self.child))
        kernels().dcdm_parts_collect(part.size, part.ctypes.data, self.n, *pointers)


def stages_of(grid: GridLevel, levels: Sequence[Part], threads: int, team: Workers = ONE_RANK) -> list[Stage]:
    """The stages of a cycle below a grid, whose `GridLevel.part` leads to the first of them from now on."""
    stages = [Stage(level, threads, team) for level in levels]
    for level, here, below in zip(levels, stages, stages[1:], strict=False):
        here.part = team.room(here.s.size, np.int32)
        here.part[here.n :] = -1
        _lead(level.part, here.place, below.place, here.part, threads)
        below.stand_for(here.part[: here.n])
    if stages:
        _lead(grid.part, None, stages[0].place, grid.part, threads)
    flat = bool(levels) and levels[0].blocks[2] == 1
    most = (MOST_WORK_FLAT if flat else MOST_WORK) * grid.unknowns
    last = stages[-1].n ** 2 / DENSE if stages and stages[-1].n <= DENSE_MOST else 0.0
    times = 1
    for stage in stages[:-1]:
        if 2 * times * max(stage.n, last) <= most:
            stage.combine()
        times *= 1 + stage.twice
        most *= 1.0 if flat else LESS
    return stages


def _lead(part: np.ndarray, place: np.ndarray | None, next_: np.ndarray, to: np.ndarray, threads: int) -> None:
    """Where unknowns at their ``place`` (None: their number) lead to, by their ``part`` and the places of those."""
    own = None if place is None else place.ctypes.data
    pointers = (part.ctypes.data, next_.ctypes.data, to.ctypes.data)
    kernels().dcdm_parts_lead(part.size, own, *pointers, threads)
