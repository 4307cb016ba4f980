"""Smoke in air: buoyant, incompressible, round obstacles that may move. One step is read in one go in `Smoke.step`.

A step from t to t + dt: half of the pressure's gradient at t, advection along the velocity in the middle of the step,
forces, obstacles, and the projection, which finds the other half at t + dt (so that the gradient is taken at both ends
of every path: second order in time where it is smooth).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from petsc_dcdm.flow.advection import advected, paths
from petsc_dcdm.flow.projection import Projection, Solved
from petsc_dcdm.flow.staggered import Grid, Vector, Velocity

Obstacle = Callable[[float], tuple[np.ndarray, Vector]]
"""At a time: which cells of this rank's box with one cell around it are solid (bool), and their velocity."""


@dataclass
class Physics:
    """Numbers of the flow, in cells and units of time.

    Attributes
    ----------
    viscosity
        kinematic, cells^2 per time
    buoyancy
        acceleration of air that is full of smoke, along the last axis (up)
    courant
        the fastest air crosses so many cells in a step; at most 1
    longest
        step, where nothing moves
    """

    viscosity: float = 0.0
    buoyancy: float = 0.0
    courant: float = 0.9
    longest: float = 1.0


@dataclass
class Smoke:
    """The state of a simulation. All methods are collective.

    Attributes
    ----------
    u, before
        velocity now and a step ago
    density
        smoke in the cells, 0 to 1
    pressure
        (box.shape) what the last projection took off, for a step of ``pressure_dt``
    source
        where smoke comes in: cells (box.shape, bool) that are kept full of it, and the velocity they are kept at or
        None
    """

    grid: Grid
    physics: Physics
    obstacle: Obstacle | None = None
    source: tuple[np.ndarray, Vector | None] | None = None
    time: float = 0.0
    steps: int = 0
    u: Velocity = field(init=False)
    before: Velocity = field(init=False)
    density: np.ndarray = field(init=False)
    pressure: np.ndarray = field(init=False)
    pressure_dt: float = 1.0

    def __post_init__(self) -> None:
        grid = self.grid
        self.u, self.before, self.density = grid.velocity(), grid.velocity(), grid.zeros()
        self.pressure = np.zeros(grid.box.shape)
        self.projection = Projection(grid)
        self.place_obstacle()
        grid.fill_faces(self.u)

    def step(self, dt: float | None = None) -> Solved:
        """One step, of the length that the Courant number allows unless it is given."""
        grid = self.grid
        dt = self.longest_step() if dt is None else dt
        middle = [1.5 * now - 0.5 * then for now, then in zip(self.u, self.before, strict=True)]
        start = [component.copy() for component in self.u]
        self.projection.subtract_gradient(start, self.pressure, dt / self.pressure_dt)
        self._diffuse(start, 0.5 * dt)
        way = paths(grid, middle, dt)
        moved = grid.velocity()
        for a in grid.axes:
            moved[a] = advected(grid, way, start[a], partial(grid.fill_component, component=a), a, limited=False)
        self.density = advected(grid, way, self.density, grid.fill_cells)
        self._diffuse(moved, 0.5 * dt)
        self._lift(moved, dt)
        self.time += dt
        if self.obstacle is not None:
            self.place_obstacle()
        self._feed(moved)
        self.projection.hold_solids(moved)
        self.pressure, solved = self.projection.project(moved)
        self.before, self.u, self.pressure_dt = self.u, moved, dt
        self.steps += 1
        return solved

    def longest_step(self) -> float:
        """By the Courant number; at most ``physics.longest``, and what viscosity allows."""
        fastest = self.grid.fastest(self.u)
        lift = self.physics.buoyancy * self.physics.longest
        step = min(self.physics.longest, self.physics.courant / max(fastest, abs(lift), 1e-30))
        if self.physics.viscosity > 0:
            step = min(step, 0.5 / (len(self.grid.axes) * self.physics.viscosity))
        return step

    def place_obstacle(self) -> None:
        """The pressure system of the obstacles as they are now."""
        solid = np.zeros([n + 2 for n in self.grid.box.shape], bool)
        if self.obstacle is None:
            self.projection.set_geometry(solid)
        else:
            self.projection.set_geometry(*self.obstacle(self.time))

    def _diffuse(self, u: Velocity, dt: float) -> None:
        """Viscosity for a time, by the midpoint rule, in place."""
        if self.physics.viscosity == 0:
            return
        middle = [component.copy() for component in u]
        for by, state in ((0.5 * dt, u), (dt, middle)):
            changes = [self.physics.viscosity * by * _laplacian(component, self.grid.axes) for component in state]
            target = middle if state is u else u
            for a in self.grid.axes:
                target[a] += changes[a]
                self.grid.fill_component(target[a], a)

    def _lift(self, u: Velocity, dt: float) -> None:
        """Buoyancy along the last axis, by the mean smoke of a face's two cells."""
        up = self.grid.axes[-1]
        below = np.roll(self.density, 1, axis=2 - up)
        u[up] += 0.5 * dt * self.physics.buoyancy * (self.density + below)
        self.grid.fill_component(u[up], up)

    def _feed(self, u: Velocity) -> None:
        """Smoke and its velocity at the source."""
        if self.source is None:
            return
        cells, velocity = self.source
        self.density[self.grid.inner][cells] = 1.0
        self.grid.fill_cells(self.density)
        if velocity is not None:
            for a in self.grid.axes:
                u[a][self.grid.inner][cells] = velocity[a]
            self.grid.fill_faces(u)

    def destroy(self) -> None:
        """Free what is PETSc's."""
        self.projection.destroy()
        self.grid.destroy()


def _laplacian(field: np.ndarray, axes: list[int]) -> np.ndarray:
    """Second differences, in cells; 0 in the outermost layer."""
    out = np.zeros_like(field)
    for a in axes:
        inner = [slice(None)] * 3
        low, high = list(inner), list(inner)
        inner[2 - a], low[2 - a], high[2 - a] = slice(1, -1), slice(None, -2), slice(2, None)
        i, lo, hi = tuple(inner), tuple(low), tuple(high)
        out[i] += field[lo] - 2.0 * field[i] + field[hi]
    return out
