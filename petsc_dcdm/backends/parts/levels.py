"""Levels whose coarse cells hold several unknowns: where a wall or a jump of the coefficient goes through a block of
2 x 2 x 2 cells, each of the parts that hang together is one (embedded-boundary methods call them multi-valued cells).

A coupling joins two unknowns of a block if it is at least `TOGETHER` times the strongest of both; what is joined is a
part. What is left alone follows the neighbour that it is coupled to the most strongly. What couples two parts is taken
in series with half of the ways within them: in a uniform medium half of it, as ever, and all of a hole in a wall or of
the contact of a stiff body (plates at 48^3: 6 iterations instead of 15). Blocks of every second level begin half a
block earlier, so that what a boundary of blocks has kept apart comes together on the next level: white noise of
deviation 3 takes 12 iterations instead of 15. numpy only.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import library
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.structures import mirrors

TOGETHER = 0.2
"""Less merges too much where a medium is rough (a reservoir of 60 x 220 x 85 cells takes 19 iterations with 0.1 and 13
with 0.2; noise of deviation 3 at 256^2 13 and 10), more leaves too many unknowns."""

FOLLOWS = 0.15
"""Share of all its couplings from which on the strongest one of an unknown that nothing joins, if to an unknown with a
stronger coupling, makes it follow that one: what is beside a stiff body needs no number of its own. Noise of deviation
3 at 64^3 has 73,000 instead of 131,000 unknowns on the first level, and takes 10 iterations instead of 16. Not where
more than that holds it besides, its extra diagonal: a stiff cell at an open side would hold any body it followed by a
coupling of a millionth (shells of a gyroid 64^3: 52 iterations instead of 10, throats 256^2 26 instead of 10)."""

SLOW = 0.7
"""Share of unknowns left from which on a level is divided again with couplings of a quarter of that strength."""

WEAKEST = 1e-6
"""Strength at which that ends."""

STRONG = 0.3
"""Axes are halved along which a quarter of the unknowns are coupled so strongly beside their strongest axis: what other
unknowns are weakly coupled to stays apart in its block. With the median in the place of a quarter blocks of 12 cells
at 64^3 whose strong axes differ take 22 iterations instead of 11."""

DENSE_LIMIT = 400
"""Unknowns of which the inverse is made: 10 ms, and more than that is slower than another level."""

MOST_LEVELS = 24

_i64, _pointer = ctypes.c_int64, ctypes.c_void_p


@mirrors("parts_level")
class PartsLevel(ctypes.Structure):
    """parts_level of parts.h."""

    _fields_ = [
        ("n", _i64),
        ("blocks", _i64 * 3),
        *[(name, _pointer) for name in ("first", "block", "row", "column", "value", "s")],
        ("halved", _i64 * 3),
        ("shift", _i64 * 3),
        ("part", _pointer),
    ]


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    c = library()
    level, i32, f64 = ctypes.POINTER(PartsLevel), ctypes.c_int, ctypes.c_double
    cycle = [*4 * [_pointer], _i64, _pointer, _pointer, _i64, _i64, _pointer]
    signatures = {
        "dcdm_parts_grid_seen": (None, [_pointer, _pointer]),
        "dcdm_parts_grid_divide": (_i64, [_pointer, _pointer, _pointer, f64, f64, _pointer, _pointer, i32]),
        "dcdm_parts_grid_rows": (None, [_pointer, _pointer, level, _pointer, _pointer, i32]),
        "dcdm_parts_seen": (None, [level, _pointer, i32]),
        "dcdm_parts_strongest": (None, [level, _pointer, i32]),
        "dcdm_parts_divide": (_i64, [level, _pointer, f64, f64, _pointer, _pointer, _pointer, _pointer, i32]),
        "dcdm_parts_room": (None, [level, level, _pointer, i32]),
        "dcdm_parts_ways": (None, [level, _pointer, i32]),
        "dcdm_parts_rows": (_i64, [level, level, _pointer, _pointer, i32]),
        "dcdm_parts_order": (None, [level, *4 * [_pointer], i32]),
        "dcdm_parts_pack": (None, [level, _pointer, _pointer, i32]),
        "dcdm_parts_lead": (None, [_i64, _pointer, _pointer, _pointer, _pointer, i32]),
        "dcdm_parts_collect": (None, [_i64, _pointer, _i64, _pointer, _pointer]),
        "dcdm_parts_fill_grid": (_i64, [_pointer, _pointer, _pointer, _i64, _i64, i32]),
        "dcdm_parts_solve": (None, [*cycle, i32]),
        "dcdm_parts_solve_well": (None, [*cycle, _pointer, _pointer, f64, i32]),
    }
    return declared(c, signatures)


class Part:
    """One level as set-up makes it, unknowns block by block, and the structure that C sees. `blocks` are (x, y, z).
    Arrays are in the memory of ``team``, ``first`` as well.
    """

    def __init__(self, blocks: Sequence[int], first: np.ndarray, team: Workers) -> None:
        self.blocks, self.n = tuple(blocks), int(first[-1])
        self.first, self._team = first, team
        self.row = team.room(self.n + 1, np.int64)
        self.block = team.room(self.n, np.int32)
        self.column, self.value = np.empty(0, np.int32), np.empty(0, np.float32)
        self.part = np.empty(0, np.int32)
        self.s = team.room(self.n, np.float32)
        self.halved: tuple[int, ...] = (0, 0, 0)
        self.shift: tuple[int, ...] = (0, 0, 0)

    @property
    def c(self) -> PartsLevel:
        """For C; valid while the arrays of this level are those of now."""
        level = PartsLevel(n=self.n)
        level.blocks[:], level.halved[:], level.shift[:] = self.blocks, self.halved, self.shift
        for name, kind in ((field[0], field[1]) for field in level._fields_):
            if kind is _pointer:
                setattr(level, name, getattr(self, name).ctypes.data)
        return level

    def make_room(self, couplings: int) -> None:
        """Room for so many couplings; what is not written to takes no memory."""
        self.column, self.value = self._team.room(couplings, np.int32), self._team.room(couplings, np.float32)

    def hold(self, couplings: int) -> None:
        """The rows have so many couplings, of which there was room for more."""
        self.column, self.value = self.column[:couplings], self.value[:couplings]


def axes_to_halve(sizes: Sequence[int], seen: Sequence[float]) -> tuple[int, ...]:
    """Along which of x, y, z a level of so many blocks is halved, by what a quarter of the unknowns see; 0 or 1
    each, 1 for all of them where it sees no axis.
    """
    strongest = max((value for n, value in zip(sizes, seen, strict=True) if n > 1), default=0.0)
    return tuple(int(n > 1 and value >= STRONG * strongest) for n, value in zip(sizes, seen, strict=True))


def weaken(divide: Callable[[float], int], n: int) -> int:
    """Call ``divide`` with weaker and weaker couplings that join, until it leaves few enough of ``n``; how many."""
    together, count = TOGETHER, n
    while together >= WEAKEST:
        count = divide(together)
        if count <= SLOW * n:
            break
        together /= 4
    return count


def levels_below(first: Part, threads: int, team: Workers = ONE_RANK) -> list[Part]:
    """The first level below a grid, and all coarser ones."""
    levels = [first]
    while levels[-1].n > DENSE_LIMIT and len(levels) < MOST_LEVELS:
        coarse = _coarse(levels[-1], len(levels) % 2 == 1, threads, team)
        if coarse is None:
            break
        levels.append(coarse)
    return levels


def _coarse(level: Part, shifted: bool, threads: int, team: Workers) -> Part | None:
    """The next level; None where nothing can be joined any more."""
    c, seen = kernels(), np.zeros(3)
    c.dcdm_parts_seen(level.c, seen.ctypes.data, threads)
    level.halved = axes_to_halve(level.blocks, seen.tolist())
    if not any(level.halved):
        return None
    level.shift = tuple(int(shifted and halved and n > 2) for halved, n in zip(level.halved, level.blocks, strict=True))
    sizes = zip(level.blocks, level.halved, level.shift, strict=True)
    blocks = [(n + shift + 1) // 2 if halved else n for n, halved, shift in sizes]
    first = team.room(prod(blocks) + 1, np.int64)
    parent, level.part = team.room(level.n, np.int32), team.room(level.n, np.int32)
    strength = team.room(level.n, np.float32)
    c.dcdm_parts_strongest(level.c, strength.ctypes.data, threads)
    sizes_c, joined = (_i64 * 3)(*blocks), team.room(level.n, np.uint8)
    arrays = [array.ctypes.data for array in (strength, parent, joined, first)]
    count = weaken(lambda together: c.dcdm_parts_divide(level.c, sizes_c, together, FOLLOWS, *arrays, threads), level.n)
    if count == level.n or (count > SLOW * level.n and prod(blocks) == 1):
        return None
    coarse = Part(blocks, first, team)
    room = team.room(count + 1, np.int64)
    c.dcdm_parts_room(level.c, coarse.c, room.ctypes.data, threads)
    coarse.make_room(int(room[-1]))
    ways = team.room(3 * level.n, np.float32)
    c.dcdm_parts_ways(level.c, ways.ctypes.data, threads)
    coarse.hold(c.dcdm_parts_rows(level.c, coarse.c, ways.ctypes.data, room.ctypes.data, threads))
    return coarse
