"""The simulations that `petsc-dcdm flow` knows by name; each is a few lines to start your own from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.flow.obstacles import Ball, Body, Path, at_rest, back_and_forth
from petsc_dcdm.flow.smoke import Obstacle, Physics, Smoke
from petsc_dcdm.flow.staggered import Grid, Side
from petsc_dcdm.flow.tank import Tank
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

if TYPE_CHECKING:
    import trimesh


@dataclass(frozen=True)
class Wishes:
    """What the command line says about a scene."""

    shape: Shape
    mesh: trimesh.Trimesh | None = None
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moving: bool = False
    periodic: Periodic = NOT_PERIODIC
    reynolds: float = 100.0
    comm: PETSc.Comm | None = None


def sides(wishes: Wishes, **special: Side) -> list[Side]:
    """Closed, or periodic where that is wished for, but for those that are named: ``z_high=Side("open")``."""
    names = [(axis, end) for axis in "xyz" for end in ("low", "high")]
    plain = {axis: Side("periodic") if ring else Side() for axis, ring in zip("zyx", wishes.periodic, strict=True)}
    return [special.get(f"{axis}_{end}", plain[axis]) for axis, end in names]


def _obstacle(grid: Grid, wishes: Wishes, radius: float, path: Path) -> Obstacle:
    """The mesh that is wished for, or a ball of so many cells."""
    if wishes.mesh is None:
        return Ball(grid, radius, path)
    return Body(grid, wishes.mesh, path, size=0.45, rotation=wishes.rotation)


def _own_cells(grid: Grid, chosen: np.ndarray) -> np.ndarray:
    """Of this rank (box.shape), from what broadcasts to the shape of its arrays."""
    return np.broadcast_to(chosen, grid.zeros().shape)[grid.inner].copy()


def plume(wishes: Wishes) -> Smoke:
    """Warm smoke from below rises round a body, which swings if it is moving; floor and ceiling are open."""
    shape = wishes.shape
    nx, ny, nz = shape[::-1]
    up = 2 if nz > 1 else 1
    open_ends = {f"{'xyz'[up]}_{end}": Side("open") for end in ("low", "high")}
    grid = Grid(shape, sides(wishes, **open_ends), wishes.comm)
    n = shape[2 - up]
    speed = n / 2.0  # cells per unit of time: through the domain in two of them
    centre = (0.5 * nx, 0.5 * ny, 0.4 * nz) if up == 2 else (0.5 * nx, 0.4 * ny, 0.5)
    path = back_and_forth(centre, (0.15 * nx, 0.0, 0.0), 2.0) if wishes.moving else at_rest(centre)
    obstacle = _obstacle(grid, wishes, 0.16 * min(nx, n), path)
    x, y, z = grid.centres()
    inside = (x - 0.5 * nx) ** 2 + ((y - 0.5 * ny) ** 2 if up == 2 else 0.0) < (0.15 * nx) ** 2
    inlet = inside & ((z if up == 2 else y) < 0.05 * n)
    cells = _own_cells(grid, inlet)
    jet = (0.0, 0.0, speed) if up == 2 else (0.0, speed, 0.0)
    return Smoke(grid, Physics(buoyancy=1.0 * speed, longest=0.9 / speed), obstacle, (cells, jet))


def tunnel(wishes: Wishes) -> Smoke:
    """Wind with a sheet of smoke meets a body, which swings if it is moving; open at the far end."""
    shape = wishes.shape
    nx, ny, nz = shape[::-1]
    speed = nx / 2.0
    wind = Side("closed", (speed, 0.0, 0.0))
    grid = Grid(shape, sides(wishes, x_low=wind, x_high=Side("open")), wishes.comm)
    centre = (0.3 * nx, 0.5 * ny, 0.5 * nz)
    path = back_and_forth(centre, (0.0, 0.15 * ny, 0.0), 2.0) if wishes.moving else at_rest(centre)
    obstacle = _obstacle(grid, wishes, 0.14 * ny, path)
    x, y, _ = grid.centres()
    streaks = (x < max(0.03 * nx, 1.0)) & (np.abs((y / ny * 10) % 1.0 - 0.5) < 0.2)
    cells = _own_cells(grid, streaks)
    smoke = Smoke(grid, Physics(longest=0.9 / speed), obstacle, (cells, None))
    smoke.u[0][...] = speed
    smoke.projection.hold_solids(smoke.u)
    smoke.projection.project(smoke.u)
    smoke.before = [component.copy() for component in smoke.u]
    return smoke


def cavity(wishes: Wishes) -> Smoke:
    """A lid moves along the last side of a closed cavity (Ghia, Ghia, Shin, J. Comput. Phys. 48, 1982)."""
    up = 2 if wishes.shape[0] > 1 else 1
    wall, lid = Side(slip=False), Side(velocity=(1.0, 0.0, 0.0), slip=False)
    every = {f"{axis}_{end}": wall for axis in "xyz"[: up + 1] for end in ("low", "high")}
    grid = Grid(wishes.shape, sides(wishes, **{**every, f"{'xyz'[up]}_high": lid}), wishes.comm)
    return Smoke(grid, Physics(viscosity=wishes.shape[2] / wishes.reynolds))


def vortices(wishes: Wishes) -> Smoke:
    """Taylor's and Green's decaying vortices in a periodic plane: what they are is known at all times."""
    _, ny, nx = wishes.shape
    grid = Grid(wishes.shape, [*[Side("periodic")] * 4, Side(), Side()], wishes.comm)
    smoke = Smoke(grid, Physics(viscosity=nx / (2 * np.pi * wishes.reynolds), courant=0.5))
    x, y, _ = grid.centres()
    kx, ky = 2 * np.pi / nx, 2 * np.pi / ny
    x, y = x - 0.3 * nx, y - 0.1 * ny  # so that there is flow across the ends
    smoke.u[0][...] = np.sin(kx * (x - 0.5)) * np.cos(ky * y)
    smoke.u[1][...] = -np.cos(kx * x) * np.sin(ky * (y - 0.5))
    smoke.before = [component.copy() for component in smoke.u]
    return smoke


def sloshing(wishes: Wishes) -> Tank:
    """Water in a closed tank, at first higher on one side."""
    shape = wishes.shape
    nx, ny, nz = shape[::-1]
    up = 2 if nz > 1 else 1
    grid = Grid(shape, sides(wishes), wishes.comm)
    x, y, z = grid.centres()
    n = shape[2 - up]
    height = 0.5 * n + 0.15 * n * np.cos(np.pi * x / nx)
    level = (z if up == 2 else y) - height + np.zeros(grid.zeros().shape)
    gravity = (0.0, 0.0, -1.0 * n) if up == 2 else (0.0, -1.0 * n, 0.0)
    return Tank(grid, level, gravity)


SCENES: dict[str, Callable[[Wishes], Smoke | Tank]] = {
    "plume": plume,
    "tunnel": tunnel,
    "cavity": cavity,
    "vortices": vortices,
    "sloshing": sloshing,
}
