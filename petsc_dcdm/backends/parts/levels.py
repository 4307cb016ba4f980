"""Levels whose coarse cells hold several unknowns: where a wall or a jump of the coefficient goes through a block of
2 x 2 x 2 cells, each of the parts that hang together is one (embedded-boundary methods call them multi-valued cells).

A coupling joins two unknowns of a block if it is at least `TOGETHER` times the strongest of both; what is joined is a
part. What couples two parts is taken in series with half of the ways within them: in a uniform medium half of it, as
ever, and all of a hole in a wall or of the contact of a stiff body (plates at 48^3: 6 iterations instead of 15). Blocks
of every second level begin half a block earlier, so that what a boundary of blocks has kept apart comes
together on the next level: white noise of deviation 3 takes 12 iterations instead of 15. numpy only.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import aligned_zeros
from petsc_dcdm.native.structures import mirrors

TOGETHER, TOGETHER_FLAT = 0.2, 0.1
"""Less merges too much where a medium is rough (a reservoir of 60 x 220 x 85 cells takes 19 iterations with 0.1 and 13
with 0.2), more leaves too many unknowns; the second in the plane (layers 256^2: 16 iterations, 27 with 0.2)."""

SLOW, SLOW_FLAT = 0.7, 0.8
"""Share of unknowns left from which on a level is divided again with couplings of a quarter of that strength; in the
plane, where ways around are few and levels cheap, later."""

WEAKEST = 1e-6
"""Strength at which that ends."""

STRONG = 0.3
"""Axes are halved along which the median unknown is coupled so strongly beside its strongest axis."""

DENSE_LIMIT = 400
"""Unknowns of which the inverse is made: 10 ms, and more than that is slower than another level."""

DENSE_MOST = 1500
"""The same where parts do not get fewer; beyond it the coarsest level is smoothed only."""

MOST_WORK, MOST_WORK_FLAT = 0.8, 1.4
"""A level combines two directions if all its visits together take no more than this share of one of the finest level:
where unknowns get fewer slowly, that does not double on every level. Noise of deviation 3 at 256^2: 22, 15, 12
iterations with 0.6, 1 and 1.4, at 48^3 13 with 0.6 and 11 with 1."""

MOST_LEVELS = 24

SLICE = 16
"""Rows that are worked on together; as in parts.h."""

_i64, _pointer = ctypes.c_int64, ctypes.c_void_p


@mirrors("parts_level")
class PartsLevel(ctypes.Structure):
    """parts_level of parts.h."""

    _fields_ = [
        ("n", _i64),
        ("blocks", _i64 * 3),
        *[(name, _pointer) for name in ("first", "block", "row", "column", "value")],
        *[(name, _pointer) for name in ("slice", "slice_column", "slice_value", "longer", "s", "inverse")],
        ("halved", _i64 * 3),
        ("shift", _i64 * 3),
        ("twice", _i64),
        *[(name, _pointer) for name in ("part", "x", "y", "r", "kept", "image")],
    ]


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    c = library()
    level, i32, f64 = ctypes.POINTER(PartsLevel), ctypes.c_int, ctypes.c_double
    signatures = {
        "dcdm_parts_grid_seen": (None, [_pointer, _pointer]),
        "dcdm_parts_grid_divide": (_i64, [_pointer, _pointer, _pointer, f64, _pointer, _pointer, i32]),
        "dcdm_parts_grid_rows": (None, [_pointer, _pointer, level, i32, i32]),
        "dcdm_parts_seen": (None, [level, _pointer, i32]),
        "dcdm_parts_strongest": (None, [level, _pointer, i32]),
        "dcdm_parts_divide": (_i64, [level, _pointer, f64, _pointer, _pointer, _pointer, i32]),
        "dcdm_parts_room": (None, [level, level, _pointer, i32]),
        "dcdm_parts_rows": (None, [level, level, _pointer, _pointer, _pointer, i32]),
        "dcdm_parts_slices": (_i64, [level]),
        "dcdm_parts_pack": (None, [level, _pointer, _pointer, _pointer, i32]),
        "dcdm_parts_fill_grid": (None, [_pointer, _pointer, _pointer, i32]),
        "dcdm_parts_multiply": (None, [_pointer, _pointer, _pointer, i32]),
        "dcdm_parts_solve": (None, [_pointer, _pointer, _i64, _pointer, _pointer, _i64, _pointer, i32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


class Part:
    """One level: its arrays, and the structure that C sees. `blocks` are (x, y, z)."""

    def __init__(self, blocks: Sequence[int], first: np.ndarray) -> None:
        self.blocks, self.n = tuple(blocks), int(first[-1])
        self.first = first
        self.row = np.empty(self.n + 1, np.int64)
        self.block = np.empty(self.n, np.int32)
        self.column, self.value = np.empty(0, np.int32), np.empty(0, np.float32)
        self.slice, self.longer = np.empty(0, np.int64), np.empty(0, np.uint8)
        self.slice_column, self.slice_value = self.column, self.value
        self.part = np.empty(0, np.int32)
        whole = -(-self.n // SLICE) * SLICE
        self.s, self.inverse = (np.zeros(whole, np.float32) for _ in range(2))
        self.x = self.y = self.r = self.kept = self.image = np.empty(0, np.float32)
        self.twice = False
        self.halved: tuple[int, ...] = (0, 0, 0)
        self.shift: tuple[int, ...] = (0, 0, 0)

    @property
    def c(self) -> PartsLevel:
        """For C; valid while the arrays of this level are those of now."""
        level = PartsLevel(n=self.n, twice=int(self.twice))
        level.blocks[:], level.halved[:], level.shift[:] = self.blocks, self.halved, self.shift
        for name, kind in ((field[0], field[1]) for field in level._fields_):
            if kind is _pointer:
                setattr(level, name, getattr(self, name).ctypes.data)
        return level

    def take_rows(self, room: np.ndarray, column: np.ndarray, value: np.ndarray, threads: int) -> None:
        """Rows that lie at ``room``, and room for what the cycle does with them."""
        self.begin_rows()
        self.slice_rows(room, column, value, threads)

    def begin_rows(self) -> None:
        """Room for the rows, whose lengths are known."""
        self.slice = np.empty(self.s.size // SLICE + 1, np.int64)
        self.longer = np.empty(self.slice.size, np.uint8)
        places, count = kernels().dcdm_parts_slices(self.c), int(self.row[-1])
        self.column, self.value = np.empty(count, np.int32), np.empty(count, np.float32)
        self.slice_column, self.slice_value = np.empty(places, np.int32), np.empty(places, np.float32)

    def slice_rows(self, room: np.ndarray, column: np.ndarray, value: np.ndarray, threads: int) -> None:
        """The rows, from where they lie at ``room``, to all their places."""
        pointers = (array.ctypes.data for array in (room, column, value))
        kernels().dcdm_parts_pack(self.c, *pointers, threads)
        self.x, self.y, self.r = (np.zeros(self.s.size, np.float32) for _ in range(3))


def axes_to_halve(sizes: Sequence[int], seen: Sequence[float]) -> tuple[int, ...]:
    """Along which of x, y, z a level of so many blocks is halved, by what the median unknown sees; 0 or 1 each.
    All of them where it sees no axis.
    """
    strongest = max((value for n, value in zip(sizes, seen, strict=True) if n > 1), default=0.0)
    return tuple(int(n > 1 and value >= STRONG * strongest) for n, value in zip(sizes, seen, strict=True))


def weaken(divide: Callable[[float], int], n: int, flat: bool) -> int:
    """Call ``divide`` with weaker and weaker couplings that join, until it leaves few enough of ``n``; how many."""
    together, slow, count = (TOGETHER_FLAT if flat else TOGETHER), (SLOW_FLAT if flat else SLOW), n
    while together >= WEAKEST:
        count = divide(together)
        if count <= slow * n:
            break
        together /= 4
    return count


def levels_below(first: Part, finest: int, threads: int) -> list[Part]:
    """The first level below a grid of ``finest`` unknowns, and all coarser ones."""
    levels, flat = [first], first.blocks[2] == 1
    while levels[-1].n > DENSE_LIMIT and len(levels) < MOST_LEVELS:
        coarse = _coarse(levels[-1], len(levels) % 2 == 1, flat, threads)
        if coarse is None:
            break
        levels.append(coarse)
    times = 1
    for level in levels[:-1]:
        level.twice = 2 * times * level.n <= (MOST_WORK_FLAT if flat else MOST_WORK) * finest
        times *= 1 + level.twice
        level.kept, level.image = (np.zeros(level.s.size * level.twice, np.float32) for _ in range(2))
    return levels


def _coarse(level: Part, shifted: bool, flat: bool, threads: int) -> Part | None:
    """The next level; None where nothing can be joined any more."""
    c, seen = kernels(), np.zeros(3)
    c.dcdm_parts_seen(level.c, seen.ctypes.data, threads)
    level.halved = axes_to_halve(level.blocks, seen.tolist())
    if not any(level.halved):
        return None
    level.shift = tuple(int(shifted and halved and n > 2) for halved, n in zip(level.halved, level.blocks, strict=True))
    sizes = zip(level.blocks, level.halved, level.shift, strict=True)
    blocks = [(n + shift + 1) // 2 if halved else n for n, halved, shift in sizes]
    first = np.empty(prod(blocks) + 1, np.int64)
    parent, level.part = np.empty(level.n, np.int32), np.empty(level.n, np.int32)
    strength = np.empty(level.n, np.float32)
    c.dcdm_parts_strongest(level.c, strength.ctypes.data, threads)
    sizes_c, arrays = (_i64 * 3)(*blocks), [array.ctypes.data for array in (strength, parent, first)]
    count = weaken(lambda together: c.dcdm_parts_divide(level.c, sizes_c, together, *arrays, threads), level.n, flat)
    if count == level.n or (count > (SLOW_FLAT if flat else SLOW) * level.n and prod(blocks) == 1):
        return None
    coarse = Part(blocks, first)
    room = np.empty(count + 1, np.int64)
    c.dcdm_parts_room(level.c, coarse.c, room.ctypes.data, threads)
    column, value = aligned_zeros(int(room[-1]), np.int32), aligned_zeros(int(room[-1]), np.float32)
    pointers = (array.ctypes.data for array in (room, column, value))
    c.dcdm_parts_rows(level.c, coarse.c, *pointers, threads)
    coarse.take_rows(room, column, value, threads)
    return coarse
