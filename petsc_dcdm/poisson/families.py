"""The systems a pressure solver should be good at, by name: ``make(name, shape, seed, box)`` is a World.

A family is one function under the decorator :func:`family`: a pure function of the global shape, the seed and the box,
so that each rank builds its own part of the same world and nothing of global size exists. All of them work in 2D
(nz = 1). Sealed pockets of fluid may remain: pockets.seal_pockets removes them.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import OPEN, SIDES, SOLID, Box, sides_of, uniform
from petsc_dcdm.poisson.media import ALL_SIDES
from petsc_dcdm.poisson.registry import Family, catalogue, families, family
from petsc_dcdm.poisson.scene import World, all_fluid, build
from petsc_dcdm.poisson.shapes import balls, bricks, cell_centres, cells_along, gravity, shortest, vertical, waves

__all__ = ["Family", "catalogue", "families", "family", "find", "make"]


def find(name: str) -> Family:
    """The family of this name, or of ``module:name``, which imports the module that defines it first (so that any
    process finds it). ValueError with the list of names for an unknown one.
    """
    module, _, own = name.rpartition(":")
    if module:
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(f"The family {name!r} cannot be had: {error}.") from error
    if own not in families:
        raise ValueError(f"There is no family {own!r}; the families are {', '.join(families)}.")
    return families[own]


def make(name: str, shape: Shape, seed: int, box: Box) -> World:
    """The world of a family, which is named as in :func:`find`."""
    return find(name).build(shape, seed, box)


def _flags(box: Box, solid: np.ndarray | None = None, air: np.ndarray | None = None) -> np.ndarray:
    flags = all_fluid(box)
    if air is not None:
        flags[np.broadcast_to(air, flags.shape)] = OPEN
    if solid is not None:
        flags[np.broadcast_to(solid, flags.shape)] = SOLID
    return flags


# The families
# -------------------------------------------------------------------------------------------------------


@family(limit=7, more_if_smooth=1, random=False)
def box(shape: Shape, seed: int, box: Box) -> World:
    """A box of fluid whose sides are all held at zero pressure."""
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES))


@family(limit=7, more_if_smooth=1, random=False)
def open_wall(shape: Shape, seed: int, box: Box) -> World:
    """A closed box with one open side, the top."""
    up = vertical(shape)
    return build(shape, box, all_fluid(box), sides_of(SIDES[2 * up + 1]), flow=gravity(shape))


@family(limit=7, more_if_smooth=1)
def channel(shape: Shape, seed: int, box: Box) -> World:
    """A stream along x past a cluster of balls and a brick."""
    rng = np.random.default_rng(seed)
    dims, short = cells_along(shape), shortest(shape)
    middle = dims * [0.4, 0.5, 0.5]
    centres = middle + rng.normal(0, 0.12, (6, 3)) * short
    solid = balls(shape, box, centres, rng.uniform(0.08, 0.16, 6) * short)
    corner = middle - 0.1 * short
    solid |= bricks(shape, box, corner[None], corner[None] + rng.uniform(0.15, 0.3, (1, 3)) * short)
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=7, more_if_smooth=1)
def tank(shape: Shape, seed: int, box: Box) -> World:
    """A closed tank with a wavy free surface at about two thirds of its height, and air bubbles."""
    rng = np.random.default_rng(seed)
    up, dims, short = vertical(shape), cells_along(shape), shortest(shape)
    surface = 0.67 * dims[up] + waves(shape, box, rng, 0.12 * dims[up])
    air = cell_centres(shape, box)[up] > surface
    bubbles = balls(shape, box, rng.uniform(0, 1, (8, 3)) * dims, rng.uniform(0.03, 0.07, 8) * short)
    return build(shape, box, _flags(box, air=air | bubbles), sides_of(), flow=gravity(shape))


@family(limit=7, more_if_smooth=1)
def dam_break(shape: Shape, seed: int, box: Box) -> World:
    """A collapsing column that fills a third of the box, with pillars and a ramp: most cells are air."""
    rng = np.random.default_rng(seed)
    up, dims, short = vertical(shape), cells_along(shape), shortest(shape)
    position = cell_centres(shape, box)
    x, height = position[0] / dims[0], position[up] / dims[up]
    # A column of 0.7 x 0.36 and a tongue of 0.08 along the floor; the waves have zero mean.
    profile = np.where(x < 0.36, 0.78, 0.78 * np.exp(-(((x - 0.36) / 0.06) ** 2)) + 0.06)
    air = height > profile + waves(shape, box, rng, 0.03)
    foot = rng.uniform(0.15, 0.85, (5, 3)) * dims
    half = rng.uniform(0.03, 0.06, (5, 3)) * short
    low, high = foot - half, foot + half
    low[:, up], high[:, up] = 0, rng.uniform(0.2, 0.6, 5) * dims[up]
    ramp = height < 0.12 * (x - 0.75) / 0.25
    solid = bricks(shape, box, low, high) | ramp
    return build(shape, box, _flags(box, solid, air), sides_of(), flow=gravity(shape))


@family(limit=7, more_if_smooth=1)
def mixed(shape: Shape, seed: int, box: Box) -> World:
    """Solid bricks and balls under a wavy free surface, bubbles, sides open at random."""
    rng = np.random.default_rng(seed)
    up, dims, short = vertical(shape), cells_along(shape), shortest(shape)
    air = cell_centres(shape, box)[up] > 0.8 * dims[up] + waves(shape, box, rng, 0.1 * dims[up])
    air = air | balls(shape, box, rng.uniform(0, 1, (4, 3)) * dims, rng.uniform(0.04, 0.09, 4) * short)
    solid = balls(shape, box, rng.uniform(0, 1, (6, 3)) * dims, rng.uniform(0.05, 0.14, 6) * short)
    low = rng.uniform(0, 0.8, (4, 3)) * dims
    solid |= bricks(shape, box, low, low + rng.uniform(0.08, 0.25, (4, 3)) * short)
    sides = sides_of(" ".join(side for side in SIDES[: 2 * up] if rng.uniform() < 0.3))
    return build(shape, box, _flags(box, solid, air), sides, flow=gravity(shape))


@family(limit=7, more_if_smooth=1)
def porous(shape: Shape, seed: int, box: Box) -> World:
    """A stream along x through 120 solid balls."""
    rng = np.random.default_rng(seed)
    dims, short = cells_along(shape), shortest(shape)
    thin = 0.5 if shape[0] == 1 else 1.0  # discs block a plane sooner than balls block a volume
    solid = balls(shape, box, rng.uniform(0, 1, (120, 3)) * dims, thin * rng.uniform(0.05, 0.11, 120) * short)
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=10)
def random_solids(shape: Shape, seed: int, box: Box) -> World:
    """Every cell is solid with probability 1/4; the side x+ is open."""
    solid = uniform(seed, 0, box.grown().numbers(shape)) < 0.25
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=9)
def plates(shape: Shape, seed: int, box: Box) -> World:
    """Plates one cell thick across the stream, eight cells apart, each with a few small holes."""
    rng = np.random.default_rng(seed)
    grown = box.grown()
    dims = cells_along(shape)
    _, _, i = grown.indices()
    solid = np.zeros(grown.shape, bool)
    for at in range(8, shape[2] - 1, 8):
        holes = np.maximum(rng.uniform(0, 1, (4, 3)) * (dims - 3), 0)
        hole = bricks(shape, box, holes * [0, 1, 1], holes * [0, 1, 1] + [dims[0], 2, 2])
        solid |= (i == at) & ~hole
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=7, more_if_smooth=1)
def smooth(shape: Shape, seed: int, box: Box) -> World:
    """Smooth coefficients over two decades, all sides open."""
    rng = np.random.default_rng(seed)
    grown = box.grown()
    position = [c / n for c, n in zip(cell_centres(shape, box), cells_along(shape), strict=True)]
    exponent = np.zeros(grown.shape)
    for _ in range(6):
        k = rng.integers(1, 4, 3) * [1, 1, shape[0] > 1]
        exponent += np.sin(2 * np.pi * sum(c * n for c, n in zip(position, k, strict=True)) + rng.uniform(0, 2 * np.pi))
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), 10.0 ** np.clip(exponent / 2.5, -1, 1))


@family(limit=10)
def jumps(shape: Shape, seed: int, box: Box) -> World:
    """Coefficients 1 or 1000 on blocks of 8 cells, at random, all sides open."""
    k, j, i = box.grown().indices()
    blocks = (k // 8 * (shape[1] // 8 + 1) + j // 8) * (shape[2] // 8 + 1) + i // 8
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), np.where(uniform(seed, 0, blocks) < 0.5, 1.0, 1000.0))


@family(limit=11)
def drops(shape: Shape, seed: int, box: Box) -> World:
    """Two phases: 40 balls a thousand times as stiff as what is around them, all sides open."""
    rng = np.random.default_rng(seed)
    stiff = balls(
        shape, box, rng.uniform(0, 1, (40, 3)) * cells_along(shape), rng.uniform(0.04, 0.12, 40) * shortest(shape)
    )
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), np.where(stiff, 1000.0, 1.0))


def _anisotropic(shape: Shape, box: Box, ratio: float) -> World:
    """Conductance 1 along x and ``ratio`` along y and z, all sides open."""
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), axis=(1.0, ratio, ratio))


@family(limit=9, random=False)
def axis_4(shape: Shape, seed: int, box: Box) -> World:
    """Conductances along y and z four times those along x."""
    return _anisotropic(shape, box, 4.0)


@family(limit=9, random=False)
def axis_100(shape: Shape, seed: int, box: Box) -> World:
    """Conductances along y and z a hundred times those along x."""
    return _anisotropic(shape, box, 100.0)


@family(limit=8)
def neumann(shape: Shape, seed: int, box: Box) -> World:
    """A closed box with a few solid balls: pure Neumann, the constant is in the null space."""
    rng = np.random.default_rng(seed)
    dims, short = cells_along(shape), shortest(shape)
    solid = balls(shape, box, rng.uniform(0, 1, (5, 3)) * dims, rng.uniform(0.06, 0.15, 5) * short)
    return build(shape, box, _flags(box, solid), sides_of(), flow=(1.0, 0.5, 0.25))
