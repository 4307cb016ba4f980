"""Media that none of the families resembles, to see what the plan, the parts and the net make of what they were not
made for. They are families themselves: ``petsc-dcdm compare --family petsc_dcdm.studies.media.foreign:gyroid``.
"""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import SIDES, Box, sides_of, uniform
from petsc_dcdm.poisson.registry import family
from petsc_dcdm.poisson.scene import World, all_fluid, build

ALL_SIDES = " ".join(SIDES)
NAMES = ("percolation", "sponge", "rods", "cracks", "single_cells", "gyroid", "turning")


def _world(shape: Shape, box: Box, sides: str, *k: np.ndarray) -> World:
    """With this conductivity (padded, of any shape that broadcasts), or one along each of x, y, z."""
    whole = [np.broadcast_to(value, box.grown().shape).copy() for value in k]
    coefficient = whole[0] if len(whole) == 1 else (whole[0], whole[1], whole[2])
    return build(shape, box, all_fluid(box), sides_of(sides), coefficient)


@family()
def percolation(shape: Shape, seed: int, box: Box) -> World:
    """Cells of 1, with a probability just above where they begin to hang together (0.35, in the plane 0.6), others 1e-6
    as conductive: a labyrinth; x+ and x- open.
    """
    conducts = uniform(seed, 0, box.grown().numbers(shape)) < (0.6 if shape[0] == 1 else 0.35)
    return _world(shape, box, "x+ x-", np.where(conducts, 1.0, 1e-6))


@family(random=False)
def sponge(shape: Shape, seed: int, box: Box) -> World:
    """Menger's sponge of holes that conduct 1e-5, of 1 to 27 cells; x+ open."""
    hole = np.zeros(box.grown().shape, bool)
    for power in range(4):
        middle = [(index // 3**power) % 3 == 1 for index in box.grown().indices()]
        hole |= sum(inside.astype(int) for inside in middle) >= 2
    return _world(shape, box, "x+", np.where(hole, 1e-5, 1.0))


def _apart(shape: Shape, box: Box, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """From a random place, along a random direction: how far along, and the square of the distance, of every cell."""
    k, j, i = box.grown().indices()
    place, direction = rng.uniform(0, 1, 3) * shape[::-1], rng.standard_normal(3)
    if shape[0] == 1:
        direction[2] = 0.0
    direction /= np.linalg.norm(direction)
    away = [index - at for index, at in zip((i, j, k), place, strict=True)]
    along = sum((a * d for a, d in zip(away, direction, strict=True)), np.zeros(()))
    return along, away[0] ** 2 + away[1] ** 2 + away[2] ** 2


@family()
def rods(shape: Shape, seed: int, box: Box) -> World:
    """60 rods askew, two cells thick and up to 0.8 of the grid long, of 1e4; all sides open."""
    rng, k = np.random.default_rng(seed), np.ones(box.grown().shape)
    for _ in range(60):
        along, square = _apart(shape, box, rng)
        k[(square - along**2 < 1.5) & (np.abs(along) < 0.4 * shape[2])] = 1e4
    return _world(shape, box, ALL_SIDES, k)


@family()
def cracks(shape: Shape, seed: int, box: Box) -> World:
    """Twelve conducting discs askew, one or two cells thick, of 1e5; x+ and x- open."""
    rng, k = np.random.default_rng(seed), np.ones(box.grown().shape)
    for _ in range(12):
        along, square = _apart(shape, box, rng)
        k[(np.abs(along) < 0.8) & (square < (0.35 * shape[2]) ** 2)] = 1e5
    return _world(shape, box, "x+ x-", k)


@family(random=False)
def single_cells(shape: Shape, seed: int, box: Box) -> World:
    """Cells of 1 and of 1e-6 in turn, as on a chessboard; x+ and x- open."""
    k, j, i = box.grown().indices()
    return _world(shape, box, "x+ x-", np.where((i + j + k) % 2 == 0, 1.0, 1e-6))


@family(random=False)
def gyroid(shape: Shape, seed: int, box: Box) -> World:
    """Shells along a gyroid with a period of 21.7 cells, one or two cells thick, of 1e4; x+ and x- open."""
    z, y, x = (2 * np.pi / 21.7 * index for index in box.grown().indices())
    height = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    return _world(shape, box, "x+ x-", np.where(np.abs(height) < 0.15, 1e4, 1.0))


@family(random=False)
def turning(shape: Shape, seed: int, box: Box) -> World:
    """Conductivities along x, y, z between 0.03 and 30 that change with place on their own: the strong axis turns; all
    sides open.
    """
    k, j, i = box.grown().indices()
    nz, ny, nx = shape
    waves = (
        np.sin(2 * np.pi * i / nx) * np.cos(2 * np.pi * j / ny),
        np.cos(4 * np.pi * j / ny) * np.sin(2 * np.pi * k / max(nz, 2) + 1),
        np.sin(2 * np.pi * (i + j + k) / ny),
    )
    return _world(shape, box, ALL_SIDES, *(10.0 ** (1.5 * wave) for wave in waves))
