"""The finest level of parts: the cells of a grid."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import numpy as np

from petsc_dcdm.backends.parts.levels import FOLLOWS, FOLLOWS_FLAT, Part, axes_to_halve, kernels, weaken
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.native.structures import mirrors

RING = 4
"""Planes of an iterate that a thread keeps; as in part_grid.c."""


@mirrors("parts_grid")
class PartsGrid(ctypes.Structure):
    """parts_grid of part_grid.h."""

    _fields_ = [
        ("n", ctypes.c_int64 * 3),
        ("flat", ctypes.c_int64),
        ("w", ctypes.c_void_p * 3),
        *[(name, ctypes.c_void_p) for name in ("s", "inverse", "part", "x", "y", "r", "rings")],
    ]


class GridLevel:
    """Arrays of the level, and the structure that C sees.

    Parameters
    ----------
    w, s
        conductances of the low faces along x, y, z and extra diagonal, float64 and contiguous (nz, ny, nx); not kept.

    Attributes
    ----------
    unknowns
        cells that have one
    part
        int32 (nz, ny, nx): the unknown of the next level that each cell belongs to, -1 for none
    halved
        0 or 1 along x, y, z: on the way there
    """

    def __init__(self, w: Sequence[np.ndarray], s: np.ndarray, steps: int, threads: int) -> None:
        nz, ny, nx = s.shape
        self._flat, self._threads = nz == 1, threads
        n = (nx, 1, ny) if self._flat else (nx, ny, nz)
        faces = [w[0], None, w[1]] if self._flat else list(w)
        padded = (n[0] + 2) * (n[1] + 2)
        self._arrays = [aligned_zeros(padded * (n[2] + 2), np.float32) for _ in range(5)]
        self.r, self.x, self.y = (aligned_zeros(s.size, np.float32) for _ in range(3))
        self.part = np.full(s.shape, -1, np.int32)
        self._rings = aligned_zeros(threads * (steps + 1) * RING * padded, np.float32)
        self.halved: tuple[int, ...] = (0, 0, 0)
        self.c = PartsGrid(flat=int(self._flat))
        self.c.n[:] = n
        self.c.w[:] = [a.ctypes.data for a in self._arrays[:3]]
        self.c.s, self.c.inverse = (a.ctypes.data for a in self._arrays[3:])
        self.c.part, self.c.rings = self.part.ctypes.data, self._rings.ctypes.data
        self.c.x, self.c.y, self.c.r = (a.ctypes.data for a in (self.x, self.y, self.r))
        pointers = (ctypes.c_void_p * 3)(*(None if face is None else face.ctypes.data for face in faces))
        kernels().dcdm_parts_fill_grid(ctypes.addressof(self.c), pointers, s.ctypes.data, threads)
        self.unknowns = int(np.count_nonzero(self._arrays[4]))

    def divide(self) -> Part | None:
        """The next level; None where there are no couplings."""
        k, seen, grid = kernels(), np.zeros(3), ctypes.addressof(self.c)
        k.dcdm_parts_grid_seen(grid, seen.ctypes.data)
        halved = axes_to_halve(self.c.n, seen.tolist())
        if not any(halved):
            return None
        sizes = [(n + 1) // 2 if half else n for n, half in zip(self.c.n, halved, strict=True)]
        c_halved, c_sizes = (ctypes.c_int64 * 3)(*halved), (ctypes.c_int64 * 3)(*sizes)
        first, part = np.empty(prod(sizes) + 1, np.int64), self.part.ctypes.data
        to, follows = first.ctypes.data, FOLLOWS_FLAT if self._flat else FOLLOWS
        shapes, rest = (grid, c_halved, c_sizes), (follows, part, to, self._threads)
        weaken(lambda together: k.dcdm_parts_grid_divide(*shapes, together, *rest), self.unknowns, self._flat)
        self.halved = (halved[0], halved[2], 0) if self._flat else halved
        level = Part((sizes[0], sizes[2], 1) if self._flat else sizes, first)
        k.dcdm_parts_grid_rows(grid, c_halved, level.c, 1, self._threads)
        level.begin_rows()
        k.dcdm_parts_grid_rows(grid, c_halved, level.c, 0, self._threads)
        return level
