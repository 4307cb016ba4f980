"""A staggered grid split over ranks: arrays with a halo, what lies beyond the sides, values between the cells.

Arrays are (nz, ny, nx) of this rank's box, float64, with HALO cells more on every side along each axis of more than one
cell. Cell values lie at cell centres. A velocity is three arrays, one per axis x, y, z: component a lies on the faces
across axis a, the value at a cell on that cell's low face; the face above the last cell is in the first halo layer.
Lengths are in cells, so that a velocity times a time step is a number of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from petsc4py import PETSc

from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.poisson import dmda

HALO = 3
"""Cells: a path of one cell, a face's half cell, and the cell that interpolation needs beyond it."""

Velocity = list[np.ndarray]
Points = tuple[np.ndarray, np.ndarray, np.ndarray]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Side:
    """One of the six sides of the grid.

    kind: "closed", with the side's own ``velocity`` across it (0 is a wall, else an inflow) and, unless ``slip``, along
    it; "open", where the pressure is 0; or "periodic".
    """

    kind: str = "closed"
    velocity: Vector = (0.0, 0.0, 0.0)
    slip: bool = True


class Grid:
    """Cells, ranks and sides. All methods that fill a halo are collective. `inner` are this rank's cells in an array,
    `faces` these and one layer more above them.

    Parameters
    ----------
    shape
        global (nz, ny, nx); nz = 1 in 2D.
    sides
        x-, x+, y-, y+, z-, z+; both of an axis are periodic, or none.
    """

    def __init__(self, shape: Shape, sides: Sequence[Side], comm: PETSc.Comm | None = None) -> None:
        self.shape, self.sides = shape, tuple(sides)
        x, y, z = (sides[2 * a].kind == "periodic" for a in range(3))
        self.periodic: Periodic = (z, y, x)
        if any((sides[2 * a].kind == "periodic") != (sides[2 * a + 1].kind == "periodic") for a in range(3)):
            raise ValueError("Both sides of an axis are periodic, or none.")
        self.dm = dmda.create(shape, comm, periodic=self.periodic)
        self.box = dmda.box_of(self.dm)
        self.axes = [a for a in range(3) if shape[2 - a] > 1]
        self.halo = tuple(HALO if n > 1 else 0 for n in shape)
        self.inner = tuple(slice(h, h + n) for h, n in zip(self.halo, self.box.shape, strict=True))
        self.faces = tuple(slice(h, h + n + (h > 0)) for h, n in zip(self.halo, self.box.shape, strict=True))
        kinds = PETSc.DM.BoundaryType
        boundary = [kinds.PERIODIC if p else kinds.GHOSTED for p in self.periodic[::-1]]
        dim = self.dm.getDim()
        self._wide = PETSc.DMDA().create(
            dim=dim,
            dof=1,
            sizes=shape[::-1][:dim],
            proc_sizes=self.dm.getProcSizes(),
            ownership_ranges=self.dm.getOwnershipRanges(),
            boundary_type=boundary[:dim],
            stencil_type=PETSc.DMDA.StencilType.BOX,
            stencil_width=HALO,
            comm=self.dm.comm,
        )
        self._owned = self._wide.createGlobalVec()

    def zeros(self) -> np.ndarray:
        """An array of cells with its halo."""
        return np.zeros([n + 2 * h for n, h in zip(self.box.shape, self.halo, strict=True)])

    def velocity(self) -> Velocity:
        """A velocity of 0."""
        return [self.zeros() for _ in range(3)]

    def centres(self) -> Points:
        """Coordinates x, y, z of all cells with their halo, in cells from the corner of the grid; they broadcast."""
        z, y, x = (
            np.arange(o - h, o + n + h) + 0.5
            for o, n, h in zip(self.box.offset, self.box.shape, self.halo, strict=True)
        )
        return x[None, None, :], y[None, :, None], z[:, None, None]

    def at_end(self, a: int, high: bool) -> bool:
        """Whether this rank's box ends at that side, which is not periodic."""
        axis = 2 - a
        edge = self.box.offset[axis] + (self.box.shape[axis] if high else 0)
        return not self.periodic[axis] and edge == (self.shape[axis] if high else 0)

    def layer(self, a: int, start: int, stop: int) -> tuple[slice, ...]:
        """The cells from start to stop along an axis, counted from this rank's first; all along the others."""
        h = self.halo[2 - a]
        return tuple(slice(h + start, h + stop) if 2 - a == d else slice(None) for d in range(3))

    def exchange(self, values: np.ndarray) -> None:
        """Fill the halo from other ranks, and round periodic axes; beyond the sides values stay."""
        with self._owned as owned:
            owned[:] = values[self.inner].ravel()
        local = PETSc.Vec().createWithArray(values.ravel(), comm=PETSc.COMM_SELF)
        self._wide.globalToLocal(self._owned, local)
        local.destroy()

    def fill_cells(self, values: np.ndarray) -> None:
        """Halo of cell values: beyond the sides as in the last cell."""
        self.exchange(values)
        for a in self.axes:
            n, h = self.box.shape[2 - a], self.halo[2 - a]
            if self.at_end(a, False):
                values[self.layer(a, -h, 0)] = values[self.layer(a, 0, 1)]
            if self.at_end(a, True):
                values[self.layer(a, n, n + h)] = values[self.layer(a, n - 1, n)]

    def fill_faces(self, u: Velocity) -> None:
        """Halo of a velocity, see `fill_component`."""
        for component in self.axes:
            self.fill_component(u[component], component)

    def fill_component(self, field: np.ndarray, component: int) -> None:
        """Halo of one component: across a closed side its own velocity, beyond which what is inside is mirrored; along
        it as inside, or without slip such that the mean is the side's; beyond an open side as in its last face.
        """
        n, end = self.box.shape[2 - component], self.at_end(component, True)
        last = self.layer(component, n, n + 1)
        if self.sides[2 * component + 1].kind == "open":
            # The faces of this side are no cells of the DMDA: they travel in the place of the last ones before them.
            lent = field.copy()
            if end:
                lent[self.layer(component, n - 1, n)] = field[last]
            self.exchange(lent)
            self.exchange(field)
            if end:
                field[last] = lent[self.layer(component, n - 1, n)]
        else:
            self.exchange(field)
        for a in self.axes:
            for high in (False, True):
                if self.at_end(a, high):
                    self._beyond(field, component, a, high)

    def _beyond(self, field: np.ndarray, component: int, a: int, high: bool) -> None:
        side, n, h = self.sides[2 * a + high], self.box.shape[2 - a], self.halo[2 - a]
        across, given = a == component, side.velocity[component]
        face = n if high else 0
        if across and side.kind == "closed":
            field[self.layer(a, face, face + 1)] = given
        for k in range(1, h + (0 if across and high else 1)):
            if across:
                here, inside = (n + k, n - k) if high else (-k, k)
                edge = face
            else:
                here, inside = (n - 1 + k, n - k) if high else (-k, k - 1)
                edge = n - 1 if high else 0
            to = self.layer(a, here, here + 1)
            if side.kind == "closed" and (across or not side.slip):
                field[to] = 2 * given - field[self.layer(a, inside, inside + 1)]
            else:
                source = edge if side.kind == "open" else inside
                field[to] = field[self.layer(a, source, source + 1)]

    def sample(self, values: np.ndarray, points: Points) -> np.ndarray:
        """Trilinear interpolation. Points are x, y, z in cells from the first element of the array, halo included;
        those outside of it take the value at its edge.
        """
        where = torch.empty((1, *np.broadcast_shapes(*(p.shape for p in points)), 3), dtype=torch.float64)
        for axis, (p, n) in enumerate(zip(points, values.shape[::-1], strict=True)):
            where[0, ..., axis] = torch.from_numpy(p) * (2.0 / max(n - 1, 1)) - 1.0
        field = torch.from_numpy(values)[None, None]
        return F.grid_sample(field, where, padding_mode="border", align_corners=True)[0, 0].numpy()

    def fastest(self, u: Velocity) -> float:
        """The largest component of a velocity on the faces of all cells; what is mirrored beyond the sides, which is
        twice a lid's velocity, does not count. Collective.
        """
        own = max(float(np.abs(u[a][self.faces]).max()) for a in self.axes)
        return float(self.dm.comm.tompi4py().allreduce(own, op=max))

    def total(self, value: float) -> float:
        """The sum over all ranks. Collective."""
        return float(self.dm.comm.tompi4py().allreduce(value))

    def gather(self, values: np.ndarray) -> np.ndarray | None:
        """Cell values of the whole grid on rank 0, None elsewhere. Collective."""
        return dmda.gather(self.dm, values[self.inner])

    def scatter(self, whole: np.ndarray) -> np.ndarray:
        """This rank's part of cell values that every rank has whole, with the halo filled. Collective."""
        own = self.zeros()
        box = tuple(slice(o, o + n) for o, n in zip(self.box.offset, self.box.shape, strict=True))
        own[self.inner] = whole[box]
        self.fill_cells(own)
        return own

    def destroy(self) -> None:
        """Collective."""
        for thing in (self._owned, self._wide, self.dm):
            thing.destroy()


def centred(u: Velocity) -> Velocity:
    """At the cell centres, the mean of each cell's two faces; without meaning in the last layer of the halo."""
    return [0.5 * (field + np.roll(field, -1, 2 - a)) for a, field in enumerate(u)]
