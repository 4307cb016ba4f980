"""The velocity field behind a pressure system: what goes through each face, before and after the projection."""

from __future__ import annotations

import numpy as np

from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.assemble import System
from petsc_dcdm.poisson.flags import FLUID, INFLOW_SIDE, OPEN
from petsc_dcdm.poisson.scene import World, halfway


def passes(world: World, a: int, is_high: bool) -> np.ndarray:
    """Owned fluid cells whose low or high face along axis a lets the stream through: bool (box.shape).

    Those are faces to fluid, air and open sides, and the closed sides that are marked as inflow.
    """
    beyond = neighbours(world.flags, a)[is_high]
    open_face = (beyond == FLUID) | (beyond == OPEN)
    if world.sides[2 * a + is_high] == INFLOW_SIDE:
        axis = 2 - a
        end = world.box.offset[axis] + (world.box.shape[axis] if is_high else 0)
        if end == (world.shape[axis] if is_high else 0):
            layer = slice(-1, None) if is_high else slice(0, 1)
            open_face[tuple(layer if d == axis else slice(None) for d in range(3))] = True
    return open_face & world.fluid


def divergence(world: World, velocity: tuple[float, float, float]) -> np.ndarray:
    """Minus the divergence of a uniform velocity that solids and closed sides stop: float64 (box.shape).

    This is the right-hand side of a projection step: A p = -div u, and u - grad p is free of divergence. Its
    sum over each connected part of the fluid that is closed all round is zero.
    """
    out = np.zeros(world.box.shape)
    for a in range(3):
        if world.shape[2 - a] > 1 and velocity[a] != 0:
            out += velocity[a] * (passes(world, a, False).astype(float) - passes(world, a, True))
    return out


def projected_velocity(system: System, pressure: np.ndarray) -> np.ndarray:
    """The scene's velocity minus the pressure gradient, at the cell centres: float64 (box.shape + (3,)), x y
    z.

    Each component is the mean over the cell's two faces; 0 outside the fluid. pressure: the solution of the
    "flow" right-hand side on the owned cells (box.shape). Collective.
    """
    world = system.world
    padded = np.zeros(world.flags.shape)
    interior(padded)[...] = pressure
    dmda.exchange(system.dm, padded)
    out = np.zeros((*world.box.shape, 3))
    for a in range(3):
        if world.shape[2 - a] == 1:
            continue
        for is_high in (False, True):
            beyond = neighbours(world.flags, a)[is_high]
            inner = neighbours(world.w[a], a)[1] if is_high else interior(world.w[a])
            coefficient = world.coefficient_along(a)
            own = world.axis[a] * (1.0 if coefficient is None else interior(coefficient))
            w = np.where(beyond == OPEN, own * halfway(world, a, is_high), inner)
            rise = np.where(beyond == FLUID, neighbours(padded, a)[is_high], 0.0) - pressure
            face = world.flow[a] * passes(world, a, is_high) - w * rise * (1 if is_high else -1)
            out[..., a] += 0.5 * np.where(world.fluid, face, 0.0)
    return out
