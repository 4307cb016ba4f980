"""Set-up of the compiled `multigrid` network: from the finest conductances to all levels. numpy only."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from petsc_dcdm.backends.cpu.adjoining import AdjoiningBoxes
from petsc_dcdm.backends.cpu.levels import (
    Box,
    PackedNetwork,
    Stage,
    box_at,
    coarse_crop,
    packed_network,
    plus,
    room_for,
    size_of,
    width_of,
    zeros_for,
)
from petsc_dcdm.backends.cpu.sources import Source, alike, crop, described
from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.layout import CoarseOperator, Layout, LevelInfo, coarse_box
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.binding import (
    CHANNELS,
    MAX_STEPS,
    PASSING_ROOM,
    PASSING_ZEROS,
    ROOM,
    ZEROS,
    Geometry,
    Level,
    Levels,
    kernels,
)
from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.multigrid_tensors import steps_of
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
        self._steps = steps_of(file.tensors)
        self._layout = layout
        self._threads, self._team = threads, team
        # Where one rank holds the whole grid there is nothing to exchange, on no rank.
        self.halo = not layout.sum(np.array([float(layout.shape == layout.global_shape)]))[0]
        self._flat = layout.global_shape[0] == 1
        self.empty = 0 in layout.shape
        self.stages: list[Stage] = []
        self.infos: list[LevelInfo] = []
        if not isinstance(w, PackedStencil):
            assert s is not None
            w = alike([*w, s], team)
        self._build(file, w)

    def _build(self, file: ModelFile, source: Source) -> None:
        """All levels from the conductances along x, y, z and s of the finest."""
        layout = self._layout
        shape, offset, global_shape = layout.shape, layout.offset, layout.global_shape
        wholes: list[tuple[Shape, Shape, Shape]] = []  # of every level: shape of the grid, offset and shape of the box
        for axes in (*layout.plan, ()):
            wholes.append((global_shape, offset, shape))
            global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
            shape, offset = coarse_box(shape, offset, axes)
        box = box_at((0, 0, 0), layout.shape)
        # Of a team those without a box work on that of the one who has it.
        if layout.plan and not self.halo:
            if not self.empty:
                box = crop(source, layout.plan, layout.periodic, self._threads, self._team)
            elif not isinstance(source, PackedStencil) and not self._team.leads:
                self._team.do(None)
        self.box = box
        if isinstance(source, PackedStencil) and not layout.plan:
            arrays, extra = source.arrays()
            source = [interior(a) for a in (*arrays, extra)]
        if not isinstance(source, PackedStencil):
            source = [a[box] for a in source]
        self._make_room(wholes, isinstance(source, PackedStencil))
        nets = [
            packed_network(file, axes, whole[0], self._flat, self._team)
            for axes, whole in zip(layout.plan, wholes, strict=False)
        ]
        if self.halo:
            boxes = AdjoiningBoxes(self.kernels, self.stages, layout, self._threads, self._team)
            active, (x, y, z, s) = boxes.make(nets, source)
        else:
            active, (x, y, z, s) = self._at_once(nets, source, wholes[-1][2])
        global_shape, offset, shape = wholes[-1]
        self.coarse = CoarseOperator((x, y, z), s, offset, shape, global_shape)
        for whole, axes, cells in zip(wholes, (*layout.plan, ()), self._of_all_ranks(active), strict=True):
            self.infos.append(LevelInfo(*whole, axes, int(cells)))

    def _of_all_ranks(self, active: list[int]) -> np.ndarray:
        """Active cells of each level. Collective."""
        return self._layout.sum(np.array(active, float))

    def _make_room(self, wholes: list[tuple[Shape, Shape, Shape]], packed: bool) -> None:
        """The stages in their memory. ``packed``: most blocks will have a class and no coefficients of their own."""
        layout, team, box = self._layout, self._team, self.box
        rings, width, threads = self._rings(box), width_of(self._steps), self._threads
        for number, axes in enumerate((*layout.plan, ())):
            around, whole = layout.around(number, width), wholes[number][2]
            self.stages.append(
                Stage(size_of(box), around, rings, self._flat, axes, self._steps, self.halo, whole, team, threads)
            )
            if self.halo and not self.empty:
                self.stages[-1].number_places(*wholes[number][:2], layout.periodic)
            box = coarse_crop(box, axes)
        self.coarse_box = box_at((0, 0, 0), wholes[-1][2]) if self.halo else box
        count = len(layout.plan)
        self.levels = (Level * (count + 1))(*(stage.level for stage in self.stages))
        self.work = (ctypes.c_void_p * max(count, 1))()
        c = self._c = Levels(
            level=ctypes.addressof(self.levels), count=count, threads=threads, work=ctypes.addressof(self.work)
        )
        self.kernels.dcdm_size_levels(c)
        bytes_ = self._bytes = list(c.bytes)
        zeros = zeros_for(team, threads, bytes_[ZEROS], np.uint8)
        self.memory = zeros, room_for(team, bytes_[ROOM], np.uint8, sparse=packed)
        c.memory[ZEROS], c.memory[ROOM] = map(address_of, self.memory)
        self.kernels.dcdm_place_levels(c)
        for stage, level in zip(self.stages, self.levels, strict=True):
            stage.live_in(level, self.memory[ZEROS])

    def _at_once(
        self, nets: list[PackedNetwork], source: Source, coarsest: Shape
    ) -> tuple[list[int], list[np.ndarray]]:
        """All levels in one call, where no box adjoins: active cells of each, and the coarsest operator. Collective on
        the team.
        """
        team, threads, c, count = self._team, self._threads, self._c, len(nets)
        active = np.zeros(count + 1, np.int64)
        if isinstance(source, PackedStencil) or count:
            room = np.zeros((4, *coarsest))
            arrays, first, step = [*room], address_of(room), room.strides[0]
            places = [first + i * step for i in range(4)]
        else:
            arrays = [np.asarray(a, np.float64) for a in source]
            places = [a.ctypes.data for a in arrays]
        if self.empty:
            team.do(None)
            return active.tolist(), arrays
        setup = described(source, self.box, self._flat, team)
        passing = (
            zeros_for(team, threads, self._bytes[PASSING_ZEROS], np.uint8),
            team.room(self._bytes[PASSING_ROOM], np.uint8),
        )
        c.memory[PASSING_ZEROS], c.memory[PASSING_ROOM] = map(address_of, passing)
        networks = (ctypes.c_void_p * (2 * count))(
            *(ctypes.addressof(net.network) for net in nets), *(address_of(net.prepared) for net in nets)
        )
        c.network = ctypes.addressof(networks)
        c.prepared = c.network + count * ctypes.sizeof(ctypes.c_void_p)
        c.setup, c.active = ctypes.addressof(setup), address_of(active)
        strides, item = arrays[0].strides, arrays[0].itemsize
        begin = sum(part.start * stride for part, stride in zip(self.coarse_box, strides, strict=True))
        c.coarse[:] = [place + begin for place in places]
        c.coarse_pitch_z, c.coarse_pitch_y = strides[0] // item, strides[1] // item
        c.coarse_threads = threads if team.ranks == 1 else 1
        team.do(self.kernels.dcdm_make_levels, c)
        return active.tolist(), arrays

    def _rings(self, box: Box) -> Periodic:
        """The periodic axes (z, y, x) that a part of this rank's box has all of."""
        layout = self._layout
        z, y, x = (a and n == m for a, n, m in zip(layout.periodic, size_of(box), layout.global_shape, strict=True))
        return z, y, x


def kernels_for(file: ModelFile, half: bool = True, layout: Layout | None = None) -> ctypes.CDLL:
    """The kernels, if they serve this network (on this rank's box of `layout`) here: ranks should agree on that before
    they set it up. Not collective.

    Raises as `CpuHierarchy` does.
    """
    file.require_kind("multigrid")
    steps, channels = steps_of(file.tensors), file.tensors["conv.bias"].shape[0]
    if steps > MAX_STEPS or channels > CHANNELS:
        raise KernelsUnavailable(
            f"{file.source}: the kernels serve up to {MAX_STEPS} smoothing steps and {CHANNELS} channels, and this "
            f"network has {steps} and {channels}"
        )
    if layout is not None:
        flat = layout.global_shape[0] == 1
        Geometry(plus(layout.shape, 2 * width_of(steps)), flat).require_fit()
    return kernels(half)
