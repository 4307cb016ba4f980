"""Regions of coupled rows that nothing holds: why a solve that gets nowhere has no solution.

Looked for where a solve is in trouble only: it takes as long as many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.report import SUM_ROUNDING
from petsc_dcdm.stencil.fixed import find_fixed_rows
from petsc_dcdm.stencil.forms.row_scaling import RowFactors
from petsc_dcdm.stencil.ghosts import Ghosts
from petsc_dcdm.stencil.local_csr import local_csr


@dataclass(frozen=True)
class Regions:
    """Regions that are coupled within and held nowhere: each has constants as a null space of its own.

    Attributes
    ----------
    of
        int64, for each local row the number of its region, -1 in rows of none
    rows
        int64, how many rows each region has, on all ranks
    first
        int64, its lowest row
    """

    of: np.ndarray
    rows: np.ndarray
    first: np.ndarray

    def parts(self, b: PETSc.Vec, factors: RowFactors | None = None) -> np.ndarray:
        """Norm of the part of ``b`` along the constants of each region, divided by ``factors``, if rows were scaled by
        them: the part that no x can answer to. Collective.
        """
        inside = self.of >= 0
        left = np.ones(inside.sum()) if factors is None else 1 / factors.values[inside]
        values = b.getArray(readonly=True)[inside] * left
        sums = [np.bincount(self.of[inside], weights=v, minlength=self.rows.size) for v in (values, left * left)]
        along, square = b.comm.tompi4py().allreduce(np.array(sums))
        return np.abs(along) / np.sqrt(square)


def find_regions(A: PETSc.Mat) -> Regions:
    """The regions of an AIJ matrix that nothing holds. Collective."""
    comm = A.getComm().tompi4py()
    first, last = A.getOwnershipRange()
    fixed = np.zeros(last - first, np.uint8)
    fixed[find_fixed_rows(A).rows] = 1
    with local_csr(A, blocks=False) as local:
        row = np.repeat(np.arange(last - first), np.diff(local.indptr))
        column, value = local.indices.astype(np.int64), np.array(local.values)
    diagonal = np.bincount(row, weights=np.abs(value) * (column == row + first), minlength=last - first)
    total = np.bincount(row, weights=value, minlength=last - first)
    held = np.abs(total) > SUM_ROUNDING * diagonal
    coupled = (value != 0) & (column != row + first) & (fixed[row] == 0)
    row, column = row[coupled], column[coupled]
    here = (column >= first) & (column < last)
    beside = fixed[column[here] - first] > 0
    held[row[here][beside]] = True
    name = first + _components(last - first, row[here][~beside], column[here][~beside] - first)
    away = np.unique(column[~here])
    ghosts = Ghosts(A, away, Grid((1, 1, A.getSize()[0]), None, first, last - first, "rows"))
    at = np.searchsorted(away, column[~here])
    pairs = np.stack([name[row[~here]], ghosts.fetch(name)[at]], axis=1)
    free = ghosts.fetch(fixed)[at] == 0
    held[row[~here][~free]] = True
    ghosts.destroy()
    name = _merged(name, np.concatenate(comm.allgather(np.unique(pairs[free], axis=0))))
    own, index = np.unique(name[fixed == 0], return_inverse=True)
    sums = [np.bincount(index, weights=v[fixed == 0], minlength=own.size) for v in (held, np.ones(held.size))]
    everyones = comm.allgather((own, np.array(sums)))
    regions, where = np.unique(np.concatenate([names for names, _ in everyones]), return_inverse=True)
    every = np.concatenate([s for _, s in everyones], axis=1)
    holding, rows = (np.bincount(where, weights=v, minlength=regions.size) for v in every)
    closed = holding == 0
    number = np.where(closed, np.cumsum(closed) - 1, -1)
    of = np.full(last - first, -1)
    of[fixed == 0] = number[np.searchsorted(regions, name[fixed == 0])]
    return Regions(of, rows[closed].astype(np.int64), regions[closed])


def _components(n: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The lowest member of the component of each of ``n`` nodes, with edges between ``i`` and ``j``."""
    lowest = np.arange(n)
    while True:
        a, b = lowest[i], lowest[j]
        apart = a != b
        if not apart.any():
            return lowest
        i, j, a, b = i[apart], j[apart], a[apart], b[apart]
        np.minimum.at(lowest, np.maximum(a, b), np.minimum(a, b))
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]


def _merged(name: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Names of components after those of a pair have become one."""
    known, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(pairs.shape)
    lowest = known[_components(known.size, index[:, 0], index[:, 1])]
    at = np.searchsorted(known, name)
    found = np.zeros(name.size, bool)
    inside = at < known.size
    found[inside] = known[at[inside]] == name[inside]
    out = name.copy()
    out[found] = lowest[at[found]]
    return out
