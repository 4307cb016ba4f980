"""The systems a pressure solver should be good at, by name: ``make(name, shape, seed, box)`` is a World.

A family is one function under the decorator :func:`family`: a pure function of the global shape, the seed and the box,
so that each rank builds its own part of the same world and nothing of global size exists. All of them work in 2D
(nz = 1). Sealed pockets of fluid may remain: pockets.seal_pockets removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import OPEN, SIDES, SOLID, Box, normal, sides_of, uniform
from petsc_dcdm.poisson.scene import World, all_fluid, build

ALL_SIDES = " ".join(SIDES)

Build = Callable[[Shape, int, Box], World]


@dataclass(frozen=True)
class Family:
    """A family of systems, and what those who measure on it have to know.

    Attributes
    ----------
    build
        (global shape, seed, the box of a rank) -> that rank's part of the world.
    limit
        iterations of `petsc_dcdm.KSP` to a relative residual of 1e-6 that are promised; None: no promise.
    more_if_smooth
        how many more a smooth right-hand side may take where an axis has 128 cells or more.
    random
        whether another seed makes another world.
    """

    name: str
    build: Build
    limit: int | None = None
    more_if_smooth: int = 0
    random: bool = True

    @property
    def about(self) -> str:
        """One line for people."""
        return (self.build.__doc__ or "").strip().split("\n")[0]


families: dict[str, Family] = {}


def family(limit: int | None = None, more_if_smooth: int = 0, random: bool = True) -> Callable[[Build], Build]:
    """Decorator: make a function a family under its own name; the arguments are those of :class:`Family`.

    Public: a program of one's own may add families. ValueError if another function has the name already.
    """

    def register(build: Build) -> Build:
        name = build.__name__
        if name in families and families[name].build.__module__ != build.__module__:
            raise ValueError(f"There is a family {name!r} already.")
        families[name] = Family(name, build, limit, more_if_smooth, random)
        return build

    return register


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


# Geometry on the padded box
# -----------------------------------------------------------------------------------------


def _centres(shape: Shape, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell centres x, y, z of the padded box in cells, relative to the grid's corner; broadcastable."""
    k, j, i = box.grown().indices()
    return i + 0.5, j + 0.5, k + 0.5


def _dims(shape: Shape) -> np.ndarray:
    """Cells along x, y, z as floats."""
    return np.array(shape[::-1], float)


def _short(shape: Shape) -> float:
    """Cells along the shortest axis that is more than one cell thick."""
    return float(min((n for n in shape if n > 1), default=1))


def _up(shape: Shape) -> int:
    """The vertical axis (0, 1, 2 = x, y, z): z, or y in 2D."""
    return 2 if shape[0] > 1 else 1


def _gravity(shape: Shape) -> tuple[float, float, float]:
    return (0.0, 0.0, -1.0) if _up(shape) == 2 else (0.0, -1.0, 0.0)


def _balls(shape: Shape, box: Box, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
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


def _bricks(shape: Shape, box: Box, low: np.ndarray, high: np.ndarray) -> np.ndarray:
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


def _waves(shape: Shape, box: Box, rng: np.random.Generator, amplitude: float, count: int = 3) -> np.ndarray:
    """A sum of horizontal sine waves, broadcastable over the padded box; amplitude in cells."""
    x, y, z = _centres(shape, box)
    nx, ny, _ = _dims(shape)
    height = np.zeros((1, 1, box.shape[2] + 2))
    for n in range(count):
        kx, ky = rng.integers(0, 4, 2) + (n == 0)
        angle = 2 * np.pi * (kx * x / nx + (ky * y / ny if _up(shape) == 2 else 0.0)) + rng.uniform(0, 2 * np.pi)
        height = height + rng.uniform(0.3, 1.0) * amplitude / count * np.sin(angle)
    return height


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
    up = _up(shape)
    return build(shape, box, all_fluid(box), sides_of(SIDES[2 * up + 1]), flow=_gravity(shape))


@family(limit=7, more_if_smooth=1)
def channel(shape: Shape, seed: int, box: Box) -> World:
    """A stream along x past a cluster of balls and a brick."""
    rng = np.random.default_rng(seed)
    dims, short = _dims(shape), _short(shape)
    middle = dims * [0.4, 0.5, 0.5]
    centres = middle + rng.normal(0, 0.12, (6, 3)) * short
    solid = _balls(shape, box, centres, rng.uniform(0.08, 0.16, 6) * short)
    corner = middle - 0.1 * short
    solid |= _bricks(shape, box, corner[None], corner[None] + rng.uniform(0.15, 0.3, (1, 3)) * short)
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=7, more_if_smooth=1)
def tank(shape: Shape, seed: int, box: Box) -> World:
    """A closed tank with a wavy free surface at about two thirds of its height, and air bubbles."""
    rng = np.random.default_rng(seed)
    up, dims, short = _up(shape), _dims(shape), _short(shape)
    surface = 0.67 * dims[up] + _waves(shape, box, rng, 0.12 * dims[up])
    air = _centres(shape, box)[up] > surface
    bubbles = _balls(shape, box, rng.uniform(0, 1, (8, 3)) * dims, rng.uniform(0.03, 0.07, 8) * short)
    return build(shape, box, _flags(box, air=air | bubbles), sides_of(), flow=_gravity(shape))


