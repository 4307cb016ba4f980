"""Random media of ground water, reservoirs, two-phase flow and stretched grids to train on, from seeds: contrasts of
many decades, often from one cell to the next. numpy only.

Families as those of :mod:`petsc_dcdm.training.domains`, but a solve may leave the grid on any level of theirs, where
walls or bodies are as small as its cells. Training ends there too (:attr:`domains.System.plan`), and the grids are
small, since what is left is solved densely.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.training.domains import Family, Rng, System, assemble, grid, obstacles, random_sides

#: Family -> what makes a system of it, and how often it is drawn beside the others.
MEDIA: dict[str, tuple[Family, float]] = {}

SHAPES_3D: tuple[Shape, ...] = ((16, 16, 16), (24, 24, 24), (14, 20, 16), (17, 15, 18), (12, 24, 18))
SHAPES_2D: tuple[Shape, ...] = ((1, 48, 48), (1, 64, 64), (1, 36, 72), (1, 51, 45), (1, 80, 72))

MOST_DECADES = 8.0
"""Between the largest and the least coefficient: what single precision tells apart beside the sums of a cycle."""


def medium(odds: float) -> Callable[[Family], Family]:
    """Decorator: draw systems of ``medium_NAME`` under NAME, so often beside the others."""

    def register(function: Family) -> Family:
        MEDIA[function.__name__.removeprefix("medium_")] = function, odds
        return function

    return register


def flow(shape: Shape, rng: Rng, logarithm: np.ndarray, ratio: np.ndarray | None = None) -> System:
    """The system of a coefficient's natural logarithm, (nz, ny, nx) or along x, y, z [3, nz, ny, nx], and conductances
    along the axes: at times with a few obstacles, always with a side that is open.
    """
    solid = obstacles(shape, rng, int(rng.integers(1, 4)), 0.2) if rng.random() < 0.2 else np.zeros(shape, bool)
    sides = random_sides(shape, rng, 0.5)
    axis = int(rng.choice(axes_of(shape)))
    sides[axis, int(rng.integers(2))] = 2.0
    span = MOST_DECADES * np.log(10.0)
    k = np.exp(np.maximum(logarithm - logarithm.max(), -span))
    x, y, z = np.ones(3) if ratio is None else ratio
    return assemble(~solid, np.zeros(shape, bool), sides, k, (x, y, z))


def axes_of(shape: Shape) -> list[int]:
    """The axes x, y, z = 0, 1, 2 along which the grid is longer than a cell."""
    return [a for a in range(3) if shape[2 - a] > 1]


def correlated(shape: Shape, rng: Rng, length: np.ndarray) -> np.ndarray:
    """A normal field of deviation 1: independent on a lattice of ``length`` (x, y, z) cells, multilinear in between."""
    field, square = rng.standard_normal([int(n / step) + 3 for n, step in zip(shape, length[::-1], strict=True)]), 1.0
    for i, (n, step) in enumerate(zip(shape, length[::-1], strict=True)):
        position = (np.arange(n) + rng.random() * step) / step
        low = position.astype(np.int64)
        part = (position - low).reshape([-1 if j == i else 1 for j in range(3)])
        field = (1 - part) * field.take(low, i) + part * field.take(low + 1, i)
        square = square * ((1 - part) ** 2 + part**2)
    return field / np.sqrt(square)


def vertical_ratio(shape: Shape, rng: Rng) -> tuple[int, np.ndarray]:
    """A vertical axis and the conductances along the axes, vertically down to 1/300 of the others."""
    up, ratio = int(rng.choice(axes_of(shape))), np.ones(3)
    if rng.random() < 0.6:
        ratio[up] = 10.0 ** rng.uniform(-2.5, 0.0)
    return up, ratio


def layers(shape: Shape, rng: Rng, up: int, thickest: int) -> np.ndarray:
    """A normal number for each layer across the axis `up`, of 1 to ``thickest`` cells; broadcastable."""
    n = shape[2 - up]
    layer = np.repeat(rng.standard_normal(n), rng.integers(1, thickest + 1, n))[:n]
    return layer.reshape([-1 if j == 2 - up else 1 for j in range(3)])


def winding(shape: Shape, rng: Rng, up: int, count: int) -> np.ndarray:
    """bool: `count` winding channels along one axis, a few cells wide; in 3D flat ones across the axis `up`."""
    centre, axes = grid(shape), axes_of(shape)
    along = int(rng.choice([a for a in axes if a != up]))
    across = next((a for a in axes if a not in (along, up)), up)
    inside = np.zeros(shape, bool)
    for _ in range(count):
        wave = np.sin(2 * np.pi * (rng.uniform(0.5, 3) * centre[along] / shape[2 - along] + rng.random()))
        middle = shape[2 - across] * (rng.random() + rng.uniform(0, 0.2) * wave)
        channel = np.abs(centre[across] - middle) < rng.uniform(0.7, 3.5)
        if across != up:
            bottom = rng.uniform(-1, shape[2 - up])
            channel = channel & (np.abs(centre[up] - bottom) < rng.uniform(0.7, 2.5))
        inside |= channel
    return inside


def small_balls(shape: Shape, rng: Rng) -> np.ndarray:
    """bool: balls of radii from 1 to 5 cells that fill up to a fifth of the grid."""
    inside = np.zeros(shape, bool)
    x, y, z = grid(shape)
    largest, share = rng.uniform(1.5, 5.0), rng.uniform(0.02, 0.2)
    while inside.mean() < share:
        centre, radius = rng.random(3) * shape[::-1], rng.uniform(1.0, largest)
        inside |= (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 * (shape[0] > 1) < radius**2
    return inside


@medium(1.5)
def medium_lognormal(shape: Shape, rng: Rng) -> System:
    """An independent log-normal coefficient in every cell, of deviation up to 3."""
    return flow(shape, rng, rng.uniform(0.3, 3.0) * rng.standard_normal(shape))


@medium(1.5)
def medium_correlated(shape: Shape, rng: Rng) -> System:
    """Log-normal, of deviation up to 3, correlated over 2 to 12 cells along each axis, horizontally or all alike."""
    length = rng.uniform(2.0, 12.0, 3) if rng.random() < 0.7 else np.full(3, rng.uniform(2.0, 8.0))
    _, ratio = vertical_ratio(shape, rng)
    return flow(shape, rng, rng.uniform(0.5, 3.0) * correlated(shape, rng, length), ratio)


@medium(1.0)
def medium_layered(shape: Shape, rng: Rng) -> System:
    """Layers of a few cells, of deviation up to 4, with some noise in each."""
    up, ratio = vertical_ratio(shape, rng)
    noise = rng.uniform(0.0, 1.0) * rng.standard_normal(shape)
    return flow(shape, rng, rng.uniform(0.5, 4.0) * layers(shape, rng, up, 6) + noise, ratio)


@medium(1.0)
def medium_channelled(shape: Shape, rng: Rng) -> System:
    """Winding channels that conduct up to e^7 times as well as layered or correlated rock around them."""
    up, ratio = vertical_ratio(shape, rng)
    rock = layers(shape, rng, up, 6) if rng.random() < 0.5 else correlated(shape, rng, rng.uniform(2.0, 8.0, 3))
    inside = winding(shape, rng, up, int(rng.integers(2, 8)))
    return flow(shape, rng, rng.uniform(0.0, 3.0) * rock + rng.uniform(2.0, 7.0) * inside, ratio)


@medium(1.0)
def medium_drops(shape: Shape, rng: Rng) -> System:
    """Two phases: small balls up to 10^4 times as conductive as what is around them."""
    return flow(shape, rng, np.log(10.0) * rng.uniform(0.5, 4.0) * small_balls(shape, rng))


@medium(1.0)
def medium_bubbles(shape: Shape, rng: Rng) -> System:
    """Two phases: small balls down to 10^-4 times as conductive as what is around them."""
    return flow(shape, rng, -np.log(10.0) * rng.uniform(0.5, 4.0) * small_balls(shape, rng))


@medium(1.0)
def medium_stretched(shape: Shape, rng: Rng) -> System:
    """Cells that grow by up to 1.3 from one to the next, to up to 3000 times, from one end, both ends or the middle,
    along some axes.
    """
    widths: list[np.ndarray] = []  # logarithms
    for a, n in enumerate(shape[::-1]):
        at = np.arange(n)
        steps = (at, n - 1 - at, np.minimum(at, n - 1 - at), np.maximum(at, n - 1 - at))[int(rng.integers(4))]
        growth = rng.uniform(0.0, min(np.log(1.3), 8.0 / max(n - 1, 1))) if rng.random() < 0.8 else 0.0
        widths.append((growth * steps).reshape([-1 if j == 2 - a else 1 for j in range(3)]))
    x, y, z = widths
    return flow(shape, rng, np.stack(np.broadcast_arrays(y + z - x, x + z - y, x + y - z)))


def random_medium(rng: Rng, two_dimensional: bool) -> tuple[str, System]:
    """A family's name and a system of it, drawn by the odds of `MEDIA`."""
    names = list(MEDIA)
    odds = np.array([MEDIA[name][1] for name in names])
    name = str(rng.choice(names, p=odds / odds.sum()))
    shapes = SHAPES_2D if two_dimensional else SHAPES_3D
    return name, MEDIA[name][0](shapes[int(rng.integers(len(shapes)))], rng)
