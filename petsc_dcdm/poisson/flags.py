"""What the cells of a grid are: fluid, solid or open air, on the cells that one rank owns plus one layer
around them.

Arrays are (nz, ny, nx) with x fastest; a 2D grid has nz = 1. Nothing here communicates and nothing is of
global size: a rank evaluates the world on its own box. Randomness is a hash of the seed and the global cell
number, so all ranks see the same world however the grid is divided.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from petsc_dcdm.grid.shape import Shape

SOLID, FLUID, OPEN = (
    0,
    1,
    2,
)  # cell flags: wall or obstacle, unknown pressure, pressure held at zero (air, outflow)
CLOSED_SIDE, OPEN_SIDE, INFLOW_SIDE = (
    "closed",
    "open",
    "inflow",
)  # inflow: a closed side with the stream through it
SIDES = ("x-", "x+", "y-", "y+", "z-", "z+")


class Box(NamedTuple):
    """A box of cells of the grid: first cell (z, y, x) and number of cells (nz, ny, nx)."""

    offset: Shape
    shape: Shape

    def grown(self) -> Box:
        """The box with one layer of cells around it; the layer may reach outside the grid."""
        z, y, x = self.offset
        nz, ny, nx = self.shape
        return Box((z - 1, y - 1, x - 1), (nz + 2, ny + 2, nx + 2))

    def indices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Global cell indices k, j, i as int64 arrays that broadcast to ``shape``."""
        k, j, i = (np.arange(o, o + n, dtype=np.int64) for o, n in zip(self.offset, self.shape, strict=True))
        return k[:, None, None], j[None, :, None], i[None, None, :]

    def numbers(self, shape: Shape) -> np.ndarray:
        """Global lexicographic cell numbers, x fastest: int64 (self.shape). No meaning outside the grid."""
        k, j, i = self.indices()
        return (k * shape[1] + j) * shape[2] + i


def whole(shape: Shape) -> Box:
    """The box of a grid that one rank owns entirely."""
    return Box((0, 0, 0), shape)


def sides_of(open_sides: str = "", inflow: str = "") -> tuple[str, ...]:
    """The six sides from lists such as ``"x+ z+"``; the rest is closed. ValueError for an unknown name."""
    for name in (*open_sides.split(), *inflow.split()):
        if name not in SIDES:
            raise ValueError(f"There is no side {name!r}; the sides are {', '.join(SIDES)}.")
    return tuple(
        OPEN_SIDE if side in open_sides.split() else INFLOW_SIDE if side in inflow.split() else CLOSED_SIDE
        for side in SIDES
    )


def set_walls(flags: np.ndarray, shape: Shape, box: Box, sides: tuple[str, ...]) -> None:
    """Overwrite the cells of the padded ``flags`` that lie outside the grid: OPEN behind open sides, else
    SOLID.

    An axis that is one cell thick has no open sides: it is not a direction of the problem.
    """
    for a in range(3):
        axis = 2 - a
        low, high = box.offset[axis] == 0, box.offset[axis] + box.shape[axis] == shape[axis]
        for at_end, index, side in ((low, 0, sides[2 * a]), (high, -1, sides[2 * a + 1])):
            if at_end:
                layer: list[slice | int] = [slice(None)] * 3
                layer[axis] = index
                flags[tuple(layer)] = OPEN if side == OPEN_SIDE and shape[axis] > 1 else SOLID


def uniform(seed: int, stream: int, numbers: np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1) from the seed, a stream and an integer per element (splitmix64)."""
    gamma, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    start = (seed * 0xD1342543DE82EF95 + (stream + 1) * 0x2545F4914F6CDD1D) & mask
    z = numbers.astype(np.uint64) * np.uint64(gamma) + np.uint64(_mix(start))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: int) -> int:
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def normal(seed: int, stream: int, numbers: np.ndarray) -> np.ndarray:
    """Standard normal float64 per element, from two uniform streams (Box-Muller)."""
    radius = np.sqrt(-2 * np.log1p(-uniform(seed, 2 * stream, numbers)))
    return radius * np.cos(2 * np.pi * uniform(seed, 2 * stream + 1, numbers))
