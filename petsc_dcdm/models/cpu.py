"""The `multigrid` network on CPUs: set-up and cycle in compiled, threaded kernels. numpy only.

Mirrors `petsc_dcdm.models.multigrid` (torch), to rounding; a test holds the two together. Coefficients are stored
as bfloat16: they enter a preconditioner, the conductances stay symmetric and positive, and half the bytes are half
the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from petsc_dcdm.models.cpu_levels import Box, Stage, coarse_crop, crop, pack_network, roles
from petsc_dcdm.models.kernels.binding import (
    ALIGN,
    CHANNELS,
    DOUBLE,
    MAX_STEPS,
    PACKED,
    SINGLE,
    Geometry,
    Level,
    Network,
    Padded,
    SetUp,
    kernels,
)
from petsc_dcdm.models.kernels.build import KernelsUnavailable
from petsc_dcdm.models.layout import CoarseOperator, Exchange, Layout, LevelInfo, Reach, Shape, coarse_box
from petsc_dcdm.models.memory import aligned_zeros
from petsc_dcdm.models.packed import PackedStencil
from petsc_dcdm.models.weights import ModelFile, WeightsError


class CpuHierarchy:
    """The network made ready for one matrix; see `petsc_dcdm.models.layout.Hierarchy`.

    Args:
        file: weights of kind ``multigrid``.
        w, s: low-face conductances along x, y, z and extra diagonal, each float32 or float64 (nz, ny, nx) of this
            rank's box, scaled to a largest diagonal of 1. Not kept. Or a `PackedStencil` and None.
        layout: this rank's box.
        threads: OpenMP threads of this rank.
        half: store coefficients as bfloat16, else as float32.

    Collective. Raises `WeightsError` for weights of another kind and `KernelsUnavailable` where the kernels can not
    be compiled or the network is wider than they are made for.
    """

    def __init__(
        self,
        file: ModelFile,
        w: Sequence[np.ndarray] | PackedStencil,
        s: np.ndarray | None,
        layout: Layout,
        threads: int,
        half: bool = True,
    ) -> None:
        self._kernels = kernels_for(file, half)
        self._steps = _steps_of(file)
        self._layout = layout
        self._threads = threads
        # Where one rank holds the whole grid there is nothing to exchange, on no rank.
        self._halo = not layout.sum(np.array([float(layout.shape == layout.global_shape)]))[0]
        self._flat = layout.global_shape[0] == 1
        self._empty = 0 in layout.shape
        self._visits = layout.visits if len(layout.plan) > 1 else 1
        self._stages: list[Stage] = []
        self.levels: list[LevelInfo] = []
        if isinstance(w, PackedStencil):
            self._build(file, w, half)
        else:
            assert s is not None
            self._build(file, _alike([*w, s]), half)
        self.coarse_solve: Callable[[np.ndarray], np.ndarray] = _unset_coarse_solve
        self._prepare()

    # Set-up -----------------------------------------------------------------------------------------------------

    def _build(self, file: ModelFile, source: list[np.ndarray] | PackedStencil, half: bool) -> None:
        """All levels from the conductances along x, y, z and s of the finest."""
        layout = self._layout
        shape, offset, global_shape = layout.shape, layout.offset, layout.global_shape
        box: Box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
        if layout.plan and not self._halo and not self._empty:
            box = crop(source, layout.plan, self._threads)
        self._box = box
        if isinstance(source, PackedStencil) and not layout.plan:
            arrays, extra = source.arrays()
            source = [a[1:-1, 1:-1, 1:-1] for a in (*arrays, extra)]
        if not isinstance(source, PackedStencil):
            source = [a[box] for a in source]
        # What a leg of the cycle spoils from the edge inwards, and whole coarse cells.
        width = self._steps + self._steps % 2
        for number, axes in enumerate((*layout.plan, ())):
            around = layout.around(number, width)
            stage = Stage(_size(box), around, self._flat, axes, self._steps, half, self._halo, self._threads)
            self._stages.append(stage)
            box = coarse_crop(box, axes)
        last, box = self._stages[-1], self._box
        source = self._with_halo(source)
        for number, axes in enumerate(layout.plan):
            stage = self._stages[number]
            stage.level.full_r = shape[2]
            stage.level.full_w = shape[2] if self._flat else shape[1] * shape[2]
            net = pack_network(file.tensors, axes, global_shape, self._flat)
            active, source = self._set_up_level(number, net, source)
            self._add_level(LevelInfo(global_shape, offset, shape, axes, active))
            global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
            shape, offset = coarse_box(shape, offset, axes)
            box = coarse_crop(box, axes)
        assert not isinstance(source, PackedStencil)
        arrays = [np.array(a[last.own], np.float64) for a in source]
        active = self._find_active(last, source)
        self._add_level(LevelInfo(global_shape, offset, shape, (), active))
        if _size(box) != shape:
            whole = [np.zeros(shape) for _ in arrays]
            for a, part in zip(whole, arrays, strict=True):
                a[box] = part
            arrays = whole
        self._coarse_box = box
        self._coarse_r = np.zeros(shape, np.float32)
        self.coarse = CoarseOperator((arrays[0], arrays[1], arrays[2]), arrays[3], offset, shape, global_shape)

    def _with_halo(self, source: list[np.ndarray] | PackedStencil) -> list[np.ndarray] | PackedStencil:
        """The finest source with the cells around the box, where there may be some. Collective."""
        if not self._halo:
            return source
        stage = self._stages[0]
        if not isinstance(source, PackedStencil):
            # A level of the cycle works in single precision, a coarsest one is solved as it is.
            padded = [stage.geometry.zeros(np.float32 if self._layout.plan else np.float64) for _ in source]
            for a, values in zip(padded, source, strict=True):
                a.inner[stage.own] = values
            self._fill(0, *(a.view for a in padded))
            return [a.inner for a in padded]
        nz, ny, nx = stage.geometry.shape
        cells, s_index = (np.zeros((nz + 2, ny + 2, nx + 2), np.uint8) for _ in range(2))
        for wide, values in ((cells, source.cells), (s_index, source.s_index)):
            wide[1:-1, 1:-1, 1:-1][stage.own] = values[1:-1, 1:-1, 1:-1]
        self._fill(0, cells, s_index)
        return PackedStencil(cells, s_index, source.c, source.s_value)

    def _fill(self, level: int, *arrays: np.ndarray) -> None:
        """All that arrays with a halo of one cell hold of other boxes, once. Collective."""
        margin = _plus(self._stages[level].low, 1)
        width = 1 + self._steps + self._steps % 2
        exchange = self._layout.exchange_of(*[Reach(level, margin, (width, width, width))] * len(arrays))
        exchange.start(*arrays)
        exchange.finish()
        exchange.close()

    def _add_level(self, info: LevelInfo) -> None:
        unknowns = int(self._layout.sum(np.array([float(info.unknowns)]))[0])
        self.levels.append(LevelInfo(info.global_shape, info.offset, info.shape, info.coarsened, unknowns))

    def _set_up_level(
        self, number: int, net: Network, source: list[np.ndarray] | PackedStencil
    ) -> tuple[int, list[np.ndarray]]:
        """Coefficients of a level from its conductances; returns its active cells and the next level's source, which
        covers what the arrays of that level do. Collective.
        """
        stage, next_ = self._stages[number : number + 2]
        coarse = next_.geometry
        new = [coarse.zeros() for _ in range(4)]
        shares = [coarse.zeros() for _ in range(3)]
        # The parent of our first cell, which may lie in the middle of what the next level has around its box.
        begin = [a - b for a, b in zip(next_.low, self._parents_around(number)[0], strict=True)]
        pitches = (coarse.pitches[0], 0, 1) if self._flat else (*coarse.pitches, 1)
        by_role = (begin[1], 0, begin[2]) if self._flat else begin
        setup = SetUp(
            c_pitch_w=coarse.pitches[0],
            c_pitch_r=coarse.pitches[1],
            c_origin=coarse.origin + sum(b * p for b, p in zip(by_role, pitches, strict=True)),
            range=stage.range.ctypes.data,
        )
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
        if not self._empty:
            memory = aligned_zeros(self._threads * self._kernels.dcdm_setup_bytes(c), np.uint8)
            self._kernels.dcdm_set_up(c, net, setup, memory.ctypes.data, self._threads)
            setup.c_origin = coarse.origin
            self._kernels.dcdm_join_shares(coarse.level(), setup, self._threads)
        del kept  # what the kernel has just read
        if self._halo:
            self._fill(number + 1, *(a.view for a in new))
        return int(setup.active), [a.inner for a in new]

    def _parents_around(self, number: int) -> tuple[Shape, Shape]:
        """How many cells of the next level (z, y, x) below and above the box have children in the arrays of a level."""
        axes, stage = self._layout.plan[number], self._stages[number]
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
        setup.origin = sum((b.start + 1) * pitch for b, pitch in zip(self._box, (nx * ny, nx, 1), strict=True))
        for i, axis in enumerate(roles(self._flat)):
            setup.c[i], setup.face[i] = source.c[axis], 2 * axis

    def _describe_arrays(self, setup: SetUp, number: int, source: list[np.ndarray]) -> list[np.ndarray]:
        """The same for arrays; returns what must live until the kernel has read them. Collective."""
        high = self._high(number, source) if self._halo else []
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
        stage = self._stages[number]
        high = [stage.geometry.zeros() for _ in range(3)]
        for axis, a in enumerate(high):
            there = [slice(None), slice(None), slice(None)]
            here = list(there)
            there[2 - axis], here[2 - axis] = slice(1, None), slice(None, -1)
            a.inner[tuple(here)] = source[axis][tuple(there)]
        self._fill(number, *(a.view for a in high))
        return high

    def _find_active(self, stage: Stage, source: list[np.ndarray]) -> int:
        """Where the coarsest level has active cells; `source` covers its arrays."""
        if self._empty:
            return 0
        d = sum(source[1:], source[0].astype(np.float64))
        for axis in range(3):
            there, here = [slice(None)] * 3, [slice(None)] * 3
            there[2 - axis], here[2 - axis] = slice(1, None), slice(None, -1)
            d[tuple(here)] += source[axis][tuple(there)]
        active = d > 0
        any_ = active.any(axis=2)
        first = active.argmax(axis=2) // ALIGN * ALIGN
        last = active.shape[2] - active[..., ::-1].argmax(axis=2)
        shape = stage.range.shape[:2]
        stage.range[..., 0] = np.where(any_, first, 0).reshape(shape)
        stage.range[..., 1] = np.where(any_, -(-last // ALIGN) * ALIGN, 0).reshape(shape)
        return int(active[stage.own].sum())

    def _prepare(self) -> None:
        """Everything that apply must not do: fields, workspaces, pointers, messages."""
        count = len(self._stages) - 1
        for i, stage in enumerate(self._stages):
            finest, coarsest = i == 0, i == count
            stage.add_fields(
                x=not coarsest, y=self._halo or not finest or coarsest, r=self._halo or not finest or coarsest
            )
            if not coarsest:
                stage.share_out(self._threads)
        self._levels = (Level * (count + 1))(*(stage.level for stage in self._stages))
        self._work = (ctypes.c_void_p * max(count, 1))(*(stage.work.ctypes.data for stage in self._stages[:-1]))
        self._count = count
        self._parents = (Level * max(count, 1))(*self._levels[1:])
        self._finest = self._stages[0].level
        if not self._halo:
            return
        self._seen = [self._stages[0].seen((0, 0, 0), (0, 0, 0), ALIGN)]
        self._finest = self._seen[0].level
        self._finest.full_w, self._finest.full_r = self._stages[0].level.full_w, self._stages[0].level.full_r
        for i, stage in enumerate(self._stages[1:]):
            below, above = self._parents_around(i)
            self._seen.append(stage.seen(below, above, 1))
            self._parents[i] = self._seen[-1].level
        self._make_exchanges()

    def _make_exchanges(self) -> None:
        """The messages of a cycle: of every level the right-hand side and the iterate of the way down as far as a leg
        reaches, the correction as far as its children do, of a result that is gone on from one cell more, and of the
        finest result what the outer loop looks at.
        """
        reach = self._steps
        self._exchanges: list[tuple[Exchange, Exchange, Exchange]] = []
        for i, axes in enumerate(self._layout.plan):
            here, next_ = (_plus(stage.low, 1) for stage in self._stages[i : i + 2])
            z, y, x = (-(-reach // 2) if 2 - a in axes else reach for a in range(3))
            reaches = (
                Reach(i, here, (reach, reach, reach)),
                Reach(i, here, (reach, reach, reach)),
                Reach(i + 1, next_, (z, y, x)),
            )
            r, x_, e = (self._layout.exchange_of(wide) for wide in reaches)
            self._exchanges.append((r, x_, e))
        if self._visits > 1:
            wide = Reach(1, _plus(self._stages[1].low, 1), (reach + 1, reach + 1, reach + 1))
            self._exchange_result = self._layout.exchange_of(wide)
        if self._layout.plan:
            one = Reach(0, _plus(self._stages[0].low, 1), (1, 1, 1))
            self._exchange_direction = self._layout.exchange_of(one, corners=False)

    # Apply ------------------------------------------------------------------------------------------------------

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * cycle(scale_in * r)``; C-contiguous float64 (nz, ny, nx) of this rank's box, zero at
        inactive cells. Collective.
        """
        if self._count == 0:
            out[...] = scale_out * self.coarse_solve((scale_in * r).astype(np.float32))
            return
        self._cycle(self.address(r), scale_in, self.address(out), scale_out, None)
        for axis, part in enumerate(self._box):
            for outside in (slice(0, part.start), slice(part.stop, out.shape[axis])):
                out[(slice(None),) * axis + (outside,)] = 0.0

    def direction(self, r: np.ndarray, d: Padded, scale: float) -> None:
        """``d = cycle(scale * r)`` in single precision, to an array of the finest level's `geometry`, with the halo
        cells that share a face with the box. Collective.
        """
        self._cycle(self.address(r), scale, None, 1.0, d.address)
        if self._halo:
            self._exchange_direction.start(d.view)
            self._exchange_direction.finish()

    def address(self, a: np.ndarray) -> int:
        """Where the part of the grid that the finest level covers begins in an array of this rank's box."""
        return a.ctypes.data + sum(b.start * stride for b, stride in zip(self._box, a.strides, strict=True))

    @property
    def geometry(self) -> Geometry:
        """How arrays of the finest level lie in memory; the grid must not be the coarse problem already."""
        return self._stages[0].geometry

    @property
    def finest(self) -> Level:
        """The finest level for loops that work in its layout: this rank's box in them. Lives with the network."""
        return self._finest

    @property
    def box(self) -> Box:
        """The part (z, y, x) of this rank's box that it covers; nothing is active outside."""
        return self._box

    def _cycle(self, r: int, scale_in: float, out: int | None, scale_out: float, direction: int | None) -> None:
        """From the address of the right-hand side to that of the result or of the direction."""
        self._down(0, r, scale_in)
        for _ in range(self._visits - 1):
            self._up(1, None, 0.0, None, 0.0, None)
            self._down(1, None, 0.0)
        self._up(0, r, scale_in, out, scale_out, direction)

    def _solve_coarsest(self) -> None:
        last = self._stages[-1]
        self._coarse_r[self._coarse_box] = last.r.inner[last.own]
        last.y.inner[last.own] = self.coarse_solve(self._coarse_r)[self._coarse_box]

    def _from(self, level: int) -> tuple[int, int, int]:
        """The addresses that the kernels want for legs that begin at a level."""
        size, pointer = ctypes.sizeof(Level) * level, ctypes.sizeof(ctypes.c_void_p) * level
        levels, parents, work = (ctypes.addressof(a) for a in (self._levels, self._parents, self._work))
        return levels + size, parents + size, work + pointer

    def _down(self, first: int, r: int | None, scale: float) -> None:
        """From a level to the solution on the coarsest; from the finest, of the right-hand side `r`, or from the second
        of what its result leaves. With boxes level by level, with the halos filled in between; the iterate, which is
        wanted again on the way up only, travels while the coarser levels are worked on.
        """
        k, stages, run = self._kernels, self._stages, not self._empty
        if not self._halo and run:
            k.dcdm_down(*self._from(first), self._count - first, r, scale, first)
        elif self._halo:
            if run and first == 0:
                k.dcdm_load(self._finest, r, scale, self._threads)
            for i in range(first, self._count):
                fill_r, fill_x, _ = self._exchanges[i]
                again = int(i == first > 0)
                fill, field = (self._exchange_result, stages[i].y) if again else (fill_r, stages[i].r)
                fill.start(field.view)
                fill.finish()
                if run:
                    k.dcdm_down(*self._from(i), 1, None, 0.0, again)
                fill_x.start(stages[i].x.view)
        self._solve_coarsest()

    def _up(
        self, last: int, r: int | None, scale_in: float, out: int | None, scale_out: float, direction: int | None
    ) -> None:
        """Back up to a level: the finest, where the result goes, or the second."""
        k, stages, run = self._kernels, self._stages, not self._empty
        if not self._halo:
            if run:
                target = stages[last].y.address if last else direction
                k.dcdm_up(*self._from(last), self._count - last, r, scale_in, out, scale_out, target)
            return
        for i in range(self._count - 1, last - 1, -1):
            _, fill_x, fill_e = self._exchanges[i]
            fill_e.start(stages[i + 1].y.view)
            fill_e.finish()
            fill_x.finish()
            target = direction if direction and i == 0 else stages[i].y.address
            if run:
                k.dcdm_up(*self._from(i), 1, None, 0.0, None, 0.0, target)
        if run and out:
            k.dcdm_unload(self._finest, out, scale_out, self._threads)


