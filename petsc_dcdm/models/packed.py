"""Stencils of voxel geometry, one byte a cell: every conductance along an axis is 0 or the same, s takes few values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petsc_dcdm.models.kernels.binding import kernels

HAS_S = 64


@dataclass
class PackedStencil:
    """The stencil of this rank's box with a halo of one cell.

    cells    uint8 (nz + 2, ny + 2, nx + 2), C-contiguous: bits 0 .. 5 where the low and the high face along x, y, z
             conducts, HAS_S where the cell has an s; 0 at inactive cells
    s_index  uint8, of the same shape: which of the `s_value`, where HAS_S is set
    c        conductance along x, y, z
    s_value  float64 [256]
    """

    cells: np.ndarray
    s_index: np.ndarray
    c: tuple[float, float, float]
    s_value: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the box, without the halo."""
        nz, ny, nx = self.cells.shape
        return (nz - 2, ny - 2, nx - 2)

    def scaled(self, factor: float) -> PackedStencil:
        """The same stencil times `factor` > 0; the arrays of cells are shared."""
        x, y, z = (float(c) * factor for c in self.c)
        return PackedStencil(self.cells, self.s_index, (x, y, z), self.s_value * factor)

    def arrays(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Low conductances along x, y, z and s as padded float64 arrays, for whoever can not use the packed form."""
        w = [np.where(self.cells & (1 << 2 * axis), self.c[axis], 0.0) for axis in range(3)]
        return w, np.where(self.cells & HAS_S, self.s_value[self.s_index], 0.0)


def pack(w: Sequence[np.ndarray], s: np.ndarray, threads: int = 1) -> PackedStencil | None:
    """Padded C-contiguous float64 arrays, packed if they can be; the halo of w on the high side is valid."""
    nz, ny, nx = (n - 2 for n in s.shape)
    c = np.array([float(a[1:-1, 1:-1, 1:-1].max(initial=0.0)) for a in w])
    packed = PackedStencil(np.zeros(s.shape, np.uint8), np.zeros(s.shape, np.uint8), (c[0], c[1], c[2]), np.zeros(256))
    pitch_y, pitch_z = nx + 2, (nx + 2) * (ny + 2)
    first = pitch_z + pitch_y + 1
    fits = kernels().dcdm_pack(
        *(a.ctypes.data + 8 * first for a in (*w, s)),
        c.ctypes.data,
        nx,
        ny,
        nz,
        pitch_y,
        pitch_z,
        packed.cells.ctypes.data + first,
        packed.s_index.ctypes.data + first,
        packed.s_value.ctypes.data,
        threads,
    )
    return packed if fits else None
