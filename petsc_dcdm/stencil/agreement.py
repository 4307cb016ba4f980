"""Whether most cells see the axes as a plan does that was made from means of conductances.

Means are set by the few largest: where layers or bodies differ by decades the plan may be one for a medium that most
cells are not in. A sample of cells, the same on any number of ranks, is asked on every level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.grid.shape import Shape

SAMPLE, SAMPLE_FLAT = 12, 40
"""About so many cells along each axis are asked, the second in the plane; at odd distances, since media often repeat
after 4 or 8 cells."""

MOST = 0.7
"""Share of the cells that must see it otherwise. In all families where means and cells agree left-out axes are strong
for less than 0.2 of the cells, in the aquifer, some levels down, for 0.95.
"""

FEW = 0.7
"""Share of the cells up to which an axis is strong for too few to begin with: on stretched grids and where the strong
axis turns from place to place all of them have 0.35 to 0.55, that of a reservoir's means 0.5 to 0.62; noise of
deviation 3 has 0.78. (With a first level along an axis within 10 of the strongest for three quarters of the cells
reservoirs took 12 to 19 iterations instead of 8 to 10, in no less time.)"""


Count = Callable[[list[int], list[int], float], np.ndarray]
"""What :func:`strong_cells` finds on this rank's box of a level: of cells first, first + stride, ... (z, y, x) and a
threshold."""


def strong_shares(count: Count, threshold: float, offset: Shape, whole: Shape, layout: Layout) -> list[float]:
    """Share of the sampled cells that see x, y, z as strong. Collective; arguments as of :func:`most_agree`."""
    stride = [cells // (SAMPLE if whole[0] > 1 else SAMPLE_FLAT) | 1 for cells in whole]
    first = [(step // 2 - begin) % step for step, begin in zip(stride, offset, strict=True)]
    *strong, active = layout.sum(count(first, stride, threshold).astype(float)).tolist()
    return [cells / max(active, 1.0) for cells in strong]


def some_axis_is_strong(
    count: Count, axes: tuple[int, ...], threshold: float, offset: Shape, whole: Shape, layout: Layout
) -> bool:
    """Whether some axis of ``axes``, which a plan begins with, is strong for enough of the cells. Collective; arguments
    as of :func:`most_agree`.
    """
    shares = strong_shares(count, threshold, offset, whole, layout)
    return any(shares[axis] > FEW for axis in axes)


def most_agree(
    count: Count, axes: tuple[int, ...], threshold: float, offset: Shape, whole: Shape, layout: Layout
) -> bool:
    """Whether no axis of ``axes`` is weak, and no other one strong, for most of the cells. Collective.

    Parameters
    ----------
    count
        asks this rank's box of a level
    axes
        what the plan coarsens on this level
    threshold
        ratio to a cell's strongest axis up to which an axis is strong
    offset, whole
        where the box of the level begins, cells along z, y, x of all of it
    layout
        for sums over ranks
    """
    shares = strong_shares(count, threshold, offset, whole, layout)
    return all((share >= 1 - MOST) if a in axes else (share <= MOST) for a, share in enumerate(shares))


def strong_cells(
    faces: Sequence[np.ndarray], first: Sequence[int], stride: Sequence[int], threshold: float
) -> np.ndarray:
    """How many cells first, first + stride, ... (z, y, x) see x, y, z as strong, and how many conduct at all: what
    walls/agree.c does.

    Parameters
    ----------
    faces
        conductances of the low faces along x, y, z, float64 (nz + 2, ny + 2, nx + 2) with halos filled
    threshold
        ratio to a cell's strongest axis up to which an axis is strong
    """
    picked = [1 + np.arange(begin, n - 2, step) for n, begin, step in zip(faces[0].shape, first, stride, strict=True)]
    seen = []
    for axis, face in enumerate(faces):
        above = [at + (2 - axis == i) for i, at in enumerate(picked)]
        seen.append(np.maximum(face[np.ix_(*picked)], face[np.ix_(*above)]))
    strongest = np.maximum.reduce(seen)
    strong = [int(np.count_nonzero((value > 0.0) & (value * threshold >= strongest))) for value in seen]
    return np.array([*strong, np.count_nonzero(strongest)], np.int64)
