"""Water that sloshes in a tank: the surface is the zero of a distance function, air is pressure 0.

Where the surface lies between the cells enters the pressure system (Gibou, Fedkiw, Cheng, Kang: A Second-Order-Accurate
Symmetric Discretization of the Poisson Equation on Irregular Domains, J. Comput. Phys. 176, 2002).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from petsc_dcdm.flow.advection import advected, paths
from petsc_dcdm.flow.projection import Projection, Solved
from petsc_dcdm.flow.staggered import HALO, Grid, Velocity
from petsc_dcdm.grid.faces import all_but_first, all_but_last


@dataclass
class Tank:
    """The state of a simulation. All methods are collective.

    Attributes
    ----------
    level
        distance to the surface in cells, negative in water, with its halo
    gravity
        (x, y, z) in cells per time squared
    courant
        the fastest water crosses so many cells in a step; at most 1
    u
        velocity, continued into the air beside the water
    """

    grid: Grid
    level: np.ndarray
    gravity: tuple[float, float, float]
    courant: float = 0.5
    time: float = 0.0
    steps: int = 0
    u: Velocity = field(init=False)
    water: float = field(init=False)

    def __post_init__(self) -> None:
        self.projection = Projection(self.grid)
        self.u = self.grid.velocity()
        self.grid.fill_cells(self.level)
        self.redistance()
        self.water = self.volume()

    def step(self, dt: float | None = None) -> Solved:
        """One step, of the length that the Courant number allows unless it is given."""
        grid = self.grid
        dt = self.longest_step() if dt is None else dt
        way = paths(grid, self.u, dt)
        self.level = advected(grid, way, self.level, grid.fill_cells)
        self.redistance()
        self._keep_volume()
        moved = grid.velocity()
        for a in grid.axes:
            moved[a] = advected(grid, way, self.u[a], partial(grid.fill_component, component=a), a, limited=False)
            moved[a] += dt * self.gravity[a]
            grid.fill_component(moved[a], a)
        cut = tuple(slice(h - 1 if h else None, 1 - h if h > 1 else None) for h in grid.halo)
        level = self.level[cut]
        thin = [(1, 1) if n == 1 else (0, 0) for n in grid.shape]
        level = np.pad(level, thin, mode="edge")
        self.projection.set_geometry(np.zeros(level.shape, bool), level=level)
        _, solved = self.projection.project(moved)
        self._extrapolate(moved)
        self.u = moved
        self.time += dt
        self.steps += 1
        return solved

    def longest_step(self) -> float:
        """By the Courant number, with what gravity adds in the step."""
        fastest = self.grid.fastest(self.u)
        pull = max(abs(g) for g in self.gravity)
        return 2 * self.courant / (fastest + np.sqrt(fastest**2 + 4 * pull * self.courant))

    def volume(self) -> float:
        """Cells of water; those that the surface cuts by their share."""
        own = self.level[self.grid.inner]
        return self.grid.total(float(np.clip(0.5 - own, 0.0, 1.0).sum()))

    def redistance(self, sweeps: int = 10) -> None:
        """Make the level a distance again near the surface, which stays where it is (Sussman, Smereka, Osher 1994, with
        the surface's own cells held to their distance: Russo, Smereka 2000).
        """
        grid, level = self.grid, self.level
        start = level.copy()
        sign = start / np.sqrt(start**2 + 1.0)
        slope = np.full(level.shape, 1e-6)
        near = np.zeros(level.shape, bool)
        for a in grid.axes:
            low, high = np.roll(start, 1, 2 - a), np.roll(start, -1, 2 - a)
            near |= (low * start < 0) | (high * start < 0)
            slope = np.maximum(
                slope, np.maximum(0.5 * np.abs(high - low), np.maximum(abs(high - start), abs(start - low)))
            )
        distance = start / slope
        for _ in range(sweeps):
            steepness = np.zeros(level.shape)
            for a in grid.axes:
                back, ahead = level - np.roll(level, 1, 2 - a), np.roll(level, -1, 2 - a) - level
                outside = np.maximum(np.maximum(back, 0) ** 2, np.minimum(ahead, 0) ** 2)
                inside = np.maximum(np.minimum(back, 0) ** 2, np.maximum(ahead, 0) ** 2)
                steepness += np.where(start > 0, outside, inside)
            far = level - 0.5 * sign * (np.sqrt(steepness) - 1.0)
            held = level - 0.5 * (np.sign(start) * np.abs(level) - distance)
            level[...] = np.where(near, held, far)
            grid.fill_cells(level)

    def _keep_volume(self) -> None:
        """Shift the surface by what advection has lost or gained."""
        own = self.level[self.grid.inner]
        surface = self.grid.total(float((np.abs(own) < 0.5).sum()))
        if surface:
            self.level += np.clip((self.volume() - self.water) / surface, -0.1, 0.1)

    def _extrapolate(self, u: Velocity) -> None:
        """Continue the velocity of the water into the air, layer by layer, in place."""
        water = self.level < 0
        for a in self.grid.axes:
            known = np.zeros(self.level.shape)
            all_but_first(known, a)[...] = all_but_last(water, a) | all_but_first(water, a)
            field = u[a]
            for _ in range(HALO + 1):
                self.grid.fill_cells(known)
                total, count = np.zeros(field.shape), np.zeros(field.shape)
                for b in self.grid.axes:
                    for shift in (1, -1):
                        beside = np.roll(known, shift, 2 - b)
                        total += beside * np.roll(field, shift, 2 - b)
                        count += beside
                new = (known == 0) & (count > 0)
                field[new] = total[new] / count[new]
                known[new] = 1.0
                self.grid.fill_component(field, a)
            field[known == 0] = 0.0
        self.grid.fill_faces(u)

    def destroy(self) -> None:
        """Free what is PETSc's."""
        self.projection.destroy()
        self.grid.destroy()
