"""The finest level of parts: the cells of a grid."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import numpy as np

from petsc_dcdm.backends.parts.levels import FOLLOWS, Part, axes_to_halve, kernels, weaken
from petsc_dcdm.grid.faces import all_but_first, all_but_last
from petsc_dcdm.native.binding import ALIGN
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.structures import mirrors

RING = 3
"""Planes of an iterate that a thread keeps; as in part_grid.c."""

LINE_ROOM = 25
"""Rows of numbers that a thread works with on the way to the next level; as in part_first.h."""


@mirrors("parts_grid")
class PartsGrid(ctypes.Structure):
    """parts_grid of part_grid.h."""

    _fields_ = [
        ("n", ctypes.c_int64 * 3),
        ("flat", ctypes.c_int64),
        ("pitch", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ("xy", "zs", "inverse", "part", "x", "rings")],
    ]


@mirrors("parts_box")
class PartsBox(ctypes.Structure):
    """parts_box of part_grid.h."""

    _fields_ = [("at", ctypes.c_void_p), ("pitch", ctypes.c_int64), ("plane", ctypes.c_int64)]


def most_couplings(parts: np.ndarray, halved: Sequence[int]) -> np.ndarray:
    """How many the parts of each block of cells have at most, uint8 (z, y, x), from how many there are in each: no more
    than pairs of them, or faces between blocks, of which there are two in each direction that is ``halved`` (x, y, z).
    """
    parts = parts.astype(np.uint8)
    most = parts * (parts - (parts > 0))
    for axis in range(3):
        faces = prod(1 + half for other, half in enumerate(halved) if other != axis)
        pairs = np.minimum(all_but_last(parts, axis) * all_but_first(parts, axis), np.uint8(faces))
        all_but_last(most, axis)[...] += pairs
        all_but_first(most, axis)[...] += pairs
    return most


class GridLevel:
    """Arrays of the level, and the structure that C sees.

    Parameters
    ----------
    w, s
        conductances of the low faces along x, y, z and extra diagonal, float64 (nz, ny, nx), all in memory alike and
        along x without gaps; not kept.
    team
        who works on it; it has w and s, and then ``threads`` are those of all of it

    Attributes
    ----------
    unknowns
        cells that have one
    part
        int32 (nz, ny, nx): the unknown of the next level that each cell belongs to, -1 for none
    halved
        0 or 1 along x, y, z: on the way there
    vector_size
        elements of an array over the cells and what lies beyond the end of their rows, with room around it
    """

    def __init__(
        self, w: Sequence[np.ndarray], s: np.ndarray, steps: int, threads: int, team: Workers = ONE_RANK
    ) -> None:
        nz, ny, nx = self.shape = s.shape
        self._flat, self._threads, self._team = nz == 1, threads, team
        n = (nx, 1, ny) if self._flat else (nx, ny, nz)
        faces = [w[0], None, w[1]] if self._flat else list(w)
        self._pitch = -(-nx // ALIGN) * ALIGN
        plane = n[1] * self._pitch
        self._size = n[2] * plane
        words = np.uint32, np.uint32, np.uint16
        self._xy, self._zs, self._inverse = (team.room(self._size + plane + ALIGN, word) for word in words)
        self.vector_size = self._size + 2 * ALIGN
        self._x = team.room(self.vector_size, np.float32)[ALIGN:]
        self.part = team.room(s.size, np.int32).reshape(s.shape)
        self._rings = team.zeros(threads * ((steps + 1) * RING * (ALIGN + plane) + ALIGN), np.float32)
        self.halved: tuple[int, ...] = (0, 0, 0)
        self.c = PartsGrid(flat=int(self._flat), pitch=self._pitch)
        self.c.n[:] = n
        self.c.xy, self.c.zs, self.c.inverse = (a.ctypes.data for a in (self._xy, self._zs, self._inverse))
        self.c.part, self.c.rings, self.c.x = (a.ctypes.data for a in (self.part, self._rings, self._x))
        pointers = (ctypes.c_void_p * 3)(*(None if face is None else face.ctypes.data for face in faces))
        plane, pitch, _ = (stride // s.itemsize for stride in s.strides)
        there = pointers, s.ctypes.data, pitch, pitch if self._flat else plane
        self.unknowns = kernels().dcdm_parts_fill_grid(ctypes.addressof(self.c), *there, threads)

    def box(self, array: np.ndarray) -> PartsBox:
        """float32 (nz, ny, nx or more), along x without gaps, for C; valid while the array lives."""
        plane, pitch, _ = (stride // array.itemsize for stride in array.strides)
        return PartsBox(at=array.ctypes.data, pitch=pitch, plane=pitch if self._flat else plane)

    def divide(self) -> Part | None:
        """The next level; None where there are no couplings."""
        k, seen, grid = kernels(), np.zeros(3), ctypes.addressof(self.c)
        k.dcdm_parts_grid_seen(grid, seen.ctypes.data)
        halved = axes_to_halve(self.c.n, seen.tolist())
        if not any(halved):
            return None
        sizes = [(n + 1) // 2 if half else n for n, half in zip(self.c.n, halved, strict=True)]
        c_halved, c_sizes = (ctypes.c_int64 * 3)(*halved), (ctypes.c_int64 * 3)(*sizes)
        first = self._team.room(prod(sizes) + 1, np.int64)
        room = self._team.room(self._threads * LINE_ROOM * (self._pitch + ALIGN), np.float32)
        to, work = first.ctypes.data, room.ctypes.data
        shapes, rest = (grid, c_halved, c_sizes), (FOLLOWS, to, work, self._threads)
        weaken(lambda together: k.dcdm_parts_grid_divide(*shapes, together, *rest), self.unknowns)
        self.halved = (halved[0], halved[2], 0) if self._flat else halved
        level = Part((sizes[0], sizes[2], 1) if self._flat else sizes, first, self._team)
        most = most_couplings(np.diff(first).reshape(sizes[::-1]), halved).reshape(-1, sizes[0])
        of_lines = self._team.room(len(most) + 1, np.int64)
        of_lines[0] = 0
        np.cumsum(most.sum(axis=1, dtype=np.int64), out=of_lines[1:])
        level.make_room(int(of_lines[-1]))
        k.dcdm_parts_grid_rows(grid, c_halved, level.c, of_lines.ctypes.data, work, self._threads)
        level.hold(int(level.row[-1]))
        return level
