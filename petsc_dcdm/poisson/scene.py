"""Worlds: cell flags, face conductances and Dirichlet couplings on the box of one rank, and how scenes make
them.

The pressure operator is (A p)_i = sum over faces w_f (p_i - p_nb) + s_i p_i over the fluid cells, in
finite-volume
form for cells of edge 1: w = 1 between two fluid cells of coefficient 1, s = 1 towards an air cell (pressure
zero at its centre) and s = 2 towards an open side of the grid (pressure zero on the side itself, half a cell
away).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.grid.faces import all_but_first, all_but_last, diagonal, interior, neighbours
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.poisson.flags import FLUID, OPEN, SOLID, Box, set_walls, sides_of

if TYPE_CHECKING:
    import trimesh

Axes = tuple[float, float, float]
Coefficient = np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray] | None


@dataclass
class World:
    """One rank's part of a pressure problem. Everything with 'padded' has one cell more on every side of the
    box.

    Attributes
    ----------
    shape
        global (nz, ny, nx)
    box
        the cells this rank owns (possibly none)
    flags
        uint8 padded, SOLID / FLUID / OPEN; behind the sides of the grid SOLID (closed) or OPEN.
    w
        for a = 0, 1, 2 (x, y, z) float64 padded: conductance of the face between a cell and its low neighbour
        along a, 0 unless both are fluid. Valid on every face of an owned cell, the high ones included.
    s
        float64 (box.shape): coupling to zero pressure. 0 in cells that are not fluid.
    sides
        the six sides in the order of flags.SIDES: "closed", "open" or "inflow".
    flow
        velocity (x, y, z) whose divergence is the right-hand side called "flow".
    axis
        factor on the conductances along x, y, z
    coefficient
        of the cells, float64 padded, or three of them, along x, y, z; None means 1
    periodic
        the axes (z, y, x) whose sides meet: there the padded layer is the other end; see assemble.close_rings
    """

    shape: Shape
    box: Box
    flags: np.ndarray
    w: tuple[np.ndarray, np.ndarray, np.ndarray]
    s: np.ndarray
    sides: tuple[str, ...]
    flow: Axes = (1.0, 0.0, 0.0)
    axis: Axes = (1.0, 1.0, 1.0)
    coefficient: Coefficient = field(default=None, repr=False)
    periodic: Periodic = NOT_PERIODIC

    @property
    def fluid(self) -> np.ndarray:
        """Owned cells whose pressure is unknown: bool (box.shape)."""
        return interior(self.flags) == FLUID

    def coefficient_along(self, a: int) -> np.ndarray | None:
        """The coefficient for faces along axis a, float64 padded; None means 1."""
        return self.coefficient[a] if isinstance(self.coefficient, tuple) else self.coefficient

    def diagonal(self) -> np.ndarray:
        """The diagonal of the operator, float64 (box.shape); 0 where the cell is not fluid."""
        return diagonal(self.w, self.s)


def build(
    shape: Shape,
    box: Box,
    flags: np.ndarray,
    sides: tuple[str, ...],
    coefficient: Coefficient = None,
    axis: Axes = (1.0, 1.0, 1.0),
    flow: Axes = (1.0, 0.0, 0.0),
) -> World:
    """The world of a scene: walls are written into ``flags`` (uint8 padded), then the conductances follow
    from them.

    Parameters
    ----------
    coefficient
        float64 padded and positive, of the cells; a face takes the harmonic mean of its two cells. Three of them, along
        x, y, z, where a cell conducts differently along its axes; on a stretched grid its faces' area over its length.
    axis
        factor on the conductances along x, y, z.
    """
    set_walls(flags, shape, box, sides)
    world = World(
        shape,
        box,
        flags,
        (_empty(box), _empty(box), _empty(box)),
        np.zeros(box.shape),
        sides,
        flow,
        axis,
        coefficient,
    )
    conduct(world)
    return world


def _empty(box: Box) -> np.ndarray:
    return np.zeros(box.grown().shape)


def conduct(world: World) -> None:
    """(Re)compute w and s from the flags, the coefficient and the axis factors, in place."""
    fluid = world.flags == FLUID
    world.s[...] = 0.0
    inside = interior(fluid)
    for a in range(3):
        w = world.w[a]
        w[...] = 0.0
        if world.shape[2 - a] == 1:
            continue
        both = all_but_last(fluid, a) & all_but_first(fluid, a)
        factor: np.ndarray | float = world.axis[a]
        coefficient = world.coefficient_along(a)
        if coefficient is not None:
            k, other = all_but_last(coefficient, a), all_but_first(coefficient, a)
            factor = world.axis[a] * 2.0 * k * other / (k + other)
        np.multiply(both, factor, out=all_but_first(w, a))
        own = world.axis[a] * (1.0 if coefficient is None else interior(coefficient))
        for is_high, beyond in enumerate(neighbours(world.flags, a)):
            world.s += (inside & (beyond == OPEN)) * own * halfway(world, a, bool(is_high))


def halfway(world: World, a: int, is_high: bool) -> np.ndarray | float:
    """2 for owned cells at that side of the grid, else 1 (broadcasts to box.shape); a periodic axis has no sides."""
    n, axis = world.box.shape[2 - a], 2 - a
    at = np.ones([n if d == axis else 1 for d in range(3)])
    if world.periodic[axis]:
        return at
    if is_high and world.box.offset[axis] + n == world.shape[axis]:
        at[tuple(-1 if d == axis else slice(None) for d in range(3))] = 2.0
    elif not is_high and world.box.offset[axis] == 0:
        at[tuple(0 if d == axis else slice(None) for d in range(3))] = 2.0
    return at


def all_fluid(box: Box) -> np.ndarray:
    """Padded flags of a box that is full of fluid."""
    return np.full(box.grown().shape, FLUID, np.uint8)


def solid_where(condition: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The flags with SOLID where the condition holds."""
    flags[condition] = SOLID
    return flags


def around_mesh(
    shape: Shape,
    box: Box,
    mesh: trimesh.Trimesh,
    open_sides: str = "x+",
    inflow: str = "x-",
    flow: Axes = (1.0, 0.0, 0.0),
) -> World:
    """Channel flow past a mesh placed in the domain (mesh.place): stream in at x-, free at x+."""
    from petsc_dcdm.poisson.mesh import voxelise

    flags = solid_where(voxelise(mesh, shape, box.grown()), all_fluid(box))
    return build(shape, box, flags, sides_of(open_sides, inflow), flow=flow)
