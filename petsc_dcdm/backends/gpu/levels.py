"""The levels of a network as the kernels see them: arrays on a device, and how cells are shared out among programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from petsc_dcdm.grid.shape import Shape

ENDLESS = 2**30 + 1
"""The length of what is no ring: no array goes round it."""

PITCH = 64
"""Arrays have room for a multiple of so many cells: their addresses are aligned, whichever field they hold."""


@dataclass(frozen=True)
class Blocks:
    """How many cells a program works on at a time, powers of 2, how many programs share out a sum over the grid, and
    rows of the coarse inverse.

    The number of programs decides in which order sums are taken, and so their last digits. ``fit``: fewer cells where
    there are fewer, which is another kernel to a compiler but not to an interpreter.
    """

    cycle: int = 256
    network: int = 128
    outer: int = 128
    sums: int = 2048
    rows: int = 8
    fit: bool = False

    @staticmethod
    def of(device: torch.device) -> Blocks:
        """Those for a device. Triton's interpreter takes long for a program, however few cells that has."""
        return Blocks() if device.type != "cpu" else Blocks(8192, 1024, 8192, 4, 1024, fit=True)

    def tiling(self, shape: Sequence[int], block: int) -> Tiling:
        """How the cells of a box (nz, ny, nx) are shared out among blocks of that size."""
        return tiling(shape, self._fitting(prod(shape), block))

    def columns(self, shape: Sequence[int]) -> Columns:
        """How the columns of a box (nz, ny, nx) are shared out in the outer steps."""
        return columns(shape, self._fitting(prod(shape[1:]), self.outer), self.sums)

    def _fitting(self, cells: int, block: int) -> int:
        return min(block, max(16, 1 << (cells - 1).bit_length())) if self.fit else block


@dataclass(frozen=True)
class Tiling:
    """Tiles of 2^bx x 2^by cells along x and y, and what is left of a block along z."""

    block: int
    bx: int
    by: int
    tiles: int


def tiling(shape: Sequence[int], block: int) -> Tiling:
    """Rows of up to 64 cells, as memory is read in; the rest of the block as much of a cube as the grid allows."""
    left = block.bit_length() - 1
    log = [max(0, int(n) - 1).bit_length() for n in shape]
    bx = min(left, log[2], 6)
    left -= bx
    bz = min(left // 2, log[0])
    by = min(left - bz, log[1])
    bz = min(left - by, log[0])
    bx += left - by - bz
    bz = block.bit_length() - 1 - bx - by
    sizes = zip(shape, (bz, by, bx), strict=True)
    return Tiling(block, bx, by, prod(-(-int(n) >> b) if n else 0 for n, b in sizes))


@dataclass(frozen=True)
class Columns:
    """Tiles in the plane, 2^bx columns along x in each, which programs walk through along z, some planes at a time."""

    block: int
    bx: int
    tiles: int
    planes: int
    walks: int


def columns(shape: Sequence[int], block: int, programs: int) -> Columns:
    """For a box (nz, ny, nx). Walks are as long as leaves one for every program, but no shorter than 8 planes: the
    first plane of a walk is read twice.
    """
    nz, ny, nx = (int(n) for n in shape)
    log = block.bit_length() - 1
    bx = min(log, 6, max(0, nx - 1).bit_length())
    bx = max(bx, log - max(0, ny - 1).bit_length())
    tiles = -(-nx >> bx) * -(-ny >> log - bx)
    planes = min(32, max(8, tiles * nz // programs))
    return Columns(block, bx, tiles, planes, tiles * -(-nz // planes))


@dataclass
class Level:
    """A level on this rank: its box and some cells of the boxes around it, see `petsc_dcdm.backends.gpu.setup`.

    Attributes
    ----------
    shape
        cells (z, y, x) of the arrays, which are flat
    low
        how many of them lie below this rank's box; `size` has the box itself
    ring
        1 along axes (z, y, x) whose first and last cell are neighbours within the arrays
    axes
        coarsened on the way to the next level
    parents
        cells (z, y, x) of the next level's arrays, and where in them the parent of cell (0, 0, 0) is
    first, length
        along axes (z, y, x) on which a ring of an odd number of cells is cut and halved: the cell of the ring that cell
        0 of the arrays is, and how many there are; 0 and `ENDLESS` elsewhere
    packed, stencil
        the four arrays of `petsc_dcdm.backends.gpu.kernels.grid`
    omega
        a bfloat16 array for every smoothing step: weights over the diagonal, 0 at inactive cells
    x, y, r
        float32: two iterates that take turns, and the right-hand side
    """

    shape: Shape
    low: Shape
    size: Shape
    ring: tuple[int, int, int]
    axes: tuple[int, ...]
    parents: tuple[Shape, Shape]
    first: Shape = (0, 0, 0)
    length: Shape = (ENDLESS, ENDLESS, ENDLESS)
    packed: bool = False
    stencil: list[torch.Tensor] = field(default_factory=list)
    omega: list[torch.Tensor] = field(default_factory=list)
    x: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    y: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    r: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def cells(self) -> int:
        return prod(self.shape)

    @property
    def pitch(self) -> int:
        """Elements of an array."""
        return -(-self.cells // PITCH) * PITCH

    @property
    def own(self) -> tuple[slice, slice, slice]:
        """This rank's box in the arrays."""
        z, y, x = (slice(b, b + n) for b, n in zip(self.low, self.size, strict=True))
        return z, y, x

    @property
    def halved(self) -> tuple[int, int, int]:
        """1 along the axes x, y, z that are coarsened."""
        return int(0 in self.axes), int(1 in self.axes), int(2 in self.axes)

    @property
    def coarse(self) -> Shape:
        """Coarse cells (z, y, x) that have children in the arrays."""
        z, y, x = (self.parent_of(i, n - 1) + 1 for i, n in enumerate(self.shape))
        return z, y, x

    def parent_of(self, i: int, cell: int) -> int:
        """The coarse cell of a cell of the arrays along z, y, x (i = 0, 1, 2), as the kernels count."""
        first, length = self.first[i], self.length[i]
        return cell + first % 2 + (cell + first) // length >> self.halved[2 - i]

    @property
    def seams(self) -> bool:
        """Whether there is such a ring."""
        return self.length != (ENDLESS,) * 3

    @property
    def grid(self) -> tuple[int, ...]:
        """Arguments of the kernels: cells and rings along x, y, z."""
        return (*self.shape[::-1], *self.ring[::-1])

    @property
    def way(self) -> tuple[int, ...]:
        """Arguments of the kernels: what is halved, where the parents are, and the rings that are cut."""
        (_, my, mx), shift = self.parents
        return (*self.halved, mx, my, *shift[::-1], *self.cut)

    @property
    def cut(self) -> tuple[int, ...]:
        """Arguments of the kernels: the first cells and the lengths of the rings that are cut."""
        return (*self.first[::-1], *self.length[::-1])

    def moved(self) -> list[torch.Tensor]:
        """The arrays of the stencil that a pass over the level reads."""
        return self.stencil[:1] if self.packed else self.stencil

    def zeros(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.zeros(self.pitch, dtype=dtype, device=device)

    def view(self, a: torch.Tensor) -> torch.Tensor:
        """An array as (z, y, x)."""
        return a[: self.cells].view(self.shape)

    def inner(self, a: torch.Tensor) -> torch.Tensor:
        """This rank's box of an array."""
        return self.view(a)[self.own]
