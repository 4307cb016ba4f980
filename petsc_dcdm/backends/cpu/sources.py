"""What the set-up of the finest level reads: conductances of a rank's box, as arrays or packed, told to the kernels."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np

from petsc_dcdm.backends.cpu.levels import Axes, Box, box_at, roles
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.native.binding import DOUBLE, PACKED, SINGLE, SetUp, kernels
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.stencil.packed import PackedStencil

Source = list[np.ndarray] | PackedStencil
"""Low conductances along x, y, z and s, each (nz, ny, nx), or packed."""


def crop(
    source: Source,
    plan: tuple[Axes, ...],
    periodic: Periodic,
    threads: int,
    team: Workers = ONE_RANK,
) -> Box:
    """The part of the grid (z, y, x) outside of which nothing is active.

    The low edges of the part are multiples of the coarsest cells, so that every level is cropped alike. It is the whole
    grid where cropping would save little, and all of a periodic axis unless its last cell is empty on every level.
    """
    if isinstance(source, PackedStencil):
        shape: Shape = source.shape
        pitches, ends = source.cells.strides[:2], (ctypes.c_int64 * 6)()
        inner = address_of(source.cells) + sum(pitches) + 1
        kernels().dcdm_packed_bounds(inner, *shape, *pitches, ctypes.addressof(ends))
        low, high = ends[:3], ends[3:]
    else:
        nz, ny, nx = source[0].shape
        shape = (nz, ny, nx)
        item = source[0].itemsize
        found = team.zeros(6 * threads, np.int64).reshape(threads, 6)
        team.do(
            kernels().dcdm_bounds,
            *(a.ctypes.data for a in source),
            int(source[0].dtype == np.float64),
            *shape,
            *(stride // item for stride in source[0].strides[:2]),
            address_of(found),
            threads,
        )
        # The cell below the first face that conducts is active too; of cell 0 of a periodic axis that is the last one.
        first, high = found[:, :3].min(axis=0).tolist(), found[:, 3:].max(axis=0).tolist()
        low = [max(a - 1, 0) for a in first]
        high = [n if p and not a else b for p, a, n, b in zip(periodic, first, shape, high, strict=True)]
    begin, end, cells = [0, 0, 0], [0, 0, 0], 1
    for axis, n in enumerate(shape):
        unit = 1 << sum(2 - axis in axes for axes in plan)
        whole = periodic[axis] and -(-high[axis] // unit) == -(-n // unit)
        begin[axis], end[axis] = (0, n) if whole else (low[axis] // unit * unit, high[axis])
        cells *= end[axis] - begin[axis]
    if any(a >= b for a, b in zip(low, high, strict=True)) or cells > 0.9 * prod(shape):
        return box_at((0, 0, 0), shape)
    z, y, x = (slice(a, b) for a, b in zip(begin, end, strict=True))
    return (z, y, x)


def alike(arrays: list[np.ndarray], team: Workers, kind: type | None = None) -> list[np.ndarray]:
    """The arrays in one precision, ``kind`` or that of the best of them, at one pitch, along x without gaps, and where
    the team has them; copied only if they are not.
    """
    kind = kind or (np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32)
    strides = arrays[0].strides
    if all(a.dtype == kind and a.strides == strides and a.strides[2] == a.itemsize and team.has(a) for a in arrays):
        return arrays
    copies = [team.room(a.size, kind).reshape(a.shape) for a in arrays]
    for a, copy in zip(arrays, copies, strict=True):
        copy[...] = a
    return copies


def described(source: Source, box: Box, flat: bool, team: Workers) -> SetUp:
    """What a set-up is told of its source, `box` of it if it is packed, in the memory of the team. Arrays are to live
    until the kernel has read them.
    """
    setup = SetUp.from_buffer(team.zeros(ctypes.sizeof(SetUp), np.uint8).data)
    if isinstance(source, PackedStencil):
        _describe_packed(setup, source, box, flat)
    else:
        _describe_arrays(setup, source, flat)
    return setup


def _describe_packed(setup: SetUp, source: PackedStencil, box: Box, flat: bool) -> None:
    _, ny, nx = source.cells.shape
    setup.format = PACKED
    setup.cells, setup.s_index = address_of(source.cells), address_of(source.s_index)
    setup.s_value = address_of(source.s_value)
    setup.pitch_r, setup.pitch_w = nx, nx if flat else nx * ny
    setup.origin = sum((b.start + 1) * pitch for b, pitch in zip(box, (nx * ny, nx, 1), strict=True))
    for i, axis in enumerate(roles(flat)):
        setup.c[i], setup.face[i] = source.c[axis], 2 * axis


def _describe_arrays(setup: SetUp, source: list[np.ndarray], flat: bool) -> None:
    strides, item = source[0].strides, source[0].itemsize
    setup.format = DOUBLE if source[0].dtype == np.float64 else SINGLE
    setup.pitch_r = strides[1] // item
    setup.pitch_w = strides[1] // item if flat else strides[0] // item
    for name, axis in zip("xrw", roles(flat), strict=True):
        setattr(setup, f"w_{name}", source[axis].ctypes.data)
    setup.s = source[3].ctypes.data
