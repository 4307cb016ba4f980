"""What ranks have together of the stencil that each reads from its own rows: arrays of one of them, numbers of all."""

from __future__ import annotations

from math import prod

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.reductions import of_all
from petsc_dcdm.grid.shape import Periodic
from petsc_dcdm.native.binding import kernels
from petsc_dcdm.native.memory import CACHE_LINE, address_of
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.entries.report import StencilReport
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.packed import PackedStencil, Renumber

HEAD = 5
"""How many numbers a rank tells of its packed stencil before the values of s."""

FEW = 7
"""Values of s that they tell at once: few have more."""


def zeros_of(team: Workers, shape: tuple[int, ...], count: int, dtype: type) -> list[np.ndarray]:
    """So many arrays of this shape, of the team that reads into them, one behind the other: what they leave is one
    piece of memory. Collective on it.
    """
    size, line = prod(shape), CACHE_LINE // np.dtype(dtype).itemsize
    pitch = -(-size // line) * line
    (made,) = team.together(lambda: [team.zeros(count * pitch if team.leads else 0, dtype)])
    whole = team.seen(made, count * pitch)
    return [whole[i * pitch :][:size].reshape(shape) for i in range(count)]


def renumber_own(grid: Grid, s_index: np.ndarray, table: np.ndarray) -> None:
    """A `Renumber` of the cells of this rank's rows in a padded array of the grid."""
    _, ny, nx = grid.shape
    if grid.box is None:
        cells = None if grid.cells is None else np.ascontiguousarray(grid.cells, np.int64)
        where = nx, ny, grid.rows, 0 if cells is None else address_of(cells), grid.first
        kernels().dcdm_renumber_rows(address_of(s_index), *where, address_of(table))
        return
    (z, y, x), size = grid.box
    first = address_of(s_index) + ((z + 1) * (ny + 2) + y + 1) * (nx + 2) + x + 1
    kernels().dcdm_renumber_box(first, *size[::-1], nx + 2, (ny + 2) * (nx + 2), address_of(table))


def agree(packed: PackedStencil | None, comm: MPI.Intracomm, renumber: Renumber) -> PackedStencil | None:
    """The packed stencil in terms that all ranks share, None if one has none; ``renumber`` as in
    `PackedStencil.agreed`. Collective.
    """
    if comm.Get_size() == 1:
        return packed
    mine = np.zeros(HEAD + 255)  # 1, c, how many values of s, and these
    if packed is not None:
        values = packed.values()
        mine[: HEAD + len(values)] = 1.0, *packed.c, len(values), *values
    rows = of_all(comm, mine[: HEAD + FEW]).tolist()
    if max(row[HEAD - 1] for row in rows) > FEW:
        rows = of_all(comm, mine).tolist()
    if packed is None or not all(row[0] for row in rows):
        return None
    return packed.agreed([row[1:4] for row in rows], [row[HEAD : HEAD + int(row[HEAD - 1])] for row in rows], renumber)


class Told:
    """What the reports of all ranks come to.

    Attributes
    ----------
    coupled, extra, empty
        counts of rows: those that are coupled, those that have an s, those that are all zero
    stiff, inexact
        whether there are any such rows, as in `StencilReport`
    least_diagonal, max_diagonal
        of coupled rows
    least_sum, most_sum
        row sums of coupled rows, relative to their diagonals
    small_sums
        of those that are small, the sums of the negative and the positive ones
    mean_w
        mean conductance along x, y, z over the faces that conduct, 0 where there is none
    periodic
        the axes (z, y, x) along which rows couple round the ends of grid lines
    """

    def __init__(self, comm: MPI.Intracomm, rows: CsrRows | NumpyRows, report: StencilReport) -> None:
        """Collective."""
        dirichlet, _, empty = rows.fixed()
        counts = rows.rows - dirichlet.size, report.extra, empty.size, report.stiff, report.inexact, *report.wrapped
        sums = *counts, *report.small_sums, *report.w_sum, *report.w_count
        ends = report.max_diagonal, -report.least_diagonal, report.row_sums[1], -report.row_sums[0]
        told = of_all(comm, np.array([*sums, *ends], dtype=float))
        total, most = told[:, : len(sums)].sum(axis=0).tolist(), told[:, len(sums) :].max(axis=0).tolist()
        self.coupled, self.extra, self.empty, self.stiff, self.inexact = map(int, total[:5])
        self.periodic: Periodic = (bool(total[7]), bool(total[6]), bool(total[5]))
        self.small_sums = total[8:10]
        self.mean_w = tuple(w / n if n else 0.0 for w, n in zip(total[10:13], total[13:16], strict=True))
        self.max_diagonal, self.least_diagonal, self.most_sum, self.least_sum = most[0], -most[1], most[2], -most[3]
