"""Set-up of the compiled `multigrid` network: from the finest conductances to all levels. numpy only."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod

import numpy as np

from petsc_dcdm.backends.cpu.levels import Box, PackedNetwork, Stage, coarse_crop, crop, packed_network, roles
from petsc_dcdm.grid.faces import all_but_first, all_but_last, interior
from petsc_dcdm.grid.layout import CoarseOperator, Layout, LevelInfo, Reach, coarse_box
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.binding import (
    ALIGN,
    CHANNELS,
    DOUBLE,
    MAX_STEPS,
    PACKED,
    SINGLE,
    Geometry,
    Padded,
    SetUp,
    kernels,
)
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil


class CpuLevels:
    """The levels of a network for one matrix, the finest first: smoothing weights and coarse operators.

    Parameters
    ----------
    file, w, s, layout, threads, half
        as for `petsc_dcdm.backends.cpu.hierarchy.CpuHierarchy`

    Attributes
    ----------
    kernels
        the compiled functions for coefficients in bfloat16 or float32
    stages
        list of `Stage`, what the kernels see of each level, the coarsest included; without the fields of the cycle
    infos
        list of `LevelInfo`, global shape, this rank's box and active cells of each
    box
        slices (z, y, x): the part of this rank's box that they cover; nothing is active outside
    coarse
        `CoarseOperator` of the coarsest level, float64, this rank's box of it
    coarse_box
        slices (z, y, x): the part of that box that the stages cover
    halo
        bool, the same on all ranks: whether a rank's box is less than the grid
    empty
        bool: whether this rank's box has no cell

    Collective. Raises `KernelsUnavailable` where the kernels cannot be compiled, or the network is wider or the box
    larger than they are made for.
    """

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        threads: int,
        half: bool,
        team: Workers = ONE_RANK,
    ) -> None:
        self.kernels = kernels_for(file, half, layout)
        self._steps = steps_of(file)
        self._layout = layout
        self._threads, self._team = threads, team
        # Where one rank holds the whole grid there is nothing to exchange, on no rank.
        self.halo = not layout.sum(np.array([float(layout.shape == layout.global_shape)]))[0]
        self._flat = layout.global_shape[0] == 1
        self.empty = 0 in layout.shape
        self.stages: list[Stage] = []
        self.infos: list[LevelInfo] = []
        if isinstance(w, PackedStencil):
            self._build(file, w, half)
        else:
            assert s is not None
            self._build(file, _alike([*w, s], team), half)

    def _build(self, file: ModelFile, source: list[np.ndarray] | PackedStencil, half: bool) -> None:
        """All levels from the conductances along x, y, z and s of the finest."""
        layout = self._layout
        shape, offset, global_shape = layout.shape, layout.offset, layout.global_shape
        wholes: list[tuple[Shape, Shape, Shape]] = []  # of every level: shape of the grid, offset and shape of the box
        for axes in (*layout.plan, ()):
            wholes.append((global_shape, offset, shape))
            global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
            shape, offset = coarse_box(shape, offset, axes)
        shape = layout.shape
        box: Box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
        # Of a team those without a box work on that of the one who has it.
        if layout.plan and not self.halo:
            if not self.empty:
                box = crop(source, layout.plan, layout.periodic, self._threads, self._team)
            elif not isinstance(source, PackedStencil) and not self._team.leads:
                self._team.do(None)
        self.box = box
        rings = self._rings(box)
        if isinstance(source, PackedStencil) and not layout.plan:
            arrays, extra = source.arrays()
            source = [interior(a) for a in (*arrays, extra)]
        if not isinstance(source, PackedStencil):
            source = [a[box] for a in source]
        width, packed = _width(self._steps), isinstance(source, PackedStencil)
        for number, axes in enumerate((*layout.plan, ())):
            around = layout.around(number, width)
            size = _size(box)
            stage = Stage(
                size, around, rings, self._flat, axes, self._steps, half, self.halo, self._threads, self._team, packed
            )
            if self.halo and not self.empty:
                stage.number_places(wholes[number][0], wholes[number][1], layout.periodic)
            self.stages.append(stage)
            box = coarse_crop(box, axes)
        last, box = self.stages[-1], self.box
        source = self._with_halo(source)
        for number, axes in enumerate(layout.plan):
            stage, (global_shape, offset, shape) = self.stages[number], wholes[number]
            stage.level.full_r = shape[2]
            stage.level.full_w = shape[2] if self._flat else shape[1] * shape[2]
            net = packed_network(file, axes, global_shape, self._flat, self._team)
            active, source = self._set_up_level(number, net, source)
            self._add_level(LevelInfo(global_shape, offset, shape, axes, active))
            box = coarse_crop(box, axes)
        global_shape, offset, shape = wholes[-1]
        assert not isinstance(source, PackedStencil)
        source = [np.asarray(a, np.float64) for a in source]
        arrays = [a[last.own] for a in source]
        active = self._find_active(last, source)
        self._add_level(LevelInfo(global_shape, offset, shape, (), active))
        if _size(box) != shape:
            whole = [np.zeros(shape) for _ in arrays]
            for a, part in zip(whole, arrays, strict=True):
                a[box] = part
            arrays = whole
        self.coarse_box = box
        self.coarse = CoarseOperator((arrays[0], arrays[1], arrays[2]), arrays[3], offset, shape, global_shape)

    def _rings(self, box: Box) -> Periodic:
        """The periodic axes (z, y, x) that a part of this rank's box has all of."""
        layout = self._layout
        z, y, x = (a and n == m for a, n, m in zip(layout.periodic, _size(box), layout.global_shape, strict=True))
        return z, y, x

    def _with_halo(self, source: list[np.ndarray] | PackedStencil) -> list[np.ndarray] | PackedStencil:
        """The finest source with the cells around the box, where there may be some. Collective."""
        if not self.halo:
            return source
        stage = self.stages[0]
        if not isinstance(source, PackedStencil):
            # A level of the cycle works in single precision, a coarsest one is solved as it is.
            padded = [stage.geometry.zeros(np.float32 if self._layout.plan else np.float64) for _ in source]
            for a, values in zip(padded, source, strict=True):
                a.inner[stage.own] = values
            self._fill(0, *(a.view for a in padded))
            return [a.inner for a in padded]
        nz, ny, nx = stage.geometry.shape
        size = (nz + 2, ny + 2, nx + 2)
        cells, s_index = (self._team.zeros(prod(size), np.uint8).reshape(size) for _ in range(2))
        for wide, values in ((cells, source.cells), (s_index, source.s_index)):
            interior(wide)[stage.own] = interior(values)
        self._fill(0, cells, s_index)
        return PackedStencil(cells, s_index, source.c, source.s_value)

    def _fill(self, level: int, *arrays: np.ndarray) -> None:
        """All that arrays with a halo of one cell hold of other boxes, once. Collective."""
        margin = plus(self.stages[level].low, 1)
        width = 1 + _width(self._steps)
        exchange = self._layout.exchange_of(*[Reach(level, margin, (width, width, width))] * len(arrays))
        exchange.start(*arrays)
        exchange.finish()
        exchange.close()

    def _add_level(self, info: LevelInfo) -> None:
        unknowns = int(self._layout.sum(np.array([float(info.unknowns)]))[0])
        self.infos.append(LevelInfo(info.global_shape, info.offset, info.shape, info.coarsened, unknowns))

    def _set_up_level(
        self, number: int, net: PackedNetwork, source: list[np.ndarray] | PackedStencil
    ) -> tuple[int, list[np.ndarray]]:
        """Coefficients of a level from its conductances; returns its active cells and the next level's source, which
        covers what the arrays of that level do. Collective.
        """
        stage, next_ = self.stages[number : number + 2]
        coarse = next_.geometry
        *new, share_x, share_y, share_z = coarse.several(7)
        shares = share_x, share_y, share_z
        # The parent of our first cell, which may lie in the middle of what the next level has around its box.
        begin = [a - b for a, b in zip(next_.low, self.parents_around(number)[0], strict=True)]
        pitches = (coarse.pitches[0], 0, 1) if self._flat else (*coarse.pitches, 1)
        by_role = (begin[1], 0, begin[2]) if self._flat else begin
        setup = SetUp.from_buffer(self._team.zeros(ctypes.sizeof(SetUp), np.uint8).data)
        setup.c_pitch_w, setup.c_pitch_r = coarse.pitches
        setup.c_origin = coarse.origin + sum(b * p for b, p in zip(by_role, pitches, strict=True))
        setup.range, setup.prepared = address_of(stage.range), address_of(net.prepared)
        for i, cells in enumerate(reversed(stage.own_by_role())):
            setup.own[i][0], setup.own[i][1] = cells.start, cells.stop
        for name, axis in zip("xrw", roles(self._flat), strict=True):
            setattr(setup, f"c_{name}", new[axis].address)
            setattr(setup, f"share_{name}", shares[axis].address)
        setup.c_s = new[3].address
        if isinstance(source, PackedStencil):
            self._describe_packed(setup, source)
            kept: object = source
        else:
            kept = self._describe_arrays(setup, number, source)
        c = ctypes.byref(stage.level)
        memory = self._team.room(0 if self.empty else self._threads * self.kernels.dcdm_setup_bytes(c), np.uint8)
        set_up, join = self.kernels.dcdm_set_up, self.kernels.dcdm_join_shares
        self._team.do(None if self.empty else set_up, c, net.network, setup, address_of(memory), self._threads)
        setup.c_origin = coarse.origin
        self._team.do(None if self.empty else join, ctypes.byref(next_.level), setup, self._threads)
        del kept  # what the kernel has just read
        if self.halo:
            self._fill(number + 1, *(a.view for a in new))
        return int(setup.active), [a.inner for a in new]

    def parents_around(self, number: int) -> tuple[Shape, Shape]:
        """How many cells of the next level (z, y, x) below and above the box have children in the arrays of a level."""
        axes, stage = self._layout.plan[number], self.stages[number]
        z0, y0, x0 = (n // 2 if 2 - i in axes else n for i, n in enumerate(stage.low))
        z1, y1, x1 = ((n + 1) // 2 if 2 - i in axes else n for i, n in enumerate(stage.high))
        return (z0, y0, x0), (z1, y1, x1)

    def _describe_packed(self, setup: SetUp, source: PackedStencil) -> None:
        """Tell the kernel where a packed source is."""
        _, ny, nx = source.cells.shape
        setup.format = PACKED
        setup.cells, setup.s_index = source.cells.ctypes.data, source.s_index.ctypes.data
        setup.s_value = source.s_value.ctypes.data
        setup.pitch_r, setup.pitch_w = nx, nx if self._flat else nx * ny
        setup.origin = sum((b.start + 1) * pitch for b, pitch in zip(self.box, (nx * ny, nx, 1), strict=True))
        for i, axis in enumerate(roles(self._flat)):
            setup.c[i], setup.face[i] = source.c[axis], 2 * axis

    def _describe_arrays(self, setup: SetUp, number: int, source: list[np.ndarray]) -> list[np.ndarray]:
        """The same for arrays; returns what must live until the kernel has read them. Collective."""
        high = self._high(number, source) if self.halo else []
        strides, item = source[0].strides, source[0].itemsize
        setup.format = DOUBLE if source[0].dtype == np.float64 else SINGLE
        setup.pitch_r = strides[1] // item
        setup.pitch_w = strides[1] // item if self._flat else strides[0] // item
        for name, axis in zip("xrw", roles(self._flat), strict=True):
            setattr(setup, f"w_{name}", source[axis].ctypes.data)
            if high:
                setattr(setup, f"high_{name}", high[axis].inner.ctypes.data)
        setup.s = source[3].ctypes.data
        return [*source, *(a.buffer for a in high)]

    def _high(self, number: int, source: list[np.ndarray]) -> list[Padded]:
        """The high conductances, which a cell at the edge of the arrays can not look up. Collective."""
        stage = self.stages[number]
        high = [stage.geometry.zeros() for _ in range(3)]
        for axis, a in enumerate(high):
            all_but_last(a.inner, axis)[...] = all_but_first(source[axis], axis)
            if stage.geometry.rings[2 - axis]:
                _layer(a.inner, axis, -1)[...] = _layer(source[axis], axis, 0)
        self._fill(number, *(a.view for a in high))
        return high

    def _find_active(self, stage: Stage, source: list[np.ndarray]) -> int:
        """Where the coarsest level has active cells; `source`, float64 and all in memory alike, covers its arrays."""
        if self.empty:
            return 0
        arrays = (ctypes.c_void_p * 4)(*(a.ctypes.data for a in source))
        planes, rows = (stride // source[0].itemsize for stride in source[0].strides[:2])
        ends = [end for part in stage.own for end in (part.start, part.stop)]
        numbers = np.array([*source[0].shape, *stage.geometry.rings, *ends], np.int64)
        shape, rings, own = (address_of(numbers) + numbers.itemsize * first for first in (0, 3, 6))
        where, threads = address_of(stage.range), self._threads if self._team.ranks == 1 else 1
        return int(self.kernels.dcdm_active(arrays, shape, planes, rows, rings, own, ALIGN, where, threads))


def kernels_for(file: ModelFile, half: bool = True, layout: Layout | None = None) -> ctypes.CDLL:
    """The kernels, if they serve this network (on this rank's box of `layout`) here: ranks should agree on that before
    they set it up. Not collective.

    Raises as `CpuHierarchy` does.
    """
    file.require_kind("multigrid")
    steps, channels = steps_of(file), file.tensors["conv.bias"].shape[0]
    if steps > MAX_STEPS or channels > CHANNELS:
        raise KernelsUnavailable(
            f"{file.source}: the kernels serve up to {MAX_STEPS} smoothing steps and {CHANNELS} channels, and this "
            f"network has {steps} and {channels}"
        )
    if layout is not None:
        flat = layout.global_shape[0] == 1
        Geometry(plus(layout.shape, 2 * _width(steps)), flat).require_fit()
    return kernels(half)


def steps_of(file: ModelFile) -> int:
    """Smoothing steps of a leg."""
    return int(file.tensors["log_c"].shape[0]) - 4


def _width(steps: int) -> int:
    """Cells of other boxes that a level covers on each side of its own: those that a leg of the cycle spoils from the
    edge inwards, and whole coarse cells.
    """
    return steps + steps % 2


def plus(margin: Shape, one: int) -> Shape:
    """A margin that is wider by `one` cells."""
    z, y, x = (n + one for n in margin)
    return (z, y, x)


def _layer(a: np.ndarray, axis: int, number: int) -> np.ndarray:
    """View of one layer of cells along an axis (0, 1, 2 = x, y, z)."""
    return np.moveaxis(a, 2 - axis, 0)[number]


def _size(box: Box) -> Shape:
    z, y, x = (b.stop - b.start for b in box)
    return (z, y, x)


def _alike(arrays: list[np.ndarray], team: Workers) -> list[np.ndarray]:
    """The arrays in one precision and at one pitch; copied only if they are not."""
    kind = np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32
    strides = arrays[0].strides
    if all(a.dtype == kind and a.strides == strides and a.strides[2] == a.itemsize for a in arrays):
        return arrays
    copies = [team.zeros(a.size, kind).reshape(a.shape) for a in arrays]
    for a, copy in zip(arrays, copies, strict=True):
        copy[...] = a
    return copies
