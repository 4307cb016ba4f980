"""What ranks have together of the stencil that each reads from its own rows: arrays of one of them, numbers of all."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.native.memory import CACHE_LINE
from petsc_dcdm.native.node_team import Workers
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.packed import PackedStencil


def zeros_of(team: Workers, shape: tuple[int, ...], count: int, dtype: type) -> list[np.ndarray]:
    """So many arrays of this shape, of the team that reads into them, one behind the other: what they leave is one
    piece of memory. Collective on it.
    """
    size, line = prod(shape), CACHE_LINE // np.dtype(dtype).itemsize
    pitch = -(-size // line) * line
    (made,) = team.together(lambda: [team.zeros(count * pitch if team.leads else 0, dtype)])
    whole = team.seen(made)
    return [whole[i * pitch :][:size].reshape(shape) for i in range(count)]


def own_places(grid: Grid, whole: np.ndarray) -> Any:
    """An index of the cells of this rank's rows in a padded array of the grid; with the halo of axes it has all of, so
    that what planes have lies together.
    """
    if grid.box is not None:
        whole = [n == all_ for n, all_ in zip(grid.box[1], grid.shape, strict=True)]
        begin, size = grid.box
        return tuple(
            slice(None) if all(whole[axis:]) else slice(1 + begin[axis], 1 + begin[axis] + size[axis])
            for axis in range(3)
        )
    cells = grid.first + np.arange(grid.rows) if grid.cells is None else grid.cells
    return tuple(1 + i for i in np.unravel_index(cells, grid.shape))


def agree(packed: PackedStencil | None, comm: MPI.Intracomm, own: Callable[[np.ndarray], Any]) -> PackedStencil | None:
    """The packed stencil in terms that all ranks share, None if one has none; ``own`` as in `PackedStencil.agreed`.
    Collective.
    """
    if comm.Get_size() == 1:
        return packed
    known = np.empty((comm.Get_size(), 4 + 256))
    mine = np.zeros(known.shape[1]) if packed is None else np.concatenate(([1.0], packed.c, packed.s_value))
    comm.Allgather(mine, known)
    if packed is None or not known[:, 0].all():
        return None
    return packed.agreed([tuple(row[1:4]) for row in known], list(known[:, 4:]), own)
