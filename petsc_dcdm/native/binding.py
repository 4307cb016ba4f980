"""The C kernels of the cycle as Python sees them: structures, signatures, and arrays in the layout they expect."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from petsc_dcdm.native.build import KernelsUnavailable, library
from petsc_dcdm.native.memory import address_of, aligned_empty, aligned_zeros
from petsc_dcdm.native.structures import mirrors

#: As in common.h: rows are padded to multiples of ALIGN elements.
ALIGN = 16
MAX_STEPS = 8
CHANNELS = 16
#: Fields of a block before its smoothing weights: low and high conductances along x, r, w, and s.
OMEGA = 7
MAX_HISTORY = 8
#: Values that a coded stencil has at most: of the faces along an axis, and of s; as in operator.h.
FEW, FEW_EXTRA = 8, 128
#: Elements of a plane, halo and padding included: the kernels number the cells of a plane, and what the network says of
#: them, in 32 bits. Everything else is in 64.
MAX_PLANE = 2**31 - 2**16

_i64, _pointer = ctypes.c_int64, ctypes.c_void_p


@mirrors("dcdm_level")
class Level(ctypes.Structure):
    """dcdm_level of common.h."""

    _fields_ = [
        *[(name, _i64) for name in ("n_w", "n_r", "n_x", "pitch_w", "pitch_r", "origin", "full_w", "full_r", "has_r")],
        *[(name, _i64) for name in ("wrap_w", "wrap_r", "wrap_x")],
        *[(name, _i64) for name in ("half_w", "half_r", "half_x")],
        *[(name, _pointer) for name in ("place_w", "place_r", "place_x")],
        *[(name, _i64) for name in ("stop_r", "stop_x", "halo", "steps")],
        *[(name, _pointer) for name in ("block_class", "class_value", "block_start")],
        ("block_count", _i64),
        *[(name, _pointer) for name in ("blocks", "omegas", "x", "y", "r", "range")],
        *[(name, _i64) for name in ("w_begin", "w_end", "parts")],
        ("part", _pointer),
        ("strip", _i64),
    ]


@mirrors("dcdm_network")
class Network(ctypes.Structure):
    """dcdm_network of setup.h."""

    _matrix = ctypes.c_float * CHANNELS * CHANNELS
    _vector = ctypes.c_float * CHANNELS
    _fields_ = [
        ("conv", ctypes.c_float * CHANNELS * 24 * 9 * 8),
        ("conv_bias", _vector),
        ("hidden", _matrix),
        ("hidden_bias", _vector),
        ("out", _matrix),
        ("out_bias", _vector),
        ("base", _vector),
    ]


#: Formats of the source of a level.
SINGLE, DOUBLE, PACKED = range(3)


@mirrors("dcdm_setup")
class SetUp(ctypes.Structure):
    """dcdm_setup of setup.h."""

    _fields_ = [
        ("prepared", _pointer),
        ("format", _i64),
        *[(name, _pointer) for name in ("w_x", "w_r", "w_w", "s", "high_x", "high_r", "high_w")],
        *[(name, _pointer) for name in ("cells", "s_index", "s_value")],
        ("c", ctypes.c_double * 3),
        ("face", _i64 * 3),
        *[(name, _i64) for name in ("pitch_w", "pitch_r", "origin")],
        *[(name, _pointer) for name in ("c_x", "c_r", "c_w", "c_s")],
        *[(name, _pointer) for name in ("share_x", "share_r", "share_w")],
        *[(name, _i64) for name in ("c_pitch_w", "c_pitch_r", "c_origin")],
        ("range", _pointer),
        ("own", _i64 * 2 * 3),
        *[(name, _i64) for name in ("active", "taken", "lock", "classes")],
        ("class_source", ctypes.c_float * 4 * 256),
    ]


#: Kinds of memory of a hierarchy: of levels, zero or of whatever it holds, and the same of what set-up alone wants.
ZEROS, ROOM, PASSING_ZEROS, PASSING_ROOM, MEMORIES = range(5)


@mirrors("dcdm_levels")
class Levels(ctypes.Structure):
    """dcdm_levels of levels.h."""

    _fields_ = [
        ("level", _pointer),
        *[(name, _i64) for name in ("count", "threads")],
        ("bytes", _i64 * MEMORIES),
        ("memory", _pointer * MEMORIES),
        *[(name, _pointer) for name in ("work", "network", "prepared", "setup")],
        ("coarse", _pointer * 4),
        *[(name, _i64) for name in ("coarse_pitch_z", "coarse_pitch_y", "coarse_threads")],
        ("active", _pointer),
    ]


@mirrors("dcdm_operator")
class Operator(ctypes.Structure):
    """dcdm_operator of operator.h."""

    _fields_ = [
        ("packed", _i64),
        *[(name, _pointer) for name in ("words", "s_index")],
        *[(name, _i64) for name in ("s_pitch_w", "s_pitch_r", "s_origin")],
        ("s_value", _pointer),
        ("c", ctypes.c_double * 3),
        *[(name, _pointer) for name in ("w_x", "w_r", "w_w", "s")],
        *[(name, _i64) for name in ("pitch_w", "pitch_r", "origin")],
        ("codes", _pointer),
        ("few", ctypes.c_double * (3 * FEW)),
        ("factor", ctypes.c_double),
    ]


@mirrors("dcdm_loop")
class Loop(ctypes.Structure):
    """dcdm_loop of advance.h."""

    _fields_ = [
        *[(name, _pointer) for name in ("levels", "parents", "work")],
        *[(name, _i64) for name in ("count", "visits")],
        *[(name, _pointer) for name in ("coarse", "finest", "a", "direction", "planes", "sums")],
        ("closed", _i64),
    ]


def declared(c: ctypes.CDLL, signatures: Mapping[str, tuple[Any, Any]]) -> ctypes.CDLL:
    """The library, with the result and the arguments of these functions told to ctypes: calls convert them quickly."""
    for name, (result, arguments) in signatures.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


@functools.cache
def kernels(half: bool = True) -> ctypes.CDLL:
    """The library with its signatures declared. `half`: its coefficients
    are bfloat16, else float.
    """
    c = library(half)
    level, f64, i32 = ctypes.POINTER(Level), ctypes.c_double, ctypes.c_int
    signatures = {
        "dcdm_work_floats": (_i64, [level]),
        "dcdm_setup_bytes": (_i64, [level]),
        "dcdm_prepared_bytes": (_i64, []),
        "dcdm_prepare": (None, [ctypes.POINTER(Network), *[i32] * 4, _pointer]),
        "dcdm_size_levels": (None, [ctypes.POINTER(Levels)]),
        "dcdm_place_levels": (None, [ctypes.POINTER(Levels)]),
        "dcdm_make_levels": (None, [ctypes.POINTER(Levels)]),
        "dcdm_set_up": (None, [level, ctypes.POINTER(Network), ctypes.POINTER(SetUp), _pointer, i32]),
        "dcdm_join_shares": (None, [level, ctypes.POINTER(SetUp), i32]),
        "dcdm_active": (_i64, [_pointer, _pointer, _i64, _i64, _pointer, _pointer, _i64, _pointer, i32]),
        "dcdm_bounds": (None, [*[_pointer] * 4, i32, *[_i64] * 5, _pointer, i32]),
        "dcdm_packed_bounds": (None, [_pointer, *[_i64] * 5, _pointer]),
        "dcdm_share_out": (None, [level, *[_i64] * 3]),
        "dcdm_load": (None, [level, _pointer, f64, i32]),
        "dcdm_unload": (None, [level, _pointer, f64, i32]),
        "dcdm_down": (None, [_pointer, _pointer, _pointer, i32, _pointer, f64, i32]),
        "dcdm_up": (None, [_pointer, _pointer, _pointer, i32, _pointer, f64, _pointer, f64, _pointer]),
        "dcdm_cycle": (None, [*[_pointer] * 3, i32, i32, _pointer, _pointer, f64, _pointer, f64, _pointer]),
        "dcdm_dots": (None, [_pointer, _pointer, _pointer, _pointer, i32, _pointer, _pointer]),
        "dcdm_step": (None, [*[_pointer] * 6, i32, f64, i32, *[_pointer] * 5]),
        "dcdm_residual": (None, [_pointer] * 7),
        "dcdm_clear": (None, [_pointer, _i64, i32]),
        "dcdm_clear_outside": (None, [_pointer, _pointer, _i64, _i64]),
        "dcdm_total": (None, [_pointer, _i64, i32, _pointer]),
        "dcdm_conjugate": (i32, [_pointer, _pointer, i32, _i64, _pointer, _pointer]),
        "dcdm_advance": (None, [_pointer, f64, _pointer, _pointer, i32, _pointer, i32, *[_pointer] * 4]),
        "dcdm_codes": (i32, [_pointer, _pointer, _pointer, _pointer, i32]),
        "dcdm_words": (None, [_pointer, _pointer, _i64, _i64, _pointer, i32]),
        "dcdm_packed_asymmetry": (_i64, [_pointer, *[_i64] * 3, i32]),
        "dcdm_renumber": (None, [_pointer, _i64, _pointer]),
        "dcdm_renumber_box": (None, [_pointer, *[_i64] * 5, _pointer]),
        "dcdm_renumber_rows": (None, [_pointer, _i64, _i64, _i64, _pointer, _i64, _pointer]),
    }
    return declared(c, signatures)


class Geometry:
    """How the arrays of a level lie in memory; see common.h. `flat`: the grid is one cell thick in z, and so are they.
    `rings`: the axes (z, y, x) along which the first and the last cell here, of two or more, are neighbours. `memory`
    makes zeros, `room` what may hold anything.

    `planes`: numbers of planes and of rows in a plane (n_w, n_r); `pitches`: from plane to plane and from row to row
    (pitch_w, pitch_r); `origin`: element of the first cell; `size`: elements of an array.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        flat: bool,
        rings: tuple[bool, bool, bool] = (False, False, False),
        memory: Callable[[int, type], np.ndarray] = aligned_zeros,
        room: Callable[[int, type], np.ndarray] = aligned_empty,
    ) -> None:
        self.shape, self.flat, self.rings, self.memory, self.room = shape, flat, rings, memory, room
        nz, ny, nx = shape
        row = self.pitch = -(-nx // ALIGN) * ALIGN + ALIGN if rings[2] else -(-(nx + 2) // ALIGN) * ALIGN
        self.planes = (ny, 1) if flat else (nz, ny)
        self.pitches = (row if flat else (ny + 2) * row), row
        self.origin = ALIGN + self.pitches[0] + (0 if flat else row)
        self.size = (self.planes[0] + 2) * self.pitches[0] + 2 * ALIGN

    def zeros(self, dtype: type = np.float32) -> Padded:
        return self.several(1, dtype)[0]

    def several(self, count: int, dtype: type = np.float32, zeros: bool = True) -> list[Padded]:
        """So many arrays, one behind the other: to be had in the time of one. Not ``zeros``: of whatever they hold."""
        size = self.size
        buffer = (self.memory if zeros else self.room)(count * size, dtype)
        address, step = address_of(buffer), size * buffer.itemsize
        return [Padded(self, buffer[i * size : (i + 1) * size], address + i * step) for i in range(count)]

    def require_fit(self) -> None:
        """KernelsUnavailable where a plane has more elements than the kernels can number."""
        elements = self.pitches[0]
        if elements > MAX_PLANE:
            raise KernelsUnavailable(
                f"a rank's box has {self.shape[2]} x {self.planes[1]} cells in a plane, with its halo {elements} "
                f"elements, and the C kernels can number {MAX_PLANE}: use more ranks"
            )

    def level(self, **more: int) -> Level:
        """A level of such arrays that has no memory yet, with `more` of its fields."""
        n_w, n_r = self.planes
        pitch_w, pitch_r = self.pitches
        return Level(
            n_w=n_w,
            n_r=n_r,
            n_x=self.shape[2],
            stop_r=n_r,
            stop_x=self.shape[2],
            pitch_w=pitch_w,
            pitch_r=pitch_r,
            origin=self.origin,
            has_r=int(not self.flat),
            wrap_w=int(self.rings[1 if self.flat else 0]),
            wrap_r=int(self.rings[1] and not self.flat),
            wrap_x=int(self.rings[2]),
            **more,
        )


class Padded:
    """One array of a level: `view` (nz + 2, ny + 2, nx + 2) with its halo, `inner` without, `address` for C. Of a flat
    grid the three layers of the view are one: nothing is below or above it.
    """

    def __init__(self, geometry: Geometry, buffer: np.ndarray, address: int) -> None:
        self.buffer, self.address = buffer, address
        self._geometry = geometry

    @functools.cached_property
    def view(self) -> np.ndarray:
        """The array with its halo."""
        nz, ny, nx = self._geometry.shape
        row, item = self._geometry.pitch, self.buffer.itemsize
        strides = (0 if self._geometry.flat else (ny + 2) * row * item, row * item, item)
        shape = (nz + 2, ny + 2, nx + 2)
        return np.ndarray(shape, self.buffer.dtype, self.buffer.data, (ALIGN - 1) * item, strides)

    @functools.cached_property
    def inner(self) -> np.ndarray:
        """The array without it."""
        return self.view[1:-1, 1:-1, 1:-1]
