"""Which axes each level of the hierarchy coarsens, decided once from the finest grid.

The plan depends on the grid's size and on the mean conductance of each axis only, so that it is known before the grid
is split over ranks (box edges are aligned to it) and is the same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

COARSE_LIMIT = 1000
"""Cells at which the hierarchy of a small grid stops: 8^3, and the 9^3 of 65^3 and 129^3. An exact solve of 16^3 saves
an iteration at most and its factorisation costs as much as the rest of the set-up at 64^3."""

MOST_COARSE = 5000
"""The same for a large grid, beside which a factorisation of that many unknowns costs nothing."""

VISITS = 2
"""How often a cycle visits the second level where there is a level below it. One V-cycle is a poor answer to it: with a
second one the tank at 128^3 took 4 / 4 iterations instead of 5 / 6, in less time."""


def coarse_limit(shape: Sequence[int]) -> int:
    """Cells at which the hierarchy of a grid (nz, ny, nx) stops: more where an exact solve of them is cheap.

    That is in the plane, where factors are sparse (porous media 256^2: 6 / 7 iterations instead of 9 / 10 in the same
    time), and from 256^3 on (a tank there: 6 smooth instead of 7).
    """
    share = 4096 if min(shape) > 1 else 16
    return min(max(prod(int(n) for n in shape) // share, COARSE_LIMIT), MOST_COARSE)


def coarse_size(n: int) -> int:
    """Cells along an axis after coarsening ``n`` of them; an odd one out forms a coarse cell alone."""
    return (n + 1) // 2


def coarse_strength(strength: Sequence[float], axes: Sequence[int]) -> list[float]:
    """Mean conductances after coarsening ``axes`` of a uniform medium: distance divides, area multiplies."""
    return [value * 2.0 ** (len(axes) - 2 * (along in axes)) for along, value in enumerate(strength)]


def strong_axes(strength: Sequence[float], threshold: float) -> tuple[int, ...]:
    """The axes whose mean conductance is within ``threshold`` of the strongest; 0 says that an axis has none."""
    strongest = max(strength)
    return tuple(axis for axis, value in enumerate(strength) if value > 0.0 and value * threshold >= strongest)


def plan_coarsening(
    shape: Sequence[int], mean_w: Sequence[float], threshold: float, limit: int
) -> tuple[tuple[int, ...], ...]:
    """The axes coarsened from each level to the next.

    Semi-coarsening: an axis is coarsened while its mean conductance is within ``threshold`` of the strongest, since
    smoothing damps errors along strong couplings only. The means are evolved by the factors of a uniform medium:
    halving the axis itself doubles the distance (1/2), halving another axis doubles the area (2).

    Parameters
    ----------
    shape : (nz, ny, nx) of the global finest grid.
    mean_w : mean conductance (wx, wy, wz) over the faces that conduct; 0 where an axis has none.
    threshold : ratio to the strongest axis up to which an axis is coarsened with it, >= 1.
    limit : stop at this many cells (solids included).

    Returns
    -------
    One tuple of axes (0 = x, 1 = y, 2 = z) per coarsening, the finest first; empty if the grid is small already.
    """
    size = [int(shape[2 - axis]) for axis in range(3)]
    strength = [float(mean_w[axis]) if size[axis] > 1 else 0.0 for axis in range(3)]
    plan: list[tuple[int, ...]] = []
    while size[0] * size[1] * size[2] > limit:
        axes = strong_axes([strength[axis] if size[axis] > 1 else 0.0 for axis in range(3)], threshold)
        if not axes:
            break
        for axis in axes:
            size[axis] = coarse_size(size[axis])
        strength = coarse_strength(strength, axes)
        plan.append(axes)
    return tuple(plan)