def kernels_for(file: ModelFile, half: bool = True) -> ctypes.CDLL:
    """The kernels, if they serve this network here: ranks should agree on that before they set it up. Not collective.

    Raises as `CpuHierarchy` does.
    """
    if file.kind != "multigrid":
        raise WeightsError(f"{file.source}: a '{file.kind}' network, expected 'multigrid'")
    steps, channels = _steps_of(file), file.tensors["conv.bias"].shape[0]
    if steps > MAX_STEPS or channels > CHANNELS:
        raise KernelsUnavailable(
            f"{file.source}: the kernels serve up to {MAX_STEPS} smoothing steps and {CHANNELS} channels, and this "
            f"network has {steps} and {channels}"
        )
    return kernels(half)


def _steps_of(file: ModelFile) -> int:
    return int(file.tensors["log_c"].shape[0]) - 4


def _plus(margin: Shape, one: int) -> Shape:
    z, y, x = (n + one for n in margin)
    return (z, y, x)


def _size(box: Box) -> Shape:
    z, y, x = (b.stop - b.start for b in box)
    return (z, y, x)


def _alike(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The arrays in one precision and at one pitch; copied only if they are not."""
    kind = np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32
    strides = arrays[0].strides
    if all(a.dtype == kind and a.strides == strides and a.strides[2] == a.itemsize for a in arrays):
        return arrays
    return [np.ascontiguousarray(a, kind) for a in arrays]


def _unset_coarse_solve(r: np.ndarray) -> np.ndarray:
    """Stands in until the owner of a hierarchy has set `coarse_solve`."""
    raise RuntimeError("the hierarchy has no coarse solver yet: set its coarse_solve attribute before apply")
