"""`CsrRows` in plain numpy: the same questions and answers where no compiler can be had, several times slower."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.native.build import have_kernels
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.report import SUM_ROUNDING, Problem, StencilError, StencilReport
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.forms.axis_sums import AxisSums, forward_places
from petsc_dcdm.stencil.local_csr import LocalRows

PENALTY = 1e6
"""An s that is so much more than the couplings of its row fixes the value there; as in csr.h."""


class NumpyRows:
    """See :class:`petsc_dcdm.stencil.entries.CsrRows`, whose methods these are. ``threads`` are of no use here."""

    def __init__(self, given: RowsOnGrid, threads: int = 1) -> None:
        self.rows = given.indptr.size - 1
        self._row = np.repeat(np.arange(self.rows), np.diff(given.indptr))
        self._column = given.indices.astype(np.int64)
        self._values = given.values
        self._shape, self._periodic = given.shape, given.periodic
        self._first = given.first_column
        self._cells = np.arange(given.first_cell, given.first_cell + self.rows) if given.cells is None else given.cells
        self._on_diagonal = self._column == self._row + self._first
        self._ghosts: tuple[np.ndarray, np.ndarray, np.ndarray] = (np.zeros(0, np.int64),) * 3
        self.dirichlet = np.zeros(self.rows, np.uint8)

    def find_dirichlet(self, longest: int | None = None) -> np.ndarray:
        """Of all rows, whatever `longest`."""
        coupled = ~self._on_diagonal & (self._values != 0)
        self.dirichlet[:] = 1
        self.dirichlet[self._row[coupled]] = 0
        return self.dirichlet

    def find_penalties(self, least: float) -> int:
        couplings = np.zeros(self.rows)
        np.add.at(couplings, self._row[~self._on_diagonal], np.abs(self._values[~self._on_diagonal]))
        diagonal = np.abs(self.diagonals(np.arange(self.rows)))
        found = (self.dirichlet == 0) & (diagonal > PENALTY * couplings) & (diagonal > PENALTY * least)
        self.dirichlet[found] = 1
        return int(np.count_nonzero(found))

    def diagonals(self, rows: np.ndarray) -> np.ndarray:
        d = np.zeros(self.rows)
        np.add.at(d, self._row[self._on_diagonal], self._values[self._on_diagonal])
        return d[rows]

    def fixed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.dirichlet)
        diagonals = self.diagonals(rows)
        return rows, diagonals, rows[diagonals == 0.0]

    def some_diagonal(self, step: int) -> float:
        return float(np.fmax.reduce(np.abs(self.diagonals(np.arange(0, self.rows, step))), initial=0.0))

    def first_sign(self) -> float:
        coupled = self.find_dirichlet() == 0
        diagonal = self._values[self._on_diagonal & coupled[self._row]]
        nonzero = diagonal[diagonal != 0]
        return float(np.sign(nonzero[0])) if nonzero.size else 0.0

    def ghost_columns(self) -> np.ndarray:
        outside = (self._column < self._first) | (self._column >= self._first + self.rows)
        return np.unique(self._column[outside])

    def set_ghosts(self, columns: np.ndarray, cells: np.ndarray, dirichlet: np.ndarray) -> None:
        self._ghosts = (columns, cells, dirichlet)

    def offsets(self, room: int = 8) -> np.ndarray | None:
        distance = np.abs(self._column - self._row - self._first)
        found = np.unique(distance[(self._values != 0) & (distance > 0)])
        return None if found.size > room else found

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
    ) -> StencilReport:
        d, free, row, column, value = self._couplings(sign)
        self._fail(Problem.SIGN, value > rounding * d[row], value, row, column)
        weight = np.maximum(-value, 0.0)

        there, fixed = self._there(column)
        nz, ny, nx = self._shape
        here = self._cells[row]
        step = self._steps(row, there)
        distance = np.abs(step).sum(axis=0)
        active = ~fixed
        wrapped, both = [False] * 3, np.zeros(row.size, bool)  # of two cells on a ring each is on both sides
        for axis, n in enumerate((nx, ny, nz)):
            around = (np.abs(step[axis]) == n - 1) & (distance == n - 1) & (n > 2)
            step[axis] = np.where(around, -np.sign(step[axis]), step[axis])
            distance = np.where(around, 1, distance)
            if n == 2 and self._periodic[2 - axis]:
                around = (distance == 1) & (step[axis] != 0)
                both |= around
            wrapped[axis] = bool(around.any())
        self._fail(Problem.NOT_NEIGHBOUR, distance != 1, value, row, column)
        total = np.zeros(self.rows)
        np.add.at(total, row[active], weight[active])
        rest = d - total
        rest[~free] = 0.0
        short = free & (rest < -rounding * d)
        if short.any():
            bad = int(np.flatnonzero(short)[0])
            raise StencilError(Problem.ROW_SUM, bad, -1, float(rest[bad]))
        sums = rest[free] / d[free]
        small = sums[(np.abs(sums) > sum_rounding) & (sums <= rounding)]
        stiff = np.count_nonzero(free & (rest > PENALTY * total) & (total > 0))
        rest[rest <= sum_rounding * np.abs(d)] = 0.0
        totals, counts, least, most = [], [], [], []
        for axis in range(3):
            for target, direction in ((w_low[axis], -1), (w_high[axis], 1)):
                chosen = active & (np.where(both, np.abs(step[axis]) * direction, step[axis]) == direction)
                values = weight[chosen] * np.where(both[chosen], 0.5, 1.0)
                if direction < 0:
                    positive = values[values > 0]
                    totals.append(float(positive.sum()))
                    counts.append(positive.size)
                    least.append(float(positive.min(initial=np.inf)) if positive.size else 0.0)
                    most.append(float(positive.max(initial=0.0)))
                if target is not None:
                    target[:] = 0
                    target[row[chosen]] = scale * values
        if s is not None:
            s[:] = scale * rest
        if diagonal is not None:
            diagonal[:] = scale * d
        return StencilReport(
            max_diagonal=float(d[free].max(initial=0.0)),
            least_diagonal=float(d[free].min(initial=np.inf)),
            row_sums=(float(sums.min(initial=np.inf)), float(sums.max(initial=-np.inf))),
            small_sums=(float(small[small < 0].sum()), float(small[small > 0].sum())),
            stiff=int(stiff),
            w_min=(least[0], least[1], least[2]),
            w_max=(most[0], most[1], most[2]),
            w_sum=(totals[0], totals[1], totals[2]),
            w_count=(counts[0], counts[1], counts[2]),
            extra=int(np.count_nonzero(rest)),
            wrapped=(wrapped[0], wrapped[1], wrapped[2]),
            inexact=True,  # nobody asks for it without compiled kernels
            symmetry=self._symmetry(row[active], here[active], there[active], weight[active]),
        )

    def add_up(self, sums: AxisSums, *, sign: float = 1.0, scale: float = 1.0) -> None:
        d, free, row, column, value = self._couplings(sign)
        there, fixed = self._there(column)
        step = self._steps(row, there)
        lengths = np.array(self._shape[::-1])[:, None]
        around = (np.abs(step) == lengths - 1) & (lengths > 2)
        step = np.where(around, -np.sign(step), step)
        wrapped = [bool(any_around) for any_around in around.any(axis=1)]
        for a, b in itertools.permutations(range(3), 2):
            for turn in np.unique((step[a] * step[b])[around[a]]):
                sums.twists |= 1 << (9 * a + 3 * b + int(turn) + 1) if abs(turn) < 2 else 0
        self._fail(Problem.NOT_NEIGHBOUR, np.max(np.abs(step), axis=0) > 1, value, row, column)
        for axis, n in enumerate(self._shape[::-1]):
            if n == 2 and self._periodic[2 - axis]:  # each of two cells on a ring is on both sides
                both = step[axis] != 0
                wrapped[axis] = bool(both.any())
                value = np.where(both, value / 2, value)
                other = step[:, both].copy()
                other[axis] *= -1
                row, value, fixed = (np.concatenate([a, a[both]]) for a in (row, value, fixed))
                step = np.concatenate([step, other], axis=1)
        sums.wrapped = (wrapped[0], wrapped[1], wrapped[2])
        row, value, step = row[~fixed], value[~fixed], step[:, ~fixed]

        def total(chosen: np.ndarray, what: np.ndarray = value) -> np.ndarray:
            return np.bincount(row[chosen], what[chosen], self.rows)

        everything = np.ones(row.size, bool)
        for axis in range(3):
            sums.low[axis][:] = -scale * total(step[axis] == -1)
            sums.high[axis][:] = -scale * total(step[axis] == 1)
        sums.s[:] = np.where(free, scale * (d + total(everything)), 0.0)
        sums.diagonal[:] = np.where(free, scale * d, 0.0)
        for pair, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
            mixed = np.abs(total(everything, value * step[a] * step[b]))
            sums.mixture[pair] = np.sum(mixed[free] / d[free])
        sums.couplings[0] = sums.diagonal
        for number, place in enumerate(forward_places(3 if len(sums.couplings) > 5 else 2)[1:], start=1):
            sums.couplings[number] = scale * total(np.all(step == np.array(place)[:, None], axis=0))
        size = d + total(everything, np.abs(value))
        sums.magnitude, sums.symmetry = float(np.max(size[free] / d[free], initial=0.0)), 1

    def _couplings(self, sign: float) -> tuple[np.ndarray, ...]:
        """Diagonals, whether rows are no Dirichlet rows, and row, column and value of the couplings of these, times
        ``sign``. Raises StencilError for what is not finite and for a diagonal of such a row that is not positive.
        """
        row, column, value = self._row, self._column, sign * self._values
        self._fail(Problem.NOT_FINITE, ~np.isfinite(value), value)
        d = sign * self.diagonals(np.arange(self.rows))
        free = self.dirichlet == 0
        wrong = ~(d > 0) & free
        if wrong.any():
            bad = int(np.flatnonzero(wrong)[0])
            raise StencilError(Problem.DIAGONAL, bad, self._first + bad, float(d[bad]))
        coupled = ~self._on_diagonal & (value != 0) & free[row]
        return d, free, row[coupled], column[coupled], value[coupled]

    def _there(self, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cells of columns, and whether they are those of Dirichlet rows."""
        local = (column >= self._first) & (column < self._first + self.rows)
        at = np.where(local, column - self._first, 0)
        there, fixed = self._cells[at], self.dirichlet[at] > 0
        if self._ghosts[0].size:
            ghost = np.searchsorted(self._ghosts[0], column) % self._ghosts[0].size
            there = np.where(local, there, self._ghosts[1][ghost])
            fixed = np.where(local, fixed, self._ghosts[2][ghost] > 0)
        return there, fixed

    def _steps(self, row: np.ndarray, there: np.ndarray) -> np.ndarray:
        """int64 [3, entries]: from the cells of rows to others, along x, y, z."""
        nz, ny, nx = self._shape
        here = self._cells[row]
        return np.stack(
            [there % nx - here % nx, there // nx % ny - here // nx % ny, there // (nx * ny) - here // (nx * ny)]
        )

    def _symmetry(self, row: np.ndarray, here: np.ndarray, there: np.ndarray, weight: np.ndarray) -> int:
        """Checksum that cancels between both sides of every face, as long as all ranks compute it this way."""
        face = np.minimum(here, there).astype(np.uint64) * np.uint64(3) + np.uint64(1)
        bits = weight.view(np.uint64) * (face | np.uint64(1))
        return int(bits[there > here].sum(dtype=np.uint64)) - int(bits[there < here].sum(dtype=np.uint64))

    def _fail(
        self,
        problem: Problem,
        wrong: np.ndarray,
        value: np.ndarray,
        row: np.ndarray | None = None,
        column: np.ndarray | None = None,
    ) -> None:
        """Raise for the first entry that is wrong."""
        if wrong.any():
            bad = int(np.flatnonzero(wrong)[0])
            rows, columns = (self._row, self._column) if row is None or column is None else (row, column)
            raise StencilError(problem, int(rows[bad]), int(columns[bad]), float(value[bad]))


def row_reader(comm: MPI.Intracomm) -> type[CsrRows] | type[NumpyRows]:
    """Compiled code, unless a rank has none. Collective."""
    return CsrRows if over_all(comm, have_kernels(), op=MPI.LAND) else NumpyRows


def read(
    kind: type[CsrRows] | type[NumpyRows],
    local: LocalRows,
    shape: Shape,
    first: int,
    cells: np.ndarray | None = None,
    threads: int = 1,
    periodic: Periodic = NOT_PERIODIC,
    line: int = 0,
) -> CsrRows | NumpyRows:
    """The reader of the local rows of a matrix, from row ``first`` on; without ``cells`` that is the first cell."""
    arrays = local.indptr, local.indices, local.values
    return kind(RowsOnGrid(*arrays, shape, first, cells, first, periodic, local.other, line), threads)
