"""The finest level of parts: the cells of a grid."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from petsc_dcdm.backends.parts.levels import Part, kernels
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
        ("halved", ctypes.c_int64),
        ("w", ctypes.c_void_p * 3),
        *[(name, ctypes.c_void_p) for name in ("s", "inverse", "part", "x", "y", "r", "rings")],
    ]


class GridLevel:
    """Arrays of the level, and the structure that C sees.

    Parameters
    ----------
    w, s
        as for `petsc_dcdm.backends.parts.levels.finest`; not kept.
    level
        the same level as a sparse matrix, divided already; its rows are not needed any more.
    """

    def __init__(self, w: Sequence[np.ndarray], s: np.ndarray, level: Part, steps: int, threads: int) -> None:
        nz, ny, nx = s.shape
        flat = nz == 1
        n = (nx, 1, ny) if flat else (nx, ny, nz)
        faces = [w[0], None, w[1]] if flat else list(w)
        padded = (n[0] + 2) * (n[1] + 2)
        self._arrays = [aligned_zeros(padded * (n[2] + 2), np.float32) for _ in range(5)]
        self.r, self.x, self.y = (aligned_zeros(s.size, np.float32) for _ in range(3))
        self._part = level.part
        if level.n < s.size:
            self._part = np.full(s.size, -1, np.int32)
            self._part[level.block] = level.part if level.part.size else -1
        elif not level.part.size:
            self._part = np.full(s.size, -1, np.int32)
        self._rings = aligned_zeros(threads * ((steps + 1) * RING * padded + n[0]), np.float32)
        self.c = PartsGrid(flat=int(flat), halved=level.halved[1 if flat else 2])
        self.c.n[:] = n
        self.c.w[:] = [a.ctypes.data for a in self._arrays[:3]]
        self.c.s, self.c.inverse = (a.ctypes.data for a in self._arrays[3:])
        self.c.part, self.c.rings = self._part.ctypes.data, self._rings.ctypes.data
        self.c.x, self.c.y, self.c.r = (a.ctypes.data for a in (self.x, self.y, self.r))
        pointers = (ctypes.c_void_p * 3)(*(None if face is None else face.ctypes.data for face in faces))
        kernels().dcdm_parts_fill_grid(ctypes.addressof(self.c), pointers, s.ctypes.data, threads)
