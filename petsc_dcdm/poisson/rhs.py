"""Right-hand sides of pressure systems, one float64 per owned cell (box.shape); nothing is of global size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.poisson.assemble import System
from petsc_dcdm.poisson.flags import CLOSED_SIDE, FLUID, INFLOW_SIDE, normal
from petsc_dcdm.poisson.flow import divergence
from petsc_dcdm.poisson.scene import World


def make(kind: str, system: System, seed: int = 0) -> PETSc.Vec:
    """The right-hand side of a System by name: "flow", "random" or "smooth". Collective.

    Where the constant is in the null space the mean over the unknowns is taken off, so that a solution
    exists. ValueError with the list of names for an unknown one.
    """
    if kind not in kinds:
        raise ValueError(f"There is no right-hand side {kind!r}; there are {', '.join(kinds)}.")
    return compatible(system, kinds[kind](system.world, seed))


def compatible(system: System, values: np.ndarray) -> PETSc.Vec:
    """The vector with these values on the owned cells, minus their mean if A is singular. Collective."""
    if system.singular:
        total = system.dm.comm.tompi4py().allreduce(float(values[system.active].sum()))
        values = values - total / system.unknowns
    return system.vector(values)


def flow(world: World, seed: int = 0) -> np.ndarray:
    """Minus the divergence of the scene's own velocity (the seed is not used)."""
    return divergence(world, world.flow)


def random(world: World, seed: int = 0) -> np.ndarray:
    """Independent standard normal values: all frequencies alike."""
    return normal(seed, 1000, world.box.numbers(world.shape))


def smooth(world: World, seed: int = 0) -> np.ndarray:
    """A sum of eight low plane waves: what is left to the coarse levels."""
    rng = np.random.default_rng(seed)
    k, j, i = world.box.indices()
    out = np.zeros(world.box.shape)
    for _ in range(8):
        wave = rng.integers(-2, 3, 3)
        angle = sum((c + 0.5) / n * m for c, n, m in zip((i, j, k), world.shape[::-1], wave, strict=True))
        out += rng.normal() * np.cos(2 * np.pi * (angle + rng.uniform()))
    return out


def manufactured(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(right-hand side, exact pressure at the cell centres) of a product of sines and cosines, on a box full
    of fluid.

    Along each axis the factor vanishes on open sides and is flat on closed ones, or is periodic; the grid's longest
    edge is 1. The discrete solution converges to the exact one at second order. ValueError on worlds with obstacles
    or coefficients.
    """
    if (interior(world.flags) != FLUID).any() or world.coefficient is not None:
        raise ValueError("The manufactured solution needs a box that is full of fluid of coefficient 1.")
    h = 1.0 / max(world.shape)
    exact, rate = np.ones(world.box.shape), 0.0
    for a, c in enumerate(world.box.indices()[::-1]):
        n = world.shape[2 - a]
        if n == 1:
            continue
        low, high = (side == CLOSED_SIDE or side == INFLOW_SIDE for side in world.sides[2 * a : 2 * a + 2])
        waves = (1.0, 2.0, 1.0)[a] - (0.5 if low != high else 0.0)
        if world.periodic[2 - a]:
            waves = 2.0
        angle = np.pi * waves * (c + 0.5) / n
        exact = exact * (np.cos(angle) if low else np.sin(angle))
        rate += world.axis[a] * (np.pi * waves / (n * h)) ** 2
    return h * h * rate * exact, exact


kinds: dict[str, Callable[[World, int], np.ndarray]] = {"flow": flow, "random": random, "smooth": smooth}
