"""The levels of the compiled network: packed weights, arrays, and the division of planes among threads."""

from __future__ import annotations

import functools
import itertools
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.binding import Geometry, Level, Network, Padded, kernels
from petsc_dcdm.native.memory import address_of, aligned_empty, aligned_zeros
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.network.weights import ModelFile

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


_Packed = WeakKeyDictionary[ModelFile, dict[tuple[Axes, bool, bool], PackedNetwork]]

_packed: WeakKeyDictionary[Workers, _Packed] = WeakKeyDictionary()
"""What has been made of files that are still in use, where those who work with it read it."""


def packed_network(
    file: ModelFile, axes: Axes, global_shape: Shape, flat: bool, team: Workers = ONE_RANK
) -> PackedNetwork:
    """`pack_network` of a file, once for all levels that are alike, where the team reads it."""
    key = axes, _everywhere(axes, global_shape), flat
    known = _packed.setdefault(team, WeakKeyDictionary()).setdefault(file, {})
    if key not in known:
        library = kernels()
        packed = np.frombuffer(memoryview(pack_network(file.tensors, axes, global_shape, flat)), np.uint8)
        network = Network.from_buffer(_copied(packed, np.uint8, team).data)
        prepared = room_for(team, library.dcdm_prepared_bytes(), np.uint8)
        library.dcdm_prepare(network, *(axis in axes for axis in roles(flat)), not flat, address_of(prepared))
        known[key] = PackedNetwork(network, prepared)
    return known[key]


def _everywhere(axes: Axes, global_shape: Shape) -> bool:
    """Whether all axes of more than one cell are coarsened."""
    return all(a in axes for a in range(3) if global_shape[2 - a] > 1)


