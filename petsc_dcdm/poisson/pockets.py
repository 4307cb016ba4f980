"""Sealed pockets of fluid make a pressure system singular: they are found and turned to solid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.poisson.flags import FLUID, SOLID
from petsc_dcdm.poisson.scene import World, conduct

if TYPE_CHECKING:
    from petsc4py import PETSc


def seal_pockets(world: World, dm: PETSc.DMDA | None = None) -> int:
    """Turn every sealed pocket of fluid to SOLID and recompute w and s, in place. Collective on ``dm``.

    Kept are the connected parts in which some cell is coupled to zero pressure; where there is none anywhere
    (pure Neumann), only the largest part, whose constant is then the one null vector. Returns the number of
    cells removed on all ranks. Without ``dm`` the world is the whole grid.
    """
    from scipy.ndimage import label

    local, count = label(world.fluid)
    cells = np.bincount(local.ravel(), minlength=count + 1)[1:]
    held = np.bincount(local.ravel(), world.s.ravel(), minlength=count + 1)[1:] > 0
    keep = _kept(local, cells, held, dm)
    flags = interior(world.flags)
    removed = (flags == FLUID) & ~np.concatenate([[False], keep])[local]
    total = int(removed.sum())
    if dm is not None:
        total = dm.comm.tompi4py().allreduce(total)
    if total:
        flags[removed] = SOLID
        if dm is not None:
            from petsc_dcdm.poisson.dmda import exchange

            padded = world.flags.astype(float)
            exchange(dm, padded)
            world.flags[...] = padded.astype(np.uint8)
        conduct(world)
    return total


def _kept(local: np.ndarray, cells: np.ndarray, held: np.ndarray, dm: PETSc.DMDA | None) -> np.ndarray:
    """bool per local part: whether it stays. local: labels from 1; cells, held: size, any s > 0."""
    names = np.arange(1, len(cells) + 1, dtype=np.int64)
    if dm is None:
        some, best = bool(held.any()), _best(cells, names)
    else:
        comm = dm.comm.tompi4py()
        names += comm.exscan(len(cells)) or 0
        _merge(dm, _meetings(dm, local, names), names, cells, held)
        bids = comm.allgather((bool(held.any()), _best(cells, names)))
        some, best = any(bid[0] for bid in bids), max(bid[1] for bid in bids)
    return held if some else names == -best[1]


def _best(cells: np.ndarray, names: np.ndarray) -> tuple[int, int]:
    """(cells, -name) of the largest part; of equals the one of the lowest name."""
    if len(cells) == 0:
        return 0, 0
    winner = np.lexsort((names, -cells))[0]
    return int(cells[winner]), -int(names[winner])


def _meetings(dm: PETSc.DMDA, local: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Pairs (own name, name beyond), int64 (n, 2), of parts that meet across a face of the own box."""
    from petsc_dcdm.poisson.dmda import exchange

    padded = np.zeros([n + 2 for n in local.shape])
    interior(padded)[...] = np.concatenate([[0], names])[local]
    exchange(dm, padded)
    pairs = [np.zeros((0, 2), np.int64)]
    for a in range(3):
        for layer, beyond in zip((slice(0, 1), slice(-1, None)), neighbours(padded, a), strict=True):
            face = tuple(layer if axis == 2 - a else slice(None) for axis in range(3))
            met = np.stack([interior(padded)[face].ravel(), beyond[face].ravel()], axis=1).astype(np.int64)
            pairs.append(np.unique(met[(met > 0).all(axis=1)], axis=0))
    return np.concatenate(pairs)


def _merge(dm: PETSc.DMDA, pairs: np.ndarray, names: np.ndarray, cells: np.ndarray, held: np.ndarray) -> None:
    """Give every part that meets another rank's the name, size and held flag of the merged part, in place.

    All ranks hold the list of the meeting parts: its length grows with the parts at the faces between ranks.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    meeting = np.flatnonzero(np.isin(names, pairs[:, 0]))
    lists = dm.comm.tompi4py().allgather((pairs, names[meeting], cells[meeting], held[meeting]))
    everyone, its_cells, its_held = (np.concatenate([entry[n] for entry in lists]) for n in (1, 2, 3))
    if len(everyone) == 0:
        return
    edges = np.searchsorted(everyone, np.concatenate([entry[0] for entry in lists]))  # names ascend with the rank
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(everyone),) * 2)
    parts, part = connected_components(graph, directed=False)
    first = np.full(parts, everyone.max())
    np.minimum.at(first, part, everyone)
    mine = part[np.searchsorted(everyone, names[meeting])]
    cells[meeting] = np.bincount(part, its_cells, minlength=parts)[mine]
    held[meeting] = (np.bincount(part, its_held, minlength=parts) > 0)[mine]
    names[meeting] = first[mine]
