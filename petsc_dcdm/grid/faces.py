"""Cells, their neighbours and the faces between them, as views and sums of arrays (nz, ny, nx).

Axes are numbered x, y, z = 0, 1, 2, from the back of an array's dimensions. The operators of this package are given
by ``w[a]``, the conductance of each cell's low face along axis a, and `s`, what a cell has on its diagonal beside the
conductances of its faces; both are 0 at cells without an unknown. A padded array has one cell more on every side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petsc_dcdm.grid.layout import Layout, SerialLayout
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic


def all_but_last(a: np.ndarray, axis: int) -> np.ndarray:
    """View of `a` without its last layer along the axis: the cells below the inner faces."""
    index: list[slice] = [slice(None)] * 3
    index[2 - axis] = slice(None, -1)
    return a[tuple(index)]


def all_but_first(a: np.ndarray, axis: int) -> np.ndarray:
    """View of `a` without its first layer along the axis: the cells above the inner faces, in the same order."""
    index: list[slice] = [slice(None)] * 3
    index[2 - axis] = slice(1, None)
    return a[tuple(index)]


def padded(a: np.ndarray, layout: Layout | None = None) -> np.ndarray:
    """A copy with a halo of one cell: the neighbours' values where there are neighbours, else 0. Collective with a
    layout; without one the array is all of the grid.
    """
    out = np.zeros([n + 2 for n in a.shape], a.dtype)
    interior(out)[...] = a
    if layout is not None:
        layout.exchange(out)
    return out


def interior(padded: np.ndarray) -> np.ndarray:
    """View of a padded array without its halo."""
    return padded[1:-1, 1:-1, 1:-1]


def neighbours(padded: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views (low, high) of a padded array at the neighbours of its interior along the axis."""
    low, high = [slice(1, -1)] * 3, [slice(1, -1)] * 3
    low[2 - axis], high[2 - axis] = slice(0, -2), slice(2, None)
    return padded[tuple(low)], padded[tuple(high)]


def diagonal(w: Sequence[np.ndarray], s: np.ndarray) -> np.ndarray:
    """The diagonal of the operator of padded conductances `w`, whose high halo is valid, and `s` without a halo, in the
    dtype of `s`.
    """
    d = s.copy()
    for axis in range(3):
        d += interior(w[axis])
        d += neighbours(w[axis], axis)[1]
    return d


def connected(seed: np.ndarray, w: Sequence[np.ndarray], periodic: Periodic = NOT_PERIODIC) -> np.ndarray:
    """bool: all cells that the bool array `seed` reaches through positive conductances, on one rank."""
    reached = seed.copy()
    open_faces = [all_but_first(face, axis) > 0 for axis, face in enumerate(w)]
    layers = [np.moveaxis(reached, 2 - axis, 0) for axis in range(3)]
    seams = [np.moveaxis(face, 2 - axis, 0)[0] > 0 for axis, face in enumerate(w)]
    while True:
        before = int(reached.sum())
        for axis in range(3):
            all_but_last(reached, axis)[...] |= all_but_first(reached, axis) & open_faces[axis]
            all_but_first(reached, axis)[...] |= all_but_last(reached, axis) & open_faces[axis]
            if periodic[2 - axis]:
                layers[axis][[0, -1]] |= (layers[axis][0] | layers[axis][-1]) & seams[axis]
        if int(reached.sum()) == before:
            return reached


def largest_connected(w: Sequence[np.ndarray], periodic: Periodic = NOT_PERIODIC) -> np.ndarray:
    """bool: the largest set of cells that positive conductances connect, on one rank; of equals the first."""
    z, y, x = w[0].shape
    layout = SerialLayout((z, y, x), (), periodic=periodic)
    left = diagonal([padded(face, layout) for face in w], np.zeros_like(w[0])) > 0
    best = np.zeros_like(left)
    while left.sum() > best.sum():
        seed = np.zeros_like(left)
        seed.flat[int(np.flatnonzero(left)[0])] = True
        part = connected(seed, w, periodic)
        left &= ~part
        if part.sum() > best.sum():
            best = part
    return best
