"""What ranks have together of the stencil that each reads from its own rows: arrays of one of them, numbers of all."""

from __future__ import annotations

from math import prod

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.binding import kernels
from petsc_dcdm.native.memory import CACHE_LINE, address_of
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.packed import PackedStencil, Renumber

AT_ONCE = 64
"""Values that ranks which share memory add up at once."""

FEW = 5
"""What a rank tells of its packed stencil beside the values of s."""


def zeros_of(team: Workers, shape: tuple[int, ...], count: int, dtype: type) -> list[np.ndarray]:
    """So many arrays of this shape, of the team that reads into them, one behind the other: what they leave is one
    piece of memory. Collective on it.
    """
    size, line = prod(shape), CACHE_LINE // np.dtype(dtype).itemsize
    pitch = -(-size // line) * line
    (made,) = team.together(lambda: [team.zeros(count * pitch if team.leads else 0, dtype)])
    whole = team.seen(made)
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
    mine = np.zeros(FEW + 255)  # 1, c, how many values of s, and these
    if packed is not None:
        values = packed.values()
        mine[: FEW + len(values)] = 1.0, *packed.c, len(values), *values
    rows: list[list[float]] = []
    room = AT_ONCE // comm.Get_size()
    if room > FEW:  # most have few values
        known = np.zeros((comm.Get_size(), room))
        known[comm.Get_rank()] = mine[:room]
        rows = over_all(comm, known.ravel()).reshape(known.shape).tolist()
    if not rows or max(row[FEW - 1] for row in rows) > room - FEW:
        known = np.empty((comm.Get_size(), mine.size))
        comm.Allgather(mine, known)
        rows = known.tolist()
    if packed is None or not all(row[0] for row in rows):
        return None
    return packed.agreed([row[1:4] for row in rows], [row[FEW : FEW + int(row[FEW - 1])] for row in rows], renumber)
