"""The levels of the compiled network: packed weights, arrays, and the division of planes among threads."""

from __future__ import annotations

import ctypes
import itertools
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.binding import ALIGN, MAX_STEPS, OMEGA, Geometry, Network, Padded, kernels
from petsc_dcdm.native.memory import LARGE, address_of, aligned_empty
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.stencil.packed import PackedStencil

FEWEST = 1500
"""Cells that are worth a part of their own: a leg takes some 4 microseconds on them, two threads meet in one or two."""

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHARED_OUT = 1 << 18
"""Bytes from which on several threads clear memory."""

Axes = tuple[int, ...]
Box = tuple[slice, slice, slice]


def roles(flat: bool) -> tuple[int, int, int]:
    """The axes (0, 1, 2 = x, y, z) that are x, r and w to the kernels; see common.h."""
    return (0, 2, 1) if flat else (0, 1, 2)


class PackedNetwork(NamedTuple):
    """What kernels have of a network for levels that are alike; not to be written to."""

    network: Network
    prepared: np.ndarray
    """Of dcdm_prepare."""


_packed: WeakKeyDictionary[ModelFile, dict[tuple[Axes, bool, bool], PackedNetwork]] = WeakKeyDictionary()
"""What has been made of files that are still in use."""


def packed_network(
    file: ModelFile, axes: Axes, global_shape: Shape, flat: bool, team: Workers = ONE_RANK
) -> PackedNetwork:
    """`pack_network` of a file, once for all levels that are alike, where the team reads it."""
    key = axes, _everywhere(axes, global_shape), flat
    known = _packed.setdefault(file, {})
    if key not in known:
        network, library = pack_network(file.tensors, axes, global_shape, flat), kernels()
        prepared = aligned_empty(library.dcdm_prepared_bytes(), np.uint8)
        library.dcdm_prepare(network, *(axis in axes for axis in roles(flat)), not flat, address_of(prepared))
        known[key] = PackedNetwork(network, prepared)
    found = known[key]
    if team.ranks == 1:
        return found
    network = Network.from_buffer(_copied(np.frombuffer(memoryview(found.network), np.uint8), np.uint8, team).data)
    return PackedNetwork(network, _copied(found.prepared, np.uint8, team))


def _everywhere(axes: Axes, global_shape: Shape) -> bool:
    """Whether all axes of more than one cell are coarsened."""
    return all(a in axes for a in range(3) if global_shape[2 - a] > 1)


def pack_network(tensors: dict[str, np.ndarray], axes: Axes, global_shape: Shape, flat: bool) -> Network:
    """The tensors in the order of the kernels, for a level of this global shape that is coarsened along `axes`.

    The kernels go by roles (see common.h): x, then r and w, which are y and z, or z and y on a flat grid.
    """
    steps = tensors["log_c"].shape[0] - 4
    hidden = tensors["conv.bias"].shape[0]
    order_of_axes = roles(flat)
    channels = [c for axis in order_of_axes for c in (2 * axis, 2 * axis + 1)] + [6, 7]
    net = Network()
    conv = np.ctypeslib.as_array(net.conv)
    for parity in itertools.product((0, 1), repeat=3):
        odd = [axis for axis, p in zip(order_of_axes, parity, strict=True) if p and axis in axes]
        # Stored are (towards the sibling, away from it), cells know (low, high): the sibling of even cells is high.
        order = list(range(8))
        for a in axes:
            if a not in odd:
                order[2 * a], order[2 * a + 1] = 2 * a + 1, 2 * a
        kernel = np.flip(tensors["conv.weight"][:, order], [4 - a for a in odd])[:, channels]  # [H, 8, z, y, x]
        by_role = kernel.transpose(3, 2, 4, 1, 0) if flat else kernel.transpose(2, 3, 4, 1, 0)  # [w, r, x, 8, H]
        conv[parity[0] + 2 * parity[1] + 4 * parity[2], :, :, :hidden] = by_role.reshape(9, 24, hidden)
    bias = tensors["conv.bias"] + sum((tensors["conv.flags"][a] for a in axes), np.zeros(hidden, np.float32))
    np.ctypeslib.as_array(net.conv_bias)[:hidden] = bias
    np.ctypeslib.as_array(net.hidden)[:hidden] = tensors["hidden.weight"].T
    np.ctypeslib.as_array(net.hidden_bias)[:] = tensors["hidden.bias"]
    base = (
        [1.0] * steps
        + [0.5 if _everywhere(axes, global_shape) else 0.75]
        + [0.5 if a in axes else 1.0 for a in range(3)]
    )
    outputs = [*range(steps + 1), *(steps + 1 + axis for axis in order_of_axes)]
    np.ctypeslib.as_array(net.out)[:, : steps + 4] = tensors["out.weight"].T[:, outputs]
    np.ctypeslib.as_array(net.out_bias)[: steps + 4] = tensors["out.bias"][outputs]
    np.ctypeslib.as_array(net.base)[: steps + 4] = (np.array(base) * np.exp(tensors["log_c"].astype(float)))[outputs]
    return net


