"""The stencil of the local rows of an AIJ matrix, read by compiled code.

numpy in, numpy out: neither PETSc nor MPI is imported, and nothing here is collective. Axes are 0, 1, 2 for
x, y, z, shapes (nz, ny, nx). All functions raise `KernelsUnavailable` (petsc_dcdm.native.build) where
there is no C compiler.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.memory import aligned_empty
from petsc_dcdm.stencil.entries.binding import Matrix, Output, Report, kernels, pointer, set_box
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.report import SUM_ROUNDING, MoreDirichlet, Problem, StencilError, StencilReport
from petsc_dcdm.stencil.forms.axis_sums import AxisSums
from petsc_dcdm.stencil.packed import PackedStencil

ANY = int(np.iinfo(np.int64).max)
"""Entries of a row, however many."""


class Beside(NamedTuple):
    """float64, x in the ghost columns; int64, cells of own rows in the grid that those of the ghosts are of, or None
    and the first of them: they follow each other.
    """

    x: np.ndarray
    cells: np.ndarray | None
    first: int = 0


class CsrRows:
    """Reads the stencil of the rows `given`, with so many OpenMP threads in every call.

    Usage: ``rows.find_dirichlet()``; on several ranks ``rows.set_ghosts(...)`` for the columns that
    ``rows.ghost_columns()`` names; then ``rows.extract(...)``. The arrays are kept by reference and used in
    place.
    """

    def __init__(self, given: RowsOnGrid, threads: int = 1) -> None:
        indptr, indices, values, shape = given.indptr, given.indices, given.values, given.shape
        cells, other = given.cells, given.other
        kind = np.int64 if indptr.dtype == np.int64 or indices.dtype == np.int64 else np.int32
        self._indptr = np.ascontiguousarray(indptr, kind)
        self._indices = np.ascontiguousarray(indices, kind)
        self._values = np.ascontiguousarray(values, np.float64)
        self._other = other
        self._cells = None if cells is None else np.ascontiguousarray(cells, np.int64)
        self.rows = indptr.size - 1
        if self._indices.size != self._values.size or (self.rows >= 0 and self._indptr[-1] > self._values.size):
            raise ValueError("indptr, indices and values do not belong together")
        if self._cells is not None and self._cells.size != self.rows:
            raise ValueError(f"{self._cells.size} cell numbers for {self.rows} rows")
        self._threads = threads
        self._library = kernels()
        self.dirichlet = np.zeros(self.rows, np.uint8)
        self._assumed = False
        self._ghosts: tuple[np.ndarray, ...] = ()
        self._fixed: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._c = Matrix(
            rows=self.rows,
            indptr=pointer(self._indptr),
            indices=pointer(self._indices),
            values=pointer(self._values),
            wide=int(kind is np.int64),
            first_column=given.first_column,
            shift=given.first_column if other is None else 0,
            cell=pointer(self._cells),
            ascending=int(self._cells is not None and (given.line > 0 or _increase(self._cells))),
            line=given.line,
            first_cell=given.first_cell,
            dirichlet=pointer(self.dirichlet),
            nx=shape[2],
            ny=shape[1],
            nz=shape[0],
            ring=given.periodic[::-1],
            sign=1.0,
            scale=1.0,
        )
        if other is not None:
            block = [np.ascontiguousarray(a, k) for a, k in zip(other, (kind, kind, np.float64), strict=False)]
            self._other = (block[0], block[1], block[2], np.ascontiguousarray(other[3], np.int64))
            self._c.off_indptr, self._c.off_indices, self._c.off_values = map(pointer, block)
            self._c.ghost_column = pointer(self._other[3])

    def find_dirichlet(self, longest: int | None = None, first: int = 0, last: int | None = None) -> np.ndarray:
        """uint8 [rows], 1 for rows whose off-diagonal entries are all zero or absent. Kept as `dirichlet`.

        longest: rows of more entries (of the first block) are not looked at but taken for coupled. Where `extract` or
        `extract_packed` then find one that is not they raise MoreDirichlet. first, last: only local rows of these.
        """
        self._assumed = longest is not None
        longest, last = ANY if longest is None else longest, self.rows if last is None else last
        self._library.dcdm_csr_dirichlet(self._c, self._c.dirichlet, first, last, longest, self._threads)
        self._fixed = None
        return self.dirichlet

    def keep_dirichlet(self, flags: np.ndarray) -> None:
        """uint8 [rows], C-contiguous, to be `dirichlet` from now on: before `find_dirichlet`."""
        self.dirichlet, self._c.dirichlet = flags, pointer(flags)

    def find_penalties(self, least: float) -> int:
        """Adds to `dirichlet` the rows with an s beyond 1e6 times their couplings and a diagonal beyond 1e6 times
        `least`; returns how many these are.
        """
        self._fixed = None
        return int(self._library.dcdm_csr_penalties(self._c, self._c.dirichlet, least, self._threads))

    def diagonals(self, rows: np.ndarray) -> np.ndarray:
        """float64: the diagonal entries of some local rows (int64), 0 where there is none."""
        found = np.zeros(rows.size)
        self._library.dcdm_csr_diagonals(self._c, pointer(rows), rows.size, pointer(found), self._threads)
        return found

    def fixed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows that `dirichlet` flags, int64 in order; their diagonal entries as from `diagonals`; those of the
        rows where that is 0. The same arrays until flags are found anew.
        """
        if self._fixed is not None:
            return self._fixed
        count = np.count_nonzero(self.dirichlet.view(bool))
        rows, found = aligned_empty(count, np.int64), aligned_empty(count, np.float64)
        empty = self._library.dcdm_csr_fixed(self._c, pointer(rows), pointer(found), self._threads)
        self._fixed = rows, found, rows[found == 0.0] if empty else rows[:0]
        return self._fixed

    def some_diagonal(self, step: int) -> float:
        """The size of the largest diagonal entry of one in ``step`` local rows; NaN does not count."""
        return float(self._library.dcdm_csr_some_diagonal(self._c, step))

    def first_sign(self) -> float:
        """Sign (1.0 or -1.0) of the first non-zero diagonal entry of a local coupled row, 0.0 if there is none."""
        return float(self._library.dcdm_csr_sign(self._c))

    def ghost_columns(self) -> np.ndarray:
        """int64, sorted: the columns that belong to no local row."""
        if self._other is not None:
            return self._other[3]
        capacity = max(1024, self.rows // 8)
        while True:
            found = np.empty(capacity, np.int64)
            count = self._library.dcdm_csr_outside(self._c, pointer(found), capacity, self._threads)
            if count <= capacity:
                return np.unique(found[:count])
            capacity = count

    def set_ghosts(self, columns: np.ndarray, cells: np.ndarray, dirichlet: np.ndarray) -> None:
        """Cell numbers and Dirichlet flags of the columns that `ghost_columns` names, in its order."""
        self._ghosts = (
            np.ascontiguousarray(columns, np.int64),
            np.ascontiguousarray(cells, np.int64),
            np.ascontiguousarray(dirichlet, np.uint8),
        )
        self._c.ghosts = self._ghosts[0].size
        self._c.ghost_column, self._c.ghost_cell, self._c.ghost_dirichlet = map(pointer, self._ghosts)

    def without_dirichlet(
        self, rows: np.ndarray, x: np.ndarray, b: np.ndarray, to: np.ndarray, beside: Beside | None = None
    ) -> bool:
        """``to = b`` without what the values of ``x`` in the Dirichlet ``rows`` (int64) add to the other rows, and 0 in
        these. Returns whether those values are all finite.

        x is float64 in the order of the rows; b and to, which may be b, are in that of the cells, and C-contiguous. On
        several ranks, ``beside`` others and after `set_ghosts`, all are in the order of the rows, and the grid may be
        the box that the rows fill in order; ``to`` is another array than b.
        """
        self.dirichlet[rows] = 1
        row_of, c = None, self._library
        if self._cells is not None:
            row_of = np.full(self._c.nx * self._c.ny * self._c.nz, -1, np.int64)
            row_of[self._cells] = np.arange(self.rows)
        flagged, vectors, by_rows = (pointer(rows), rows.size), [*map(pointer, (x, b, to))], int(beside is not None)
        finite = c.dcdm_csr_without_dirichlet(self._c, *flagged, pointer(row_of), by_rows, *vectors, self._threads)
        if beside is not None:
            more = pointer(beside.cells), beside.first, pointer(beside.x)
            c.dcdm_csr_without_ghosts(self._c, *more, *vectors, self._threads)
        return bool(finite)

    def offsets(self, capacity: int = 8) -> np.ndarray | None:
        """Sorted distinct |column - row| > 0 of the non-zero entries; None if more than `capacity`."""
        found = np.empty(capacity, np.int64)
        count = self._library.dcdm_csr_offsets(self._c, pointer(found), capacity, self._threads)
        return None if count > capacity else np.sort(found[:count])

    def couplings(self, to: np.ndarray) -> tuple[int, int, int]:
        """The graph of the local rows, into an int32 array [rows, 8]: the global numbers of at most six rows that a row
        is coupled to, -1 behind them.

        Returns how many entries there are, the first local row that has more than six, or -1, and a checksum: the sum
        over all ranks modulo 2**64 is 0 if each coupling is stored in both of its rows. As many entries as rows are the
        rows, with -1 in their last two words. Fewer are strands: the int64 in the last two words is the global number
        of the first row, to whose neighbours t is added for the t-th row after it, up to the next entry's.
        """
        entries, one_way = ctypes.c_int64(0), ctypes.c_uint64(0)
        crowded = self._library.dcdm_lattice_rows(self._c, pointer(to), entries, one_way, self._threads)
        return entries.value, int(crowded), one_way.value

    def extract(
        self,
        w_low: Sequence[np.ndarray | None],
        s: np.ndarray | None,
        *,
        w_high: Sequence[np.ndarray | None] = (None, None, None),
        diagonal: np.ndarray | None = None,
        sign: float = 1.0,
        scale: float = 1.0,
        rounding: float = 1e-12,
        sum_rounding: float = SUM_ROUNDING,
        box: tuple[Shape, Shape] | None = None,
    ) -> StencilReport:
        """Read the stencil of all local rows into the given arrays (None: not wanted), and check it.

        Arrays are all float64 or all float32 and C-contiguous. Without `box` they have one element per local
        row. With ``box = (offset, shape)`` (z, y, x) they are grid arrays with a one-cell halo, (nz + 2, ny +
        2, nx + 2): the row of cell (k, j, i) goes to element [k - offset[0] + 1, j - offset[1] + 1, i -
        offset[2] + 1], everything else is left as it is, and rows outside of the box are an error.

        Parameters
        ----------
        w_low, w_high
            conductance >= 0 to the low and high neighbour along x, y, z; 0 where there is none,
            where that neighbour is a Dirichlet row, and in Dirichlet rows
        s
            diagonal - sum of w, which includes the coupling to Dirichlet rows; 0 in Dirichlet
            rows and where it is less than `rounding` times the diagonal
        diagonal
            of every row, Dirichlet rows included
        sign, scale
            all are multiplied by both; the matrix times `sign` must have a positive diagonal
        rounding
            relative to the diagonal: wrong signs up to it, of entries and of row sums, are taken for zero
        sum_rounding
            relative to the diagonal: row sums up to it are taken for zero

        Raises StencilError for the first local row that does not fit; the arrays are then half filled.
        """
        given = [a for a in (*w_low, *w_high, s, diagonal) if a is not None]
        kind = given[0].dtype if given else np.dtype(np.float64)
        shape = (self.rows,) if box is None else tuple(n + 2 for n in box[1])
        for a in given:
            if a.dtype != kind or kind not in (np.float32, np.float64) or a.shape != shape or not a.flags.c_contiguous:
                raise ValueError(f"expected contiguous float arrays {shape}, all alike; got {a.dtype} {a.shape}")
        out = Output(s=pointer(s), diagonal=pointer(diagonal), single=int(kind == np.float32))
        for axis in range(3):
            out.w_low[axis] = pointer(w_low[axis])
            out.w_high[axis] = pointer(w_high[axis])
        if box is not None:
            set_box(out, *box)
        return self._extract(out, sign, scale, rounding, sum_rounding)

    def extract_packed(
        self,
        *,
        sign: float = 1.0,
        scale: float = 1.0,
        rounding: float = 1e-12,
        sum_rounding: float = SUM_ROUNDING,
        box: tuple[Shape, Shape] | None = None,
        into: Sequence[np.ndarray] | None = None,
    ) -> tuple[PackedStencil, StencilReport] | None:
        """The same as `extract`, packed, or None if it can not be. ``into``: zeros, uint8, for `cells` and `s_index`,
        if they are not to be new arrays.

        It can where all conductances along an axis are 0 or bitwise the same, and s has at most 255 values. Packed is
        what the local rows say: without `box` cells are in the order of the rows, halos are 0, and on several ranks `c`
        and `s_value` are this rank's own.
        """
        shape = (self.rows,) if box is None else tuple(n + 2 for n in box[1])
        cells, index = [np.zeros(shape, np.uint8) for _ in range(2)] if into is None else into
        for a in (cells, index):
            if a.dtype != np.uint8 or a.shape != shape or not a.flags.c_contiguous:
                raise ValueError(f"expected contiguous bytes {shape}; got {a.dtype} {a.shape}")
        values = np.zeros(256)
        out = Output(cells=pointer(cells), s_index=pointer(index), s_value=pointer(values), s_count=1)
        if box is not None:
            set_box(out, *box)
        report = self._extract(out, sign, scale, rounding, sum_rounding)
        if out.misfits:
            return None
        x, y, z = out.c
        return PackedStencil(cells, index, (x, y, z), values).scaled(scale), report

    def add_up(
        self,
        sums: AxisSums,
        *,
        sign: float = 1.0,
        scale: float = 1.0,
        box: tuple[Shape, Shape] | None = None,
    ) -> None:
        """What the rows of a compact 9- or 27-point matrix add up to. Arrays of ``sums`` are as those of `extract`.

        sign, scale: all arrays are multiplied by both; the matrix times ``sign`` must have a positive diagonal.
        Raises StencilError for a local row that does not fit; the arrays are then half filled.
        """
        out = Output(s=pointer(sums.s), diagonal=pointer(sums.diagonal))
        for axis in range(3):
            out.w_low[axis], out.w_high[axis] = pointer(sums.low[axis]), pointer(sums.high[axis])
        if box is not None:
            set_box(out, *box)
        self._c.sign, self._c.scale = sign, scale
        magnitude, report = ctypes.c_double(0.0), Report()
        couplings = pointer(sums.couplings), len(sums.couplings), sums.s.size
        found = pointer(sums.mixture), magnitude, report
        self._library.dcdm_csr_nearest(self._c, out, *couplings, *found, self._threads)
        if report.code:
            raise StencilError(Problem(report.code), report.row, report.column, report.value)
        sums.magnitude, sums.symmetry = magnitude.value, report.symmetry
        sums.wrapped, sums.twists = _axes(report.wrapped), report.wrapped >> 3

    def _extract(self, out: Output, sign: float, scale: float, rounding: float, sum_rounding: float) -> StencilReport:
        self._c.sign, self._c.scale, self._c.rounding, self._c.sum_rounding = sign, scale, rounding, sum_rounding
        report = Report()
        self._library.dcdm_csr_extract(self._c, out, report, self._threads)
        if self._assumed and (out.hidden or report.code):
            raise MoreDirichlet
        if report.code:
            raise StencilError(Problem(report.code), report.row, report.column, report.value)
        return StencilReport(
            report.max_diagonal,
            tuple(report.w_min),
            tuple(report.w_max),
            tuple(report.w_sum),
            tuple(report.w_count),
            report.least_diagonal,
            report.extra,
            (report.least_sum, report.most_sum),
            (report.small_sums[0], report.small_sums[1]),
            report.stiff,
            bool(report.inexact),
            _axes(report.wrapped),
            report.symmetry,
        )


def _increase(cells: np.ndarray) -> bool:
    return bool((cells[1:] > cells[:-1]).all())


def _axes(bits: int) -> tuple[bool, bool, bool]:
    return bool(bits & 1), bool(bits & 2), bool(bits & 4)
