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
    aligned_zeros,
    kernels,
)
from petsc_dcdm.models.kernels.build import KernelsUnavailable
from petsc_dcdm.models.layout import CoarseOperator, Layout, LevelInfo, Shape, coarse_box
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
        if file.kind != "multigrid":
            raise WeightsError(f"{file.source}: a '{file.kind}' network, expected 'multigrid'")
        self._kernels = kernels()
        self._steps = file.tensors["log_c"].shape[0] - 4
        if self._steps > MAX_STEPS or file.tensors["conv.bias"].shape[0] > CHANNELS:
            raise KernelsUnavailable(
                f"{file.source}: the kernels serve up to {MAX_STEPS} smoothing steps and {CHANNELS} channels, and "
                f"this network has {self._steps} and {file.tensors['conv.bias'].shape[0]}"
            )
        self._layout = layout
        self._threads = threads
        # Where one rank holds the whole grid there is nothing to exchange, on no rank.
        self._halo = not layout.sum(np.array([float(layout.shape == layout.global_shape)]))[0]
        self._flat = layout.global_shape[0] == 1
        self._empty = 0 in layout.shape
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
        for axes in layout.plan:
            geometry = Geometry(_size(box), self._flat)
            stage = Stage(geometry, axes, self._steps, half, self._halo)
            stage.level.full_r = shape[2]
            stage.level.full_w = shape[2] if self._flat else shape[1] * shape[2]
            net = pack_network(file.tensors, axes, global_shape, self._flat)
            box = coarse_crop(box, axes)
            active, source = self._set_up_level(stage, net, source, Geometry(_size(box), self._flat))
            self._add_level(stage, LevelInfo(global_shape, offset, shape, axes, active))
            global_shape, _ = coarse_box(global_shape, (0, 0, 0), axes)
            shape, offset = coarse_box(shape, offset, axes)
        last = Stage(Geometry(_size(box), self._flat), (), self._steps, half, self._halo)
        assert not isinstance(source, PackedStencil)
        arrays = [np.array(a, np.float64) for a in source]
        active = self._find_active(last, arrays)
        self._add_level(last, LevelInfo(global_shape, offset, shape, (), active))
        if _size(box) != shape:
            whole = [np.zeros(shape) for _ in arrays]
            for a, part in zip(whole, arrays, strict=True):
                a[box] = part
            arrays = whole
        self._coarse_box = box
        self._coarse_r = np.zeros(shape, np.float32)
        self.coarse = CoarseOperator((arrays[0], arrays[1], arrays[2]), arrays[3], offset, shape, global_shape)

    def _add_level(self, stage: Stage, info: LevelInfo) -> None:
        unknowns = int(self._layout.sum(np.array([float(info.unknowns)]))[0])
        self._stages.append(stage)
        self.levels.append(LevelInfo(info.global_shape, info.offset, info.shape, info.coarsened, unknowns))

    def _set_up_level(
        self, stage: Stage, net: Network, source: list[np.ndarray] | PackedStencil, coarse: Geometry
    ) -> tuple[int, list[np.ndarray]]:
        """Coefficients of a level from its conductances; returns its active cells and the next level's source."""
        new = [coarse.zeros() for _ in range(4)]
        shares = [coarse.zeros() for _ in range(3)]
        setup = SetUp(
            c_pitch_w=coarse.pitches[0],
            c_pitch_r=coarse.pitches[1],
            c_origin=coarse.origin,
            range=stage.range.ctypes.data,
        )
        for name, axis in zip("xrw", roles(self._flat), strict=True):
            setattr(setup, f"c_{name}", new[axis].address)
            setattr(setup, f"share_{name}", shares[axis].address)
        setup.c_s = new[3].address
        if isinstance(source, PackedStencil):
            kept: object = self._describe_packed(setup, source)
        else:
            kept = self._describe_arrays(setup, stage.geometry, source)
        c = ctypes.byref(stage.level)
        if not self._empty:
            memory = aligned_zeros(self._threads * self._kernels.dcdm_setup_bytes(c), np.uint8)
            self._kernels.dcdm_set_up(c, net, setup, memory.ctypes.data, self._threads)
        del kept  # what the kernel has just read
        for share in shares if self._halo else ():
            self._layout.exchange(share.view)
        if not self._empty:
            self._kernels.dcdm_join_shares(coarse.level(), setup, self._threads)
        return int(setup.active), [a.inner for a in new]

    def _describe_packed(self, setup: SetUp, source: PackedStencil) -> PackedStencil:
        """Tell the kernel where a packed source is; its halos are filled. Collective."""
        if self._halo:
            for a in (source.cells, source.s_index):
                self._layout.exchange(a, corners=True)
        _, ny, nx = source.cells.shape
        setup.format = PACKED
        setup.cells, setup.s_index = source.cells.ctypes.data, source.s_index.ctypes.data
        setup.s_value = source.s_value.ctypes.data
        setup.pitch_r, setup.pitch_w = nx, nx if self._flat else nx * ny
        setup.origin = sum((b.start + 1) * pitch for b, pitch in zip(self._box, (nx * ny, nx, 1), strict=True))
        for i, axis in enumerate(roles(self._flat)):
            setup.c[i], setup.face[i] = source.c[axis], 2 * axis
        return source

    def _describe_arrays(self, setup: SetUp, geometry: Geometry, source: list[np.ndarray]) -> list[np.ndarray]:
        """The same for arrays; returns those that the kernel is to read. Collective."""
        high: list[Padded] = []
        if self._halo:
            source, high = self._with_halo(geometry, source)
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

    def _with_halo(self, geometry: Geometry, source: list[np.ndarray]) -> tuple[list[np.ndarray], list[Padded]]:
        """The source and the high conductances with what the boxes around have. Collective."""
        padded, high = [geometry.zeros() for _ in range(4)], [geometry.zeros() for _ in range(3)]
        for a, from_ in zip(padded, source, strict=True):
            a.inner[...] = from_
            self._layout.exchange(a.view, corners=True)
        for axis in range(3):
            beyond = [slice(1, -1)] * 3
            beyond[2 - axis] = slice(2, None)
            high[axis].inner[...] = padded[axis].view[tuple(beyond)]
            self._layout.exchange(high[axis].view, corners=True)
        return [a.inner for a in padded], high

    def _find_active(self, stage: Stage, source: list[np.ndarray]) -> int:
        """Where the coarsest level has active cells; faces of other ranks' cells count too. Collective."""
        padded = stage.geometry.zeros(np.float64)
        d = source[3] + source[0] + source[1] + source[2]
        for axis in range(3):
            padded.inner[...] = source[axis]
            if self._halo:
                self._layout.exchange(padded.view)
            beyond = [slice(1, -1)] * 3
            beyond[2 - axis] = slice(2, None)
            d = d + padded.view[tuple(beyond)]
        if self._empty:
            return 0
        active = d > 0
        any_ = active.any(axis=2)
        first = active.argmax(axis=2) // ALIGN * ALIGN
        last = active.shape[2] - active[..., ::-1].argmax(axis=2)
        shape = stage.range.shape[:2]
        stage.range[..., 0] = np.where(any_, first, 0).reshape(shape)
        stage.range[..., 1] = np.where(any_, -(-last // ALIGN) * ALIGN, 0).reshape(shape)
        return int(active.sum())

    def _prepare(self) -> None:
        """Everything that apply must not do: fields, workspaces, pointers."""
        count = len(self._stages) - 1
        for i, stage in enumerate(self._stages):
            finest, coarsest = i == 0, i == count
            stage.add_fields(
                x=not coarsest, y=self._halo or not finest or coarsest, r=self._halo or not finest or coarsest
            )
            if not coarsest:
                stage.share_out(self._threads)
        self._levels = (Level * (count + 1))(*(stage.level for stage in self._stages))
        size = ctypes.sizeof(Level)
        self._addresses = [ctypes.addressof(self._levels) + i * size for i in range(count + 1)]
        self._work = (ctypes.c_void_p * max(count, 1))(*(stage.work.ctypes.data for stage in self._stages[:-1]))
        self._count = count

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
        """``d = cycle(scale * r)`` in single precision, to a padded array of the finest level. Collective."""
        self._cycle(self.address(r), scale, None, 1.0, d.address)

    def address(self, a: np.ndarray) -> int:
        """Where the part of the grid that the finest level covers begins in an array of this rank's box."""
        return a.ctypes.data + sum(b.start * stride for b, stride in zip(self._box, a.strides, strict=True))

    @property
    def finest(self) -> Stage:
        """The finest level, for loops that work in its layout; the grid must not be the coarse problem already."""
        return self._stages[0]

    @property
    def finest_address(self) -> int:
        """Where the kernels find it."""
        return self._addresses[0]

    @property
    def box(self) -> Box:
        """The part (z, y, x) of this rank's box that it covers; nothing is active outside."""
        return self._box

    def _cycle(self, r: int, scale_in: float, out: int | None, scale_out: float, direction: int | None) -> None:
        """From the address of the right-hand side to that of the result or of the direction."""
        if self._halo:
            self._cycle_with_halo(r, scale_in, out, scale_out, direction)
            return
        if self._empty:
            self._solve_coarsest()
            return
        k, levels, work = self._kernels, self._addresses[0], ctypes.addressof(self._work)
        k.dcdm_down(levels, work, self._count, r, scale_in)
        self._solve_coarsest()
        k.dcdm_up(levels, work, self._count, r, scale_in, out, scale_out, direction)

    def _solve_coarsest(self) -> None:
        last = self._stages[-1]
        self._coarse_r[self._coarse_box] = last.r.inner
        last.y.inner[...] = self.coarse_solve(self._coarse_r)[self._coarse_box]

    def _cycle_with_halo(
        self, r: int, scale_in: float, out: int | None, scale_out: float, direction: int | None
    ) -> None:
        """The same pass by pass, with the halos filled in between."""
        k, exchange, steps, run = self._kernels, self._layout.exchange, self._steps, not self._empty
        if run:
            k.dcdm_load(self._levels[0], r, scale_in, self._threads)
        # Passes alternate between x and y; the first target is chosen so that the iterate of the way down ends in x.
        for i, stage in enumerate(self._stages[:-1]):
            level, work = self._addresses[i], stage.work.ctypes.data
            a, b = (stage.x, stage.y) if steps % 2 else (stage.y, stage.x)
            if run:
                k.dcdm_down_passes(level, work, 0, 0, None, a.address)
            for q in range(1, steps):
                exchange(a.view)
                if run:
                    k.dcdm_down_passes(level, work, q, q, a.address, b.address)
                a, b = b, a
            exchange(stage.x.view)
            if run:
                k.dcdm_down_passes(level, work, steps, steps, stage.x.address, None)
        self._solve_coarsest()
        correction = self._stages[-1].y
        for i in range(self._count - 1, -1, -1):
            stage, level, work = self._stages[i], self._addresses[i], self._stages[i].work.ctypes.data
            exchange(correction.view)
            a, b = stage.x, stage.y
            for first, q in [(0, 1), *((q, q) for q in range(2, steps + 1))]:
                if q > 1:
                    exchange(a.view)
                final = out if i == 0 and q == steps else None
                target = direction if i == 0 and q == steps and direction else b.address
                if run:
                    k.dcdm_up_passes(level, work, first, q, a.address, target, correction.address, final, scale_out)
                a, b = b, a
            correction = a


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
