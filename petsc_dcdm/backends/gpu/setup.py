"""Set-up of the `multigrid` network on a device: from the finest stencil to all levels.

On several ranks a level covers this rank's box and some cells of the boxes around it. What is there when a leg of the
cycle begins comes from the other ranks; each pass spoils one more cell from the outer edge inwards, and the last one
arrives at the box: one exchange serves a leg. Set-up is right on the box and takes the rest from its owners.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.gpu.halos import fill_once, reach
from petsc_dcdm.backends.gpu.kernels import setup as kernels
from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.backends.gpu.levels import Blocks, Level
from petsc_dcdm.backends.gpu.network import pack_network
from petsc_dcdm.backends.gpu.transfer import Staging, as_tensor
from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.layout import CoarseOperator, Layout, LevelInfo, coarse_box
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil


class GpuLevels:
    """The levels of a network for one matrix, the finest first.

    Parameters
    ----------
    file
        weights of kind ``multigrid``
    w, s
        numpy, float64: three padded arrays (nz + 2, ny + 2, nx + 2), the conductances of the low faces along x, y, z,
        and the extra diagonal, scaled to a largest diagonal of 1; or a `PackedStencil` and None. Not kept
    layout
        this rank's box
    device
        of torch, where all is made and kept
    blocks
        how cells are shared out among programs

    Attributes
    ----------
    levels
        list of `Level`, the coarsest last: bfloat16 smoothing weights, float32 or packed stencils
    infos
        list of `LevelInfo`, global shape, this rank's box and active cells of each
    coarse
        `CoarseOperator` of the coarsest level, float64 in host memory, this rank's box of it
    halo
        bool, the same on all ranks: whether a rank's box is less than the grid
    sequence
        the kernels that were run, to be counted

    Collective. `petsc_dcdm.backends.gpu.limits` says what is not served.
    """

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        device: torch.device,
        blocks: Blocks,
    ) -> None:
        self._layout, self._device, self._blocks = layout, device, blocks
        self.steps = steps_of(file.tensors)
        self.halo = not layout.sum(np.array([float(layout.shape == layout.global_shape)]))[0]
        self.levels: list[Level] = []
        self.infos: list[LevelInfo] = []
        self.sequence = LaunchSequence(device)
        self._staging, self._unknowns = Staging(device), list[torch.Tensor]()
        self._describe()
        source = self._to_device(w, s)
        for number, axes in enumerate(layout.plan):
            source = self._make_level(file, number, axes, source)
        self._finish(source)

    def _describe(self) -> None:
        """All levels, still without numbers."""
        layout = self._layout
        shape, offset, global_shape = layout.shape, layout.offset, layout.global_shape
        width = reach(self.steps)
        for number, axes in enumerate((*layout.plan, ())):
            low, high = layout.around(number, width)
            wide = _sum(low, shape, high)
            whole = [n == whole > 1 for n, whole in zip(shape, global_shape, strict=True)]
            z, y, x = (int(ring and all_) for ring, all_ in zip(layout.periodic, whole, strict=True))
            level = Level(wide, low, shape, (z, y, x), axes, ((0, 0, 0), (0, 0, 0)))
            for i, n in enumerate(global_shape):
                if layout.periodic[i] and shape[i] != n and n % 2 and level.halved[2 - i]:
                    level.first = _with(level.first, i, (offset[i] - low[i]) % n)
                    level.length = _with(level.length, i, n)
            self.levels.append(level)
            self.infos.append(LevelInfo(global_shape, offset, shape, axes, 0))
            shape, offset = coarse_box(shape, offset, axes)
            global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
        for level, next_ in zip(self.levels, self.levels[1:], strict=False):
            z, y, x = (c - level.parent_of(i, n) for i, (c, n) in enumerate(zip(next_.low, level.low, strict=True)))
            level.parents = next_.shape, (z, y, x)

    def _launch(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        arguments: Sequence[Any],
        moved: Sequence[torch.Tensor],
        **constants: Any,
    ) -> None:
        """Run a kernel now, and keep count of it."""
        one = LaunchSequence(self._device)
        one.launch(kernel, grid, arguments, moved, **constants)
        one.run()
        self.sequence.entries += one.entries

    # Sources of a level: a packed stencil, or w_x, w_y, w_z, s in single precision; and the four arrays of either ----

    def _to_device(self, w: Sequence[np.ndarray] | PackedStencil, s: np.ndarray | None) -> list[torch.Tensor]:
        """The finest source; halos filled. Collective."""
        level = self.levels[0]
        if isinstance(w, PackedStencil) and self._layout.plan:
            level.packed = True
            cells, index = (self._spread(level, a) for a in (w.cells, w.s_index))
            c = torch.tensor(w.c, dtype=torch.float32, device=self._device)
            values = torch.from_numpy(w.s_value).to(self._device, torch.float32)
            self._fill(0, cells, index)
            return [cells, index, c, values]
        if isinstance(w, PackedStencil):
            w, s = w.arrays()
        assert s is not None
        kind = torch.float32 if self._layout.plan else torch.float64  # a coarsest level is solved as it is
        source = [self._spread(level, a, kind) for a in (*w, s)]
        self._fill(0, *source)
        return source

    def _spread(self, level: Level, padded: np.ndarray, kind: torch.dtype | None = None) -> torch.Tensor:
        """A padded array of this rank's box as one of the level."""
        given = as_tensor(padded)
        there = torch.empty(given.shape, dtype=given.dtype, device=self._device)
        self._staging.to_device(padded, there)
        out = level.zeros(kind or given.dtype, self._device)
        level.inner(out).copy_(interior(there))
        return out

    def _make_level(
        self, file: ModelFile, number: int, axes: tuple[int, ...], source: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Coefficients of a level from its source; returns the next level's. Collective."""
        level, next_, info = self.levels[number], self.levels[number + 1], self.infos[number]
        packed, device, pitch = level.packed, self._device, level.pitch
        net = pack_network(file.tensors, axes, info.global_shape, device)
        inverse = level.zeros(torch.float32, device)
        omega = torch.zeros(self.steps * pitch, dtype=torch.int16, device=device)  # bits of bfloat16
        more = torch.zeros(4 * pitch, dtype=torch.float32, device=device)
        new = [next_.zeros(torch.float32, device) for _ in range(4)]
        stencil = source[:1] if packed else source
        if level.cells:
            tiles = self._blocks.tiling(level.shape, self._blocks.cycle)
            self._launch(
                kernels.inverse_diagonal,
                (tiles.tiles,),
                (inverse, *source, *level.grid, tiles.bx, tiles.by),
                [inverse, *stencil],
                PACKED=packed,
                BLOCK=tiles.block,
            )
            tiles = self._blocks.tiling(level.coarse, self._blocks.network)
            self._launch(
                kernels.fields,
                (tiles.tiles, net.turns),
                (omega, more, inverse, *source, *net.tensors, *level.grid, *level.halved, *level.cut, tiles.bx,
                 tiles.by, self.steps, pitch),
                [omega, more, inverse, *stencil],
                PACKED=packed,
                SEAMS=level.seams,
                PRECISION=precision(device),
                BLOCK=tiles.block,
                **net.sizes,
            )  # fmt: skip
        self._fill(number, *omega.split(pitch))
        self._fill(number, *more.split(pitch))
        if level.cells:
            tiles = self._blocks.tiling(level.coarse, self._blocks.cycle)
            self._launch(
                kernels.coarsen,
                (tiles.tiles,),
                (*new, more, *source, *level.grid, *level.way, tiles.bx, tiles.by, pitch),
                [*new, more, *stencil],
                PACKED=packed,
                SEAMS=level.seams,
                BLOCK=tiles.block,
                num_warps=8,
            )
        self._fill(number + 1, *new)
        level.omega = list(omega.view(torch.bfloat16).split(pitch))
        level.stencil = source if packed else [a.to(torch.bfloat16) for a in source]
        self._unknowns.append((level.inner(level.omega[0]) > 0).sum())
        return new

    def _finish(self, source: list[torch.Tensor]) -> None:
        """The coarsest operator. Collective."""
        level, info = self.levels[-1], self.infos[-1]
        if self._device.type == "meta":
            w = [np.zeros(level.size)] * 4
        else:
            w = [level.inner(a).double().cpu().numpy() for a in source]
        d = level.view(source[3]).double()
        for axis, a in enumerate(source[:3]):
            face = level.view(a).double()
            high = torch.roll(face, -1, 2 - axis)
            if not level.ring[2 - axis] and level.cells:
                high.select(2 - axis, -1).zero_()
            d = d + face + high
        self.active = d[level.own] > 0
        self._unknowns.append(self.active.sum())
        self._tell_unknowns()
        self.coarse = CoarseOperator((w[0], w[1], w[2]), w[3], info.offset, info.shape, info.global_shape)

    def _tell_unknowns(self) -> None:
        """How many unknowns each level has, at once: to ask is to wait for the device. Collective."""
        if self._device.type == "meta":
            here = [float(prod(info.shape)) for info in self.infos]
        else:
            here = torch.stack(self._unknowns).double().tolist()
        for number, count in enumerate(self._layout.sum(np.array(here))):
            self.infos[number] = self.infos[number]._replace(unknowns=int(count))

    def _fill(self, number: int, *arrays: torch.Tensor) -> None:
        """What arrays hold of other boxes, once. Collective."""
        if self.halo:
            fill_once(self._layout, number, self.levels[number], self.steps, arrays)


def precision(device: torch.device) -> str:
    """How matrices are multiplied in single precision: where there are tensor cores for it with 10 bits."""
    return "tf32" if device.type == "cuda" and torch.version.hip is None else "ieee"


def _with(shape: Shape, i: int, n: int) -> Shape:
    z, y, x = (n if j == i else old for j, old in enumerate(shape))
    return z, y, x


def _sum(*shapes: Shape) -> Shape:
    z, y, x = (sum(n) for n in zip(*shapes, strict=True))
    return z, y, x