def pack_network(tensors: dict[str, np.ndarray], axes: Axes, global_shape: Shape, flat: bool) -> Network:
    """The tensors in the order of the kernels, for a level of this global shape that is coarsened along `axes`.

    The kernels go by roles (see common.h): x, then r and w, which are y and z, or z and y on a flat grid.
    """
    steps = steps_of(tensors)
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
    """A level of the cycle: what the kernels see of it, and views of its arrays, which lie in the memory of all levels.

    The arrays cover this rank's box of `shape` and, where boxes of other ranks adjoin, `low` and `high` cells (z, y, x)
    around it; `own` is the box in them. `rings`: the axes (z, y, x) that it covers whole and that are periodic, if they
    have more than one cell. `whole`: cells (z, y, x) of the rank's box, of which this may be a part.
    """

    def __init__(
        self,
        shape: Shape,
        around: tuple[Shape, Shape],
        rings: Periodic,
        flat: bool,
        axes: Axes,
        steps: int,
        halo: bool,
        whole: Shape,
        team: Workers,
        threads: int,
    ) -> None:
        self._team = team
        self.low, self.high = around
        nz, ny, nx = (a + n + b for a, n, b in zip(self.low, shape, self.high, strict=True))
        z, y, x = (ring and n > 1 for ring, n in zip(rings, shape, strict=True))
        self.geometry = Geometry(
            (nz, ny, nx),
            flat,
            (z, y, x),
            partial(zeros_for, team, threads, small_do=True),
            partial(room_for, team, small_do=True),
        )
        self.own = box_at(self.low, shape)
        x_, r, w = roles(flat)
        self.level = self.geometry.level(
            half_x=int(x_ in axes),
            half_r=int(r in axes),
            half_w=int(w in axes),
            full_r=whole[2],
            full_w=whole[2] if flat else whole[1] * whole[2],
            steps=steps,
            halo=int(halo),
            parts=1,
        )
        _, self.level.stop_r, self.level.stop_x = (own.stop for own in self.own_by_role())

    def live_in(self, level: Level, memory: np.ndarray) -> None:
        """From now on the level is this one, whose arrays are in this uint8 memory."""
        self.level, self._memory, self._begin = level, memory, address_of(memory)

    def _array(self, address: int, size: int, dtype: type) -> np.ndarray:
        begin = address - self._begin
        found: np.ndarray = self._memory[begin : begin + size * np.dtype(dtype).itemsize].view(dtype)
        return found

    def _field(self, address: int) -> Padded:
        return Padded(self.geometry, self._array(address, self.geometry.size, np.float32), address)

    @functools.cached_property
    def x(self) -> Padded:
        """Iterate; not of the coarsest level."""
        return self._field(self.level.x)

    @functools.cached_property
    def y(self) -> Padded:
        """Result; of the finest level where other boxes adjoin, or if there is no other."""
        return self._field(self.level.y)

    @functools.cached_property
    def r(self) -> Padded:
        """Right-hand side, of the levels that have a result."""
        return self._field(self.level.r)

    @property
    def range(self) -> np.ndarray:
        """int32 [n_w, n_r, 2]: begin and end of the cells of each row among which some are active."""
        n_w, n_r = self.geometry.planes
        return self._array(self.level.range, 2 * n_w * n_r, np.int32).reshape(n_w, n_r, 2)

    @property
    def part(self) -> np.ndarray:
        """int64: the first planes of the parts that the level is worked on in, and the end of the last one."""
        return self._array(self.level.part, self.level.parts + 1, np.int64)

    def parents_around(self, axes: Axes) -> tuple[Shape, Shape]:
        """How many cells of the next level (z, y, x), coarsened along `axes`, below and above the box have children in
        the arrays of this one.
        """
        z0, y0, x0 = (n // 2 if 2 - i in axes else n for i, n in enumerate(self.low))
        z1, y1, x1 = ((n + 1) // 2 if 2 - i in axes else n for i, n in enumerate(self.high))
        return (z0, y0, x0), (z1, y1, x1)

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
            setattr(c, f"place_{name}", address_of(self._places[-1]))

    def own_by_role(self) -> tuple[slice, slice, slice]:
        """The box along w, r and x."""
        z, y, x = self.own
        return (y, z, x) if self.geometry.flat else (z, y, x)

    def share_out(self, threads: int) -> None:
        """Divide the planes of the box among the threads by their active cells."""
        planes = self.own_by_role()[0]
        kernels().dcdm_share_out(self.level, planes.start, planes.stop, threads)

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
        c.range = address_of(self._range)
        work = (clipped[..., 1] - clipped[..., 0]).sum(axis=1)
        c.w_begin, c.w_end = (v + own_w.start - w for v in _filled(work, 1))
        if whole.part:
            self._part = _copied(stage.part - w, np.int64, team)
            c.parts, c.part = whole.parts, address_of(self._part)


def room_for(team: Workers, size: int, dtype: type, sparse: bool = False, small_do: bool = False) -> np.ndarray:
    """As `Workers.room`, for what every cycle works on."""
    return team.room(size, dtype, sparse) if team.ranks > 1 else aligned_empty(size, dtype, small_do)


def zeros_for(team: Workers, threads: int, size: int, dtype: type, small_do: bool = False) -> np.ndarray:
    """Zeros [size], for what every cycle works on, or with ``small_do`` every step; all threads write them where
    that is worth it.
    """
    if team.ranks > 1 or size * np.dtype(dtype).itemsize < SHARED_OUT:
        return team.zeros(size, dtype)
    return aligned_zeros(size, dtype, lambda a: kernels().dcdm_clear(address_of(a), a.nbytes, threads), small_do)


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


def coarse_crop(box: Box, axes: Axes) -> Box:
    """The same part of the next level."""
    z, y, x = (slice(b.start // 2, (b.stop + 1) // 2) if 2 - i in axes else b for i, b in enumerate(box))
    return (z, y, x)


def size_of(box: Box) -> Shape:
    """Its cells along z, y, x."""
    z, y, x = (b.stop - b.start for b in box)
    return (z, y, x)


def plus(margin: Shape, one: int) -> Shape:
    """A margin that is wider by `one` cells."""
    z, y, x = (n + one for n in margin)
    return (z, y, x)


def width_of(steps: int) -> int:
    """Cells of other boxes that a level covers on each side of its own: those that a leg of the cycle spoils from the
    edge inwards, and whole coarse cells.
    """
    return steps + steps % 2
