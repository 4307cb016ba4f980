"""Shapes on the padded box of a rank, out of which the families are made: balls, bricks, waves."""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import Box


def cell_centres(shape: Shape, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell centres x, y, z of the padded box in cells, relative to the grid's corner; broadcastable."""
    k, j, i = box.grown().indices()
    return i + 0.5, j + 0.5, k + 0.5


def cells_along(shape: Shape) -> np.ndarray:
    """Cells along x, y, z as floats."""
    return np.array(shape[::-1], float)


def shortest(shape: Shape) -> float:
    """Cells along the shortest axis that is more than one cell thick."""
    return float(min((n for n in shape if n > 1), default=1))


def vertical(shape: Shape) -> int:
    """The vertical axis (0, 1, 2 = x, y, z): z, or y in 2D."""
    return 2 if shape[0] > 1 else 1


def gravity(shape: Shape) -> tuple[float, float, float]:
    return (0.0, 0.0, -1.0) if vertical(shape) == 2 else (0.0, -1.0, 0.0)


def balls(shape: Shape, box: Box, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Union of balls, bool padded: centres (n, 3) and radii (n,) in cells. Costs the cells around each."""
    grown = box.grown()
    found = np.zeros(grown.shape, bool)
    start = np.array(grown.offset[::-1])
    for centre, radius in zip(centres, radii, strict=True):
        if shape[0] == 1:
            centre = np.array([centre[0], centre[1], 0.5])
        low = np.maximum(np.floor(centre - radius - 0.5).astype(int) - start, 0)
        high = np.minimum(np.ceil(centre + radius + 0.5).astype(int) - start, np.array(grown.shape[::-1]))
        if (high <= low).any():
            continue
        x, y, z = (np.arange(a, b) + s + 0.5 - c for a, b, s, c in zip(low, high, start, centre, strict=True))
        part = z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 < radius**2
        found[low[2] : high[2], low[1] : high[1], low[0] : high[0]] |= part
    return found


def bricks(shape: Shape, box: Box, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Union of axis-parallel boxes [low, high) with corners (n, 3) in cells: bool padded."""
    grown = box.grown()
    found = np.zeros(grown.shape, bool)
    start = np.array(grown.offset[::-1])
    for a, b in zip(np.round(low).astype(int), np.round(high).astype(int), strict=True):
        if shape[0] == 1:
            a[2], b[2] = 0, 1
        a, b = np.maximum(a - start, 0), np.maximum(b - start, 0)
        found[a[2] : b[2], a[1] : b[1], a[0] : b[0]] = True
    return found


def waves(shape: Shape, box: Box, rng: np.random.Generator, amplitude: float, count: int = 3) -> np.ndarray:
    """A sum of horizontal sine waves, broadcastable over the padded box; amplitude in cells."""
    x, y, z = cell_centres(shape, box)
    nx, ny, _ = cells_along(shape)
    height = np.zeros((1, 1, box.shape[2] + 2))
    for n in range(count):
        kx, ky = rng.integers(0, 4, 2) + (n == 0)
        angle = 2 * np.pi * (kx * x / nx + (ky * y / ny if vertical(shape) == 2 else 0.0)) + rng.uniform(0, 2 * np.pi)
        height = height + rng.uniform(0.3, 1.0) * amplitude / count * np.sin(angle)
    return height