class Stage:
    """A level of the cycle: what the kernels see of it, and the arrays that this keeps alive.

    Its arrays cover this rank's box of `shape` and, where boxes of other ranks adjoin, `low` and `high` cells (z, y, x)
    around it; `own` is the box in them. `rings`: the axes (z, y, x) that it covers whole and that are periodic, if they
    have more than one cell. `classes`: most blocks are expected to have a class.
    """

    x: Padded
    y: Padded
    r: Padded

    def __init__(
        self,
        shape: Shape,
        around: tuple[Shape, Shape],
        rings: Periodic,
        flat: bool,
        axes: Axes,
        steps: int,
        half: bool,
        halo: bool,
        threads: int,
        team: Workers,
        classes: bool = False,
    ) -> None:
        self._team = team
        self.low, self.high = around
        nz, ny, nx = (a + n + b for a, n, b in zip(self.low, shape, self.high, strict=True))
        z, y, x = (ring and n > 1 for ring, n in zip(rings, shape, strict=True))
        geometry = self.geometry = Geometry((nz, ny, nx), flat, (z, y, x), partial(_zeros, team, threads), team.room)
        self.own = box_at(self.low, shape)
        c = self.level = geometry.level()
        c.half_x, c.half_r, c.half_w = (int(axis in axes) for axis in roles(geometry.flat))
        c.steps, c.halo = steps, int(halo)
        _, c.stop_r, c.stop_x = (own.stop for own in self.own_by_role())
        self.range = team.zeros(2 * c.n_w * c.n_r, np.int32).reshape(c.n_w, c.n_r, 2)
        c.range = address_of(self.range)
        if axes:
            c.block_count = kernels().dcdm_count_blocks(ctypes.byref(c), threads)
            self.block_class = team.zeros(c.n_w * c.n_r * -(-c.n_x // ALIGN), np.uint8)
            self.block_start = team.zeros(c.n_w * c.n_r, np.int64)
            self.class_value = team.zeros(256 * (OMEGA + MAX_STEPS), np.float32)
            # Room for every block; blocks that turn out to have a class take none of it, and the rest is never touched.
            kind = np.uint16 if half else np.float32
            self.blocks = team.room(c.block_count * ALIGN * OMEGA, kind, sparse=classes)
            self.omegas = team.room(c.block_count * ALIGN * steps, kind, sparse=classes)
            c.block_class, c.block_start = address_of(self.block_class), address_of(self.block_start)
            c.class_value = address_of(self.class_value)
            c.blocks, c.omegas = address_of(self.blocks), address_of(self.omegas)

    def number_places(self, shape: Shape, offset: Shape, periodic: Periodic) -> None:
        """See place_of in common.h. `shape` and `periodic` of the whole level, `offset` of the box in it; to be called
        where the boxes of other ranks adjoin.
        """
        c = self.level
        self._places = []
        for name, axis in zip("xrw", roles(self.geometry.flat), strict=True):
            i = 2 - axis
            n, low, length = shape[i], self.low[i], self.geometry.shape[i]
            if not (periodic[i] and not self.geometry.rings[i] and n % 2 and getattr(c, f"half_{name}")):
                continue
            turn, place = np.divmod(np.arange(length) + offset[i] - low, n)
            self._places.append(_copied(place + (n + 1) * turn + low - offset[i], np.int32, self._team))
            setattr(c, f"place_{name}", self._places[-1].ctypes.data)

    def own_by_role(self) -> tuple[slice, slice, slice]:
        """The box along w, r and x."""
        z, y, x = self.own
        return (y, z, x) if self.geometry.flat else (z, y, x)

    def add_fields(self, x: bool, y: bool, r: bool) -> None:
        """Allocate the fields the cycle works on here."""
        wanted = [name for name, wants in (("x", x), ("y", y), ("r", r)) if wants]
        for name, field in zip(wanted, self.geometry.several(len(wanted)), strict=True):
            setattr(self, name, field)
            setattr(self.level, name, field.address)

    def share_out(self, threads: int) -> None:
        """Divide the planes of the box among the threads by their active cells, and get each a workspace."""
        c, planes, library = self.level, self.own_by_role()[0], kernels()
        self.part = self._team.zeros(threads + 1, np.int64)
        at = ctypes.byref(c)
        library.dcdm_share_out(at, planes.start, planes.stop, threads, FEWEST, address_of(self.part))
        plane = (c.n_r + 2 * c.has_r) * c.pitch_r + 4 * ALIGN
        self.work = self._team.zeros(c.parts * library.dcdm_work_floats(at) + plane, np.float32)

    def window(self, low: Shape, high: Shape, unit: int) -> LevelWindow:
        """The level as one that covers the box and fewer cells around it, with nothing active but in the box.

        Ranges begin and end at multiples of `unit` cells.
        """
        return LevelWindow(self, low, high, unit, self._team)


class LevelWindow:
    """Part of a level; see `Stage.window`. The fields are those of the level at the time."""

    def __init__(self, stage: Stage, low: Shape, high: Shape, unit: int, team: Workers) -> None:
        whole = stage.level
        first = [a - b for a, b in zip(stage.low, low, strict=True)]
        nz, ny, nx = (b.stop - b.start + p + q for b, p, q in zip(stage.own, low, high, strict=True))
        c = self.level = Geometry((nz, ny, nx), stage.geometry.flat).level()
        w, r, x = (first[1], first[0], first[2]) if stage.geometry.flat else first
        c.pitch_w, c.pitch_r, c.halo, c.has_r = whole.pitch_w, whole.pitch_r, whole.halo, whole.has_r
        c.wrap_w, c.wrap_r, c.wrap_x = whole.wrap_w, whole.wrap_r, whole.wrap_x
        c.origin = whole.origin + w * whole.pitch_w + r * whole.pitch_r + x
        c.x, c.y, c.r = whole.x, whole.y, whole.r
        own_w, own_r, own_x = stage.own_by_role()
        self._range = team.zeros(2 * c.n_w * c.n_r, np.int32).reshape(c.n_w, c.n_r, 2)
        active = stage.range[own_w, own_r]
        clipped = np.clip(active, own_x.start, own_x.stop) - x
        clipped[..., 0] = clipped[..., 0] // unit * unit
        clipped[..., 1] = -(-clipped[..., 1] // unit) * unit
        clipped[active[..., 0] >= active[..., 1]] = 0
        self._range[own_w.start - w : own_w.stop - w, own_r.start - r : own_r.stop - r] = clipped
        c.range = self._range.ctypes.data
        work = (clipped[..., 1] - clipped[..., 0]).sum(axis=1)
        c.w_begin, c.w_end = (v + own_w.start - w for v in _filled(work, 1))
        if hasattr(stage, "part"):
            self._part = _copied(stage.part - w, np.int64, team)
            c.parts, c.part = whole.parts, self._part.ctypes.data


def _zeros(team: Workers, threads: int, size: int, dtype: type) -> np.ndarray:
    """Zeros [size]; all threads write them where that is worth it, and memory is not taken only as it is used."""
    bytes_ = size * np.dtype(dtype).itemsize
    if team.ranks > 1 or not SHARED_OUT <= bytes_ < LARGE:
        return team.zeros(size, dtype)
    array = team.room(size, dtype)
    kernels().dcdm_clear(address_of(array), bytes_, threads)
    return array


def _copied(values: ArrayLike, dtype: type, team: Workers) -> np.ndarray:
    """One-dimensional, where kernels can read it."""
    values = np.asarray(values, dtype)
    copy = team.room(values.size, dtype)
    copy[:] = values
    return copy


def _filled(work: np.ndarray, unit: int) -> tuple[int, int]:
    """Begin and end of what is not 0, at multiples of `unit` as far as the array goes."""
    filled = np.flatnonzero(work)
    begin, end = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
    return begin // unit * unit, min(-(-end // unit) * unit, work.size)


def box_at(begin: Shape, shape: Shape) -> Box:
    """The cells of a box."""
    z, y, x = (slice(b, b + n) for b, n in zip(begin, shape, strict=True))
    return (z, y, x)


def crop(
    source: list[np.ndarray] | PackedStencil,
    plan: tuple[Axes, ...],
    periodic: Periodic,
    threads: int,
    team: Workers = ONE_RANK,
) -> Box:
    """The part of the grid (z, y, x) outside of which nothing is active.

    `source` holds low conductances along x, y, z and s, each (nz, ny, nx), or is packed. The low edges of the part are
    multiples of the coarsest cells, so that every level is cropped alike. It is the whole grid where cropping would
    save little, and all of a periodic axis unless its last cell is empty on every level.
    """
    if isinstance(source, PackedStencil):
        shape: tuple[int, ...] = source.shape
        pitches, ends = list(source.cells.strides[:2]), np.empty(6, np.int64)
        inner = source.cells.ctypes.data + sum(pitches) + 1
        kernels().dcdm_packed_bounds(inner, *shape, *pitches, address_of(ends))
        low, high = ends[:3], ends[3:]
    else:
        shape = source[0].shape
        item = source[0].itemsize
        found = team.zeros(6 * threads, np.int64).reshape(threads, 6)
        team.do(
            kernels().dcdm_bounds,
            *(a.ctypes.data for a in source),
            int(source[0].dtype == np.float64),
            *shape,
            *(stride // item for stride in source[0].strides[:2]),
            found.ctypes.data,
            threads,
        )
        # The cell below the first face that conducts is active too; of cell 0 of a periodic axis that is the last one.
        first = found[:, :3].min(axis=0)
        low, high = np.maximum(first - 1, 0), found[:, 3:].max(axis=0)
        high = np.where(periodic & (first == 0), shape, high)
    unit = [2 ** sum(2 - i in axes for axes in plan) for i in range(3)]
    begin = [int(b) // u * u for b, u in zip(low, unit, strict=True)]
    for axis, (u, n) in enumerate(zip(unit, shape, strict=True)):
        if periodic[axis] and -(-int(high[axis]) // u) == -(-n // u):
            begin[axis], high[axis] = 0, n
    if (low >= high).any() or np.prod(high - np.array(begin)) > 0.9 * np.prod(shape):
        return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    z, y, x = (slice(b, int(e)) for b, e in zip(begin, high, strict=True))
    return (z, y, x)


def coarse_crop(box: Box, axes: Axes) -> Box:
    """The same part of the next level."""
    z, y, x = (slice(b.start // 2, (b.stop + 1) // 2) if 2 - i in axes else b for i, b in enumerate(box))
    return (z, y, x)