@family(limit=7, more_if_smooth=1)
def dam_break(shape: Shape, seed: int, box: Box) -> World:
    """A collapsing column that fills a third of the box, with pillars and a ramp: most cells are air."""
    rng = np.random.default_rng(seed)
    up, dims, short = _up(shape), _dims(shape), _short(shape)
    position = _centres(shape, box)
    x, height = position[0] / dims[0], position[up] / dims[up]
    # A column of 0.7 x 0.36 and a tongue of 0.08 along the floor; the waves have zero mean.
    profile = np.where(x < 0.36, 0.78, 0.78 * np.exp(-(((x - 0.36) / 0.06) ** 2)) + 0.06)
    air = height > profile + _waves(shape, box, rng, 0.03)
    foot = rng.uniform(0.15, 0.85, (5, 3)) * dims
    half = rng.uniform(0.03, 0.06, (5, 3)) * short
    low, high = foot - half, foot + half
    low[:, up], high[:, up] = 0, rng.uniform(0.2, 0.6, 5) * dims[up]
    ramp = height < 0.12 * (x - 0.75) / 0.25
    solid = _bricks(shape, box, low, high) | ramp
    return build(shape, box, _flags(box, solid, air), sides_of(), flow=_gravity(shape))


@family(limit=7, more_if_smooth=1)
def mixed(shape: Shape, seed: int, box: Box) -> World:
    """Solid bricks and balls under a wavy free surface, bubbles, sides open at random."""
    rng = np.random.default_rng(seed)
    up, dims, short = _up(shape), _dims(shape), _short(shape)
    air = _centres(shape, box)[up] > 0.8 * dims[up] + _waves(shape, box, rng, 0.1 * dims[up])
    air = air | _balls(shape, box, rng.uniform(0, 1, (4, 3)) * dims, rng.uniform(0.04, 0.09, 4) * short)
    solid = _balls(shape, box, rng.uniform(0, 1, (6, 3)) * dims, rng.uniform(0.05, 0.14, 6) * short)
    low = rng.uniform(0, 0.8, (4, 3)) * dims
    solid |= _bricks(shape, box, low, low + rng.uniform(0.08, 0.25, (4, 3)) * short)
    sides = sides_of(" ".join(side for side in SIDES[: 2 * up] if rng.uniform() < 0.3))
    return build(shape, box, _flags(box, solid, air), sides, flow=_gravity(shape))


@family(limit=7, more_if_smooth=1)
def porous(shape: Shape, seed: int, box: Box) -> World:
    """A stream along x through 120 solid balls."""
    rng = np.random.default_rng(seed)
    dims, short = _dims(shape), _short(shape)
    thin = 0.5 if shape[0] == 1 else 1.0  # discs block a plane sooner than balls block a volume
    solid = _balls(shape, box, rng.uniform(0, 1, (120, 3)) * dims, thin * rng.uniform(0.05, 0.11, 120) * short)
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
    dims = _dims(shape)
    _, _, i = grown.indices()
    solid = np.zeros(grown.shape, bool)
    for at in range(8, shape[2] - 1, 8):
        holes = np.maximum(rng.uniform(0, 1, (4, 3)) * (dims - 3), 0)
        hole = _bricks(shape, box, holes * [0, 1, 1], holes * [0, 1, 1] + [dims[0], 2, 2])
        solid |= (i == at) & ~hole
    return build(shape, box, _flags(box, solid), sides_of("x+", "x-"))


@family(limit=7, more_if_smooth=1)
def smooth(shape: Shape, seed: int, box: Box) -> World:
    """Smooth coefficients over two decades, all sides open."""
    rng = np.random.default_rng(seed)
    grown = box.grown()
    position = [c / n for c, n in zip(_centres(shape, box), _dims(shape), strict=True)]
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
    stiff = _balls(shape, box, rng.uniform(0, 1, (40, 3)) * _dims(shape), rng.uniform(0.04, 0.12, 40) * _short(shape))
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), np.where(stiff, 1000.0, 1.0))


def _stretched(shape: Shape, box: Box, ratio: float) -> World:
    """Conductance 1 along x and ``ratio`` along y and z, all sides open."""
    return build(shape, box, all_fluid(box), sides_of(ALL_SIDES), axis=(1.0, ratio, ratio))


@family(limit=9, random=False)
def axis_4(shape: Shape, seed: int, box: Box) -> World:
    """Conductances along y and z four times those along x."""
    return _stretched(shape, box, 4.0)


@family(limit=9, random=False)
def axis_100(shape: Shape, seed: int, box: Box) -> World:
    """Conductances along y and z a hundred times those along x."""
    return _stretched(shape, box, 100.0)


@family(limit=8)
def neumann(shape: Shape, seed: int, box: Box) -> World:
    """A closed box with a few solid balls: pure Neumann, the constant is in the null space."""
    rng = np.random.default_rng(seed)
    dims, short = _dims(shape), _short(shape)
    solid = _balls(shape, box, rng.uniform(0, 1, (5, 3)) * dims, rng.uniform(0.06, 0.15, 5) * short)
    return build(shape, box, _flags(box, solid), sides_of(), flow=(1.0, 0.5, 0.25))


@family()
def lognormal(shape: Shape, seed: int, box: Box) -> World:
    """An independent log-normal coefficient in every cell (deviation 1 of the logarithm), x+ open."""
    coefficient = np.exp(normal(seed, 0, box.grown().numbers(shape)))
    return build(shape, box, all_fluid(box), sides_of("x+"), coefficient)
