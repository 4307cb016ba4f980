"""Media of ground water, reservoirs and two-phase flow: contrasts of many decades in places that no grid resolves.

Families as those of :mod:`petsc_dcdm.poisson.families`, which registers them; all of them work in 2D.
"""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import SIDES, Box, normal, sides_of, uniform
from petsc_dcdm.poisson.registry import family
from petsc_dcdm.poisson.scene import World, all_fluid, build
from petsc_dcdm.poisson.shapes import balls, cells_along, vertical

ALL_SIDES = " ".join(SIDES)


def _small_balls(shape: Shape, seed: int, box: Box) -> np.ndarray:
    """Balls of 2 to 5 cells that fill some 8 % of the grid (15 % of a plane), bool padded."""
    rng = np.random.default_rng(seed)
    cells, flat = float(np.prod(shape)), shape[0] == 1
    count = max(int(cells / (260 if flat else 1300)), 3)
    return balls(shape, box, rng.uniform(0, 1, (count, 3)) * cells_along(shape), rng.uniform(2.0, 5.0, count))


@family(limit=13)
def drops_small(shape: Shape, seed: int, box: Box) -> World:
    """Two phases: drops of 2 to 5 cells a thousand times as stiff as what is around them, all sides open."""
    k = np.where(_small_balls(shape, seed, box), 1000.0, 1.0)
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), k)


@family(limit=10)
def bubbles(shape: Shape, seed: int, box: Box) -> World:
    """Two phases: bubbles of 2 to 5 cells that conduct a thousandth of what is around them, all sides open."""
    k = np.where(_small_balls(shape, seed, box), 0.001, 1.0)
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), k)


