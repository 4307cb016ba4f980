"""Worlds whose sides meet: the periodic axes of a DMDA, for any family."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.flags import CLOSED_SIDE
from petsc_dcdm.poisson.scene import World, conduct


def close_rings(world: World, dm: PETSc.DMDA) -> World:
    """The same world, changed in place, with the DMDA's periodic axes: what lies beyond their sides, open or closed, is
    the other end, and the cells there are neighbours. Collective; nothing to do on a DMDA without such axes.
    """
    world.periodic = dmda.periodic_of(dm)
    if not any(world.periodic):
        return world
    world.sides = tuple(CLOSED_SIDE if world.periodic[2 - n // 2] else side for n, side in enumerate(world.sides))
    flags = world.flags.astype(float)
    dmda.exchange(dm, flags)
    world.flags[...] = flags.astype(np.uint8)
    given = world.coefficient if isinstance(world.coefficient, tuple) else (world.coefficient,)
    for coefficient in given:
        if coefficient is not None:
            dmda.exchange(dm, coefficient)
    conduct(world)
    return world
