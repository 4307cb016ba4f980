"""The systems of the paper's comparison: its training operator and operators that the network never saw.

All of them keep the outer walls of the training operator: pressure zero one cell outside the grid, so that a
cell in the open has the diagonal 6. Obstacles are closed to the flow; above a free surface the pressure is
zero.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import FLUID, OPEN, SIDES, SOLID, sides_of, whole
from petsc_dcdm.poisson.scene import World, all_fluid, build
from petsc_dcdm.training.dcdm import random_rhs, smooth_rhs

MOVING_FRAMES = 5


def with_far_walls(shape: Shape, flags: np.ndarray) -> World:
    """The world of padded `flags` whose six walls hold zero pressure one cell outside, not on the wall."""
    world = build(shape, whole(shape), flags, sides_of(" ".join(SIDES)))
    for axis in range(3):
        for end in (0, -1):
            layer: list[slice | int] = [slice(None)] * 3
            layer[axis] = end
            world.s[tuple(layer)] -= world.fluid[tuple(layer)]
    return world


def training_box(n: int) -> World:
    """The operator that the network was trained on."""
    shape = (n, n, n)
    return with_far_walls(shape, all_fluid(whole(shape)))


def obstacle(n: int, mesh: Path | None) -> World:
    """The box with a solid in its middle: a surface mesh, or two crossed bricks without one."""
    shape = (n, n, n)
    grown = whole(shape).grown()
    flags = all_fluid(whole(shape))
    if mesh is not None:
        from petsc_dcdm.poisson import mesh as meshes

        placed = meshes.place(meshes.load(mesh), shape, size=0.5)
        flags[meshes.voxelise(placed, shape, grown)] = SOLID
    else:
        k, j, i = ((index + 0.5) / n - 0.5 for index in grown.indices())
        flags[(abs(k) < 0.08) & (abs(j) < 0.25) & (abs(i) < 0.08)] = SOLID
        flags[(abs(k) < 0.25) & (abs(j) < 0.08) & (abs(i) < 0.25)] = SOLID
    return with_far_walls(shape, flags)


def moving_ball(n: int, frame: int) -> World:
    """A ball of radius n/6 on its way through the box along a diagonal: frame 0 to MOVING_FRAMES - 1."""
    shape = (n, n, n)
    k, j, i = ((index + 0.5) / n for index in whole(shape).grown().indices())
    at = 0.25 + 0.5 * frame / (MOVING_FRAMES - 1)
    flags = all_fluid(whole(shape))
    flags[(i - at) ** 2 + (j - 0.45) ** 2 + (k - at) ** 2 < 1 / 36] = SOLID
    return with_far_walls(shape, flags)


def free_surface(n: int) -> World:
    """A wavy surface at about two thirds of the height, air above it."""
    shape = (n, n, n)
    k, j, i = ((index + 0.5) / n for index in whole(shape).grown().indices())
    height = 0.65 + 0.08 * np.sin(2 * np.pi * i) + 0.05 * np.cos(4 * np.pi * j + 2 * np.pi * i)
    flags = np.where(k > height, OPEN, FLUID).astype(np.uint8)
    return with_far_walls(shape, flags)


def scenes(n: int, mesh: Path | None) -> dict[str, Callable[[], list[World]]]:
    """Name of each scene and the function that makes its frames."""
    return {
        "training operator": lambda: [training_box(n)],
        "obstacle": lambda: [obstacle(n, mesh)],
        "moving obstacle": lambda: [moving_ball(n, frame) for frame in range(MOVING_FRAMES)],
        "free surface": lambda: [free_surface(n)],
    }


def right_hand_sides(n: int, seed: int = 11) -> dict[str, np.ndarray]:
    """A random and a smooth right-hand side, float64 (n, n, n)."""
    return {"random": random_rhs(n, seed).numpy(), "smooth": smooth_rhs(n, seed).numpy()}