def _correlated(shape: Shape, seed: int, box: Box, stream: int, length: tuple[int, int, int]) -> np.ndarray:
    """A normal field whose values on a lattice of ``length`` (z, y, x) cells are independent, multilinear in between
    and scaled to a deviation of 1 everywhere; float64 padded.
    """
    grown = box.grown()
    low, weight = [], []
    for n, indices in zip(length, grown.indices(), strict=True):
        position = indices / n
        low.append(np.floor(position).astype(np.int64))
        weight.append(position - low[-1])
    columns, rows = (shape[2] // length[2] + 4), (shape[1] // length[1] + 4)
    field, square = np.zeros(grown.shape), np.zeros(grown.shape)
    for corner in np.ndindex(2, 2, 2):
        part = np.ones((1, 1, 1))
        for c, w in zip(corner, weight, strict=True):
            part = part * (w if c else 1 - w)
        z, y, x = (i + c + 1 for i, c in zip(low, corner, strict=True))
        field += part * normal(seed, stream, (z * rows + y) * columns + x)
        square += part**2
    return field / np.sqrt(square)


def _lognormal(shape: Shape, seed: int, box: Box, deviation: float) -> World:
    coefficient = np.exp(deviation * normal(seed, 0, box.grown().numbers(shape)))
    return build(shape, box, all_fluid(box), sides_of("x+"), coefficient)


@family()
def lognormal(shape: Shape, seed: int, box: Box) -> World:
    """An independent log-normal coefficient in every cell (deviation 1 of the logarithm), x+ open."""
    return _lognormal(shape, seed, box, 1.0)


@family(limit=12)
def lognormal_2(shape: Shape, seed: int, box: Box) -> World:
    """The same with deviation 2: four decades between most of the cells."""
    return _lognormal(shape, seed, box, 2.0)


@family(limit=18)
def lognormal_3(shape: Shape, seed: int, box: Box) -> World:
    """The same with deviation 3: six decades between most of the cells."""
    return _lognormal(shape, seed, box, 3.0)


@family(limit=10)
def correlated_2(shape: Shape, seed: int, box: Box) -> World:
    """A log-normal coefficient, deviation 2, correlated over 12 cells along x and 4 along y and z; x+ and x- open."""
    coefficient = np.exp(2.0 * _correlated(shape, seed, box, 0, (4, 4, 12)))
    return build(shape, box, all_fluid(box), sides_of("x+ x-"), coefficient)


@family(limit=11)
def correlated_3(shape: Shape, seed: int, box: Box) -> World:
    """The same with deviation 3."""
    coefficient = np.exp(3.0 * _correlated(shape, seed, box, 0, (4, 4, 12)))
    return build(shape, box, all_fluid(box), sides_of("x+ x-"), coefficient)


@family(limit=20)
def aquifer(shape: Shape, seed: int, box: Box) -> World:
    """Layers of a few cells (deviation 4 of the logarithm), winding channels e^5 times as conductive, vertically a
    hundredth; x+ and x- open.
    """
    rng = np.random.default_rng(seed)
    index = box.grown().indices()
    up = vertical(shape)
    height, along = index[2 - up], index[2]
    across = index[1] if up == 2 else height
    thickness = rng.integers(2, 7, shape[2 - up] + 2)
    tops = np.cumsum(thickness)
    layer = np.searchsorted(tops, height, side="right")
    logarithm = np.broadcast_to(4.0 * rng.standard_normal(tops.size + 1)[layer], box.grown().shape).copy()
    logarithm += 0.5 * normal(seed, 1, box.grown().numbers(shape))
    n_across, n_along = (shape[1] if up == 2 else shape[2 - up]), shape[2]
    for _ in range(max(4, shape[2 - up] // 8)):
        where, wave, phase = rng.uniform(0, n_across), rng.uniform(1, 3), rng.uniform(0, 2 * np.pi)
        middle = where + 0.1 * n_across * np.sin(2 * np.pi * wave * along / n_along + phase)
        inside = np.abs(across - middle) < rng.uniform(1.5, 3.5)
        if up == 2:
            bottom = rng.integers(0, shape[0])
            inside = inside & (height >= bottom) & (height < bottom + rng.integers(2, 5))
        logarithm += 5.0 * inside
    k = np.exp(logarithm - 10.0)
    ratio = [1.0, 1.0, 1.0]
    ratio[up] = 0.01
    return build(shape, box, all_fluid(box), sides_of("x+ x-"), k, axis=(ratio[0], ratio[1], ratio[2]))


@family(limit=16)
def reservoir(shape: Shape, seed: int, box: Box) -> World:
    """Like the tenth SPE comparison (60 x 220 x 85 cells of 20 x 10 x 2 feet): above log-normal over six decades,
    below channels in tight rock, vertical permeability 0.3 and in the rock 1e-3 of the horizontal one; y+ and y- open.
    """
    rng = np.random.default_rng(seed)
    k, j, i = box.grown().indices()
    up = vertical(shape)
    height, tall = (k, shape[0]) if up == 2 else (j, shape[1])
    smooth = np.log(10.0) * 1.5 * _correlated(shape, seed, box, 0, (3, 12, 6))
    rock = np.log(10.0) * (-1.5 + 0.7 * _correlated(shape, seed, box, 1, (2, 4, 4)))
    channel = np.zeros(box.grown().shape, bool)
    across, along, wide, length = (i, j, shape[2], shape[1]) if up == 2 else (j, i, shape[1], shape[2])
    for _ in range(max(6, int(0.6 * tall * wide / 60))):
        where, wave, phase = rng.uniform(0, wide), rng.uniform(1, 3), rng.uniform(0, 2 * np.pi)
        middle = where + 0.15 * wide * np.sin(2 * np.pi * wave * along / length + phase)
        here = np.abs(across - middle) < rng.uniform(2.0, 5.0)
        if up == 2:
            bottom = rng.integers(0, tall)
            here = here & (height >= bottom) & (height < bottom + rng.integers(2, 7))
        channel |= np.broadcast_to(here, channel.shape)
    sand = np.log(10.0) * (2.0 + 0.5 * _correlated(shape, seed, box, 2, (2, 4, 4)))
    above = np.broadcast_to(height >= 0.59 * tall, channel.shape)
    logarithm = np.where(above, smooth, np.where(channel, sand, rock))
    horizontal = np.exp(logarithm) / 1000.0
    upright = horizontal * np.where(above | channel, 0.3, 1e-3)
    along_axes = [horizontal, 4.0 * horizontal, 100.0 * horizontal]
    along_axes[up] = upright * (100.0 if up == 2 else 4.0)
    open_sides = sides_of("y+ y-" if up == 2 else "x+ x-")
    return build(shape, box, all_fluid(box), open_sides, (along_axes[0], along_axes[1], along_axes[2]))


@family(limit=11, random=False)
def stretched(shape: Shape, seed: int, box: Box) -> World:
    """A cavity whose cells grow by 1.3 from all walls (by less on a grid that it would make wider than 1 : 10^7), pure
    diffusion between walls that hold the value.
    """
    widths = []
    for n, index in zip(shape, box.grown().indices(), strict=True):
        ratio = min(1.3, 10.0 ** (7.0 / max(n / 2 - 1, 1)))
        widths.append(ratio ** np.clip(np.minimum(index, n - 1 - index), 0, None) / ratio ** ((n - 1) // 2))
    z, y, x = widths if shape[0] > 1 else [np.ones((3, 1, 1)), *widths[1:]]
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), (y * z / x, x * z / y, x * y / z))


@family(limit=12)
def throats(shape: Shape, seed: int, box: Box) -> World:
    """Pores of eight cells that hang together through throats of one cell of a hundredth, x+ and x- open."""
    k, j, i = box.grown().indices()
    walls = ((i % 8 == 0) * 1 + (j % 8 == 0) * 1 + ((k % 8 == 0) & (shape[0] > 1)) * 1) > 0
    hole = uniform(seed, 0, box.grown().numbers(shape)) < (0.1 if shape[0] == 1 else 0.03)
    return build(shape, box, all_fluid(box), sides_of("x+ x-"), np.where(walls, np.where(hole, 0.01, 1e-6), 1.0))
