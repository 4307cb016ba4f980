"""Advection: second order in space and time where the field is smooth, no new extrema where it is asked for.

Selle, Fedkiw, Kim, Liu, Rossignac: An Unconditionally Stable MacCormack Method, J. Sci. Comput. 35 (2008).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petsc_dcdm.flow.staggered import Grid, Points, Velocity, centred


def paths(grid: Grid, u: Velocity, dt: float) -> tuple[Velocity, Velocity]:
    """What has to be taken from a cell's centre to be where its content was `dt` before, and where it will be after:
    each (x, y, z) in cells, by the midpoint rule.
    """
    here = places(grid.zeros())
    at_centres = centred(u)

    def path(time: float) -> Velocity:
        middle = [p - 0.5 * time * v for p, v in zip(here, at_centres, strict=True)]
        found = grid.velocity()
        for a in grid.axes:
            x, y, z = (p + 0.5 * (a == axis) for axis, p in enumerate(middle))
            found[a] = time * grid.sample(u[a], (x, y, z))
        return found

    return path(dt), path(-dt)


def places(values: np.ndarray) -> Points:
    """Where the elements of an array are, in elements: x, y, z, which broadcast to its shape."""
    z, y, x = np.ogrid[tuple(slice(0.0, float(n)) for n in values.shape)]
    return x, y, z


def advected(
    grid: Grid,
    way: tuple[Velocity, Velocity],
    values: np.ndarray,
    fill: Callable[[np.ndarray], None],
    component: int | None = None,
    limited: bool = True,
) -> np.ndarray:
    """`values` carried along paths, by MacCormack's method. Collective.

    Parameters
    ----------
    way
        of the time step, see `paths`.
    fill
        fills the halo of such an array.
    component
        of a velocity, which lies on the faces across this axis; None for cell values.
    limited
        keep the result within the values it was interpolated from.
    """

    def moved(path: Velocity) -> Points:
        at = path if component is None else [0.5 * (p + np.roll(p, 1, 2 - component)) for p in path]
        x, y, z = (start - step for start, step in zip(places(values), at, strict=True))
        return x, y, z

    back = moved(way[0])
    forward = grid.sample(values, back)
    fill(forward)
    returned = grid.sample(forward, moved(way[1]))
    corrected = forward + 0.5 * (values - returned)
    if limited:
        low, high = _range(values, back)
        np.clip(corrected, low, high, out=corrected)
    fill(corrected)
    return corrected


def _range(values: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest of the corners that interpolation at the points takes its values from."""
    index = []
    for p, n in zip(points[::-1], values.shape, strict=True):
        first = np.clip(np.floor(p).astype(np.int32), 0, max(n - 2, 0))
        index.append((first, np.minimum(first + 1, n - 1)))
    low = high = values[index[0][0], index[1][0], index[2][0]]
    for corner in range(1, 8):
        at = values[index[0][corner & 1], index[1][corner >> 1 & 1], index[2][corner >> 2]]
        low, high = np.minimum(low, at), np.maximum(high, at)
    return low, high
