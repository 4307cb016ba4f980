"""The structures of lattice.h for ctypes."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from petsc_dcdm.native.structures import mirrors

_i64 = ctypes.c_int64

WORDS = 8
"""A row of the graph in int32: six neighbours and its place in two words."""


class Outcome(IntEnum):
    """What came of a search; the codes of lattice.h."""

    FOUND = 0
    CROWDED = 1
    STUCK = 2
    NO_MEMORY = 3
    TOO_LARGE = 4


@mirrors("lattice_row")
class Row(ctypes.Structure):
    """lattice_row."""

    _fields_ = [("beside", ctypes.c_int32 * 6), ("place", _i64)]


@mirrors("lattice_search")
class Search(ctypes.Structure):
    """lattice_search."""

    _fields_ = [
        ("rows", _i64),
        ("row", ctypes.c_void_p),
        ("entries", _i64),
        ("one_way", _i64),
        ("cell", ctypes.c_void_p),
        ("shape", _i64 * 3),
        *[(name, _i64) for name in ("components", "guesses", "undone", "code")],
        ("bad", _i64 * 2),
    ]
