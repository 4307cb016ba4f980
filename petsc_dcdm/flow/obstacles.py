"""Solid bodies in the flow: a ball or any closed surface mesh, at rest, on a line back and forth, or on a circle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.flow.staggered import Grid, Vector

if TYPE_CHECKING:
    import trimesh

Path = Callable[[float], tuple[Vector, Vector]]
"""At a time: where the centre is, in cells from the corner of the grid, and its velocity."""


def at_rest(centre: Vector) -> Path:
    """Does not move."""
    return lambda time: (centre, (0.0, 0.0, 0.0))


def back_and_forth(centre: Vector, reach: Vector, period: float) -> Path:
    """centre + reach sin(2 pi t / period)."""

    def path(time: float) -> tuple[Vector, Vector]:
        turn, rate = 2 * math.pi * time / period, 2 * math.pi / period
        here = [c + r * math.sin(turn) for c, r in zip(centre, reach, strict=True)]
        speed = [r * rate * math.cos(turn) for r in reach]
        return (here[0], here[1], here[2]), (speed[0], speed[1], speed[2])

    return path


class Ball:
    """A ball (a disc in 2D) of a radius in cells on a path; see `petsc_dcdm.flow.smoke.Obstacle`."""

    def __init__(self, grid: Grid, radius: float, path: Path) -> None:
        self._grid, self._radius, self._path = grid, radius, path

    def __call__(self, time: float) -> tuple[np.ndarray, Vector]:
        centre, velocity = self._path(time)
        k, j, i = self._grid.box.grown().indices()
        distance = np.zeros([n + 2 for n in self._grid.box.shape])
        for a, index in enumerate((i, j, k)):
            if a in self._grid.axes:
                distance = distance + (index + 0.5 - centre[a]) ** 2
        return distance < self._radius**2, velocity


class Body:
    """A closed surface mesh on a path.

    Parameters
    ----------
    mesh
        as `petsc_dcdm.poisson.mesh.load` gives it
    size
        its longest edge over the shortest of the domain
    rotation
        degrees about x, then y, then z
    """

    def __init__(self, grid: Grid, mesh: trimesh.Trimesh, path: Path, size: float, rotation: Vector) -> None:
        self._grid, self._mesh, self._path = grid, mesh, path
        self._size, self._rotation = size, rotation

    def __call__(self, time: float) -> tuple[np.ndarray, Vector]:
        from petsc_dcdm.poisson.mesh import place, voxelise

        centre, velocity = self._path(time)
        shape = self._grid.shape
        x, y, z = (c / n for c, n in zip(centre, shape[::-1], strict=True))
        placed = place(self._mesh, shape, self._size, (x, y, z), self._rotation)
        return voxelise(placed, shape, self._grid.box.grown()), velocity
