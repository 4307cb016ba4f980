"""Cholesky factors of a small system on a grid that is on one rank, in compiled code; see native/src/coarse/band.c."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from petsc_dcdm.grid.layout import CoarseOperator
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.structures import mirrors

MOST_WORK = 3e7
"""Unknowns times the square of the band's width up to which these factors are made: 5 to 10 ms."""


@mirrors("dcdm_band")
class _Band(ctypes.Structure):
    """dcdm_band of band.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("unknowns", "width", "back", "threads")],
        *[(name, ctypes.c_void_p) for name in ("lower", "inverse", "vector", "place")],
    ]


@mirrors("dcdm_band_grid")
class _Grid(ctypes.Structure):
    """dcdm_band_grid of band.h."""

    _fields_ = [
        ("n", ctypes.c_int64 * 3),
        ("stride", ctypes.c_int64 * 3),
        ("w", ctypes.c_void_p * 3),
        ("s", ctypes.c_void_p),
    ]


@functools.cache
def _kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    i64, pointer, grid, band = ctypes.c_int64, ctypes.c_void_p, ctypes.POINTER(_Grid), ctypes.POINTER(_Band)
    signatures = {
        "dcdm_band_number": (i64, [grid, pointer, pointer, ctypes.POINTER(i64)]),
        "dcdm_band_back": (i64, [i64, i64]),
        "dcdm_band_places": (None, [pointer, *[i64] * 6, pointer]),
        "dcdm_band_factor": (i64, [grid, pointer, band, ctypes.c_double, pointer]),
        "dcdm_band_solve": (None, [band, pointer, pointer]),
    }
    return declared(library(), signatures)


class BandFactors:
    """L L' of an operator of which this rank has all, diagonals raised by the part ``shift`` of them. Two ``threads``
    work from either end, and give the same numbers as one; of a ``team`` that this rank leads, while it does.

    `unknowns` are its active cells, `width` is how far the numbers of neighbours lie apart. Not collective. Raises
    KernelsUnavailable.
    """

    def __init__(self, operator: CoarseOperator, shift: float, threads: int = 1, team: Workers = ONE_RANK) -> None:
        self._c, self._team = _kernels(), team
        self.shape, self._shift, self._threads = operator.shape, shift, team.threads or threads
        self._set(operator)

    def _set(self, operator: CoarseOperator) -> None:
        self._arrays = [np.ascontiguousarray(a, np.float64) for a in (*operator.w, operator.s)]
        nz, ny, nx = self.shape
        # Neighbours along the longest axis, whose cells are numbered slowest, are the furthest apart.
        along = sorted(range(3), key=lambda axis: -self.shape[2 - axis])
        grid = self._grid = _Grid(s=address_of(self._arrays[3]))
        for i, axis in enumerate(along):
            grid.n[i], grid.stride[i] = self.shape[2 - axis], (1, nx, nx * ny)[axis]
            grid.w[i] = address_of(self._arrays[axis])
        numbers = np.empty((2, nz * ny * nx), np.int32)
        self._number, cells = numbers
        self._number_at = address_of(numbers)
        width = ctypes.c_int64()
        self.unknowns = self._c.dcdm_band_number(grid, self._number_at, self._number_at + numbers.nbytes // 2, width)
        self.width, self.cells = width.value, cells[: self.unknowns]

    @property
    def cheap(self) -> bool:
        """Whether making the factors takes no longer than that of sparse ones."""
        return self.unknowns * (self.width + 1.0) ** 2 <= MOST_WORK

    def factor(self) -> bool:
        """Make the factors. False where a pivot is not positive: the operator is not positive definite."""
        self._back = self._c.dcdm_band_back(self.unknowns, self.width)
        rows = self.unknowns + (self.width if self._back else 0)  # those of the middle come from both ends
        sizes = rows * (self.width + 1), rows, rows + 2 * self.width, max(4 * self.width, 1)
        self._lower, self._inverse, self._vector, column = (self._team.room(size, np.float64) for size in sizes)
        self.band, number = self.banded(self.cells), self._number_at
        definite = not self._c.dcdm_band_factor(self._grid, number, self.band, self._shift, address_of(column))
        if self._team.ranks > 1:
            self.band.threads = 1  # that solve without the team
        return definite

    def update(self, operator: CoarseOperator) -> bool:
        """The same for an operator of the same shape; False as from `factor`, or where that is not `cheap`."""
        self._set(operator)
        return self.cheap and self.factor()

    def places(self, origin: int, pitch_y: int, pitch_z: int) -> np.ndarray:
        """int32: where the unknowns are in arrays of these pitches whose element ``origin`` is the first cell."""
        _, ny, nx = self.shape
        place = self._team.room(self.unknowns, np.int32)
        numbers = self.unknowns, nx, ny, origin, pitch_y, pitch_z
        self._c.dcdm_band_places(address_of(self.cells), *numbers, address_of(place))
        return place

    def banded(self, place: np.ndarray) -> _Band:
        """What C sees of it, for right-hand sides and solutions that have the unknowns at ``place`` (int32), which is
        to live as long.
        """
        arrays = (self._lower, self._inverse, self._vector, place)
        return _Band(self.unknowns, self.width, self._back, self._threads, *map(address_of, arrays))

    def solve(self, r: np.ndarray, x: np.ndarray) -> None:
        """``x = A^-1 r`` at active cells, float32 (nz, ny, nx), C-contiguous."""
        self._c.dcdm_band_solve(self.band, address_of(r), address_of(x))
