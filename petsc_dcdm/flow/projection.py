"""The pressure projection: what makes a velocity free of divergence, by any solver that PETSc's options name."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.flow.staggered import Grid, Vector, Velocity
from petsc_dcdm.grid.faces import all_but_first, all_but_last, interior, neighbours
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.assemble import System, assemble
from petsc_dcdm.poisson.flags import FLUID, OPEN, SOLID, set_walls
from petsc_dcdm.poisson.scene import World, halfway

RTOL = 1e-7


@dataclass(frozen=True)
class Solved:
    """One projection: iterations, PETSc's converged reason, seconds of set-up and of the solve, and what is left of the
    divergence, relative to what there was (norms over all cells).
    """

    iterations: int
    reason: int
    setup_s: float
    solve_s: float
    divergence: float


class Projection:
    """Holds the pressure system of a geometry until that changes. All methods are collective.

    The KSP has no options prefix and is petsc_dcdm.KSP unless the options say otherwise.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.flags = np.full([n + 2 for n in grid.box.shape], FLUID, np.uint8)
        self.gradient_weight = [np.zeros(self.flags.shape) for _ in range(3)]
        self.solid: tuple[np.ndarray, Vector] = (np.zeros(self.flags.shape, bool), (0.0, 0.0, 0.0))
        self._system: System | None = None
        self._ksp = PETSc.KSP().create(grid.dm.comm)
        self._ksp.setType(PETSc.KSP.Type.PYTHON)
        self._ksp.setPythonType("petsc_dcdm.KSP")
        self._ksp.setTolerances(rtol=RTOL)
        self._ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
        self._ksp.setFromOptions()
        dmda.attach(self._ksp, grid.dm)

    def set_geometry(
        self, solid: np.ndarray, velocity: Vector = (0.0, 0.0, 0.0), level: np.ndarray | None = None
    ) -> None:
        """New obstacles and air: the matrix is assembled anew.

        Parameters
        ----------
        solid
            bool, this rank's box with one cell around it
        velocity
            of all that is solid
        level
            where there is air: a distance to the surface in cells, positive in air, of the same shape. The surface
            where the pressure is 0 lies between the cells, as the distances say (Gibou et al., J. Comput. Phys. 176,
            2002).
        """
        grid, shape = self.grid, self.grid.shape
        rings = any(grid.periodic)  # beyond the ends of these are the cells of the other end
        solid = dmda.exchanged(grid.dm, solid) if rings else solid
        self.solid = solid, velocity
        flags = self.flags = np.where(solid, SOLID, FLUID).astype(np.uint8)
        if level is not None:
            flags[(level > 0) & ~solid] = OPEN
        ends = [grid.sides[2 * a + high].kind for a in range(3) for high in (False, True)]
        set_walls(flags, shape, grid.box, tuple(ends))
        flags = self.flags = dmda.exchanged(grid.dm, flags) if rings else flags
        w = [np.zeros(flags.shape) for _ in range(3)]
        held = np.zeros(grid.box.shape)
        world = World(shape, grid.box, flags, (w[0], w[1], w[2]), held, tuple(ends), periodic=grid.periodic)
        for a in grid.axes:
            below, above = all_but_last(flags, a), all_but_first(flags, a)
            both = (below == FLUID) & (above == FLUID)
            surface = ((below == FLUID) & (above == OPEN)) | ((below == OPEN) & (above == FLUID))
            weight = np.zeros(flags.shape)
            face = all_but_first(weight, a)
            face[...] = both
            face[surface] = 1.0 if level is None else _across_the_surface(level, a)[surface]
            for high in (False, True):  # the side itself is half a cell away
                face_at = neighbours(weight, a)[1] if high else interior(weight)
                face_at *= np.where(neighbours(flags, a)[high] == OPEN, halfway(world, a, high), 1.0)
            self.gradient_weight[a] = weight
            all_but_first(w[a], a)[...] = both
            for high in (False, True):
                face_at = neighbours(weight, a)[1] if high else interior(weight)
                held += np.where((neighbours(flags, a)[high] == OPEN) & world.fluid, face_at, 0.0)
        if self._system is not None:
            self._system.A.destroy()
        self._system = assemble(world, grid.dm)
        self._system.attach(self._ksp)

    def hold_solids(self, u: Velocity) -> None:
        """Give the faces of what is solid its velocity, in place; halos are filled."""
        solid, velocity = self.solid
        for a in self.grid.axes:
            touched = np.zeros(solid.shape, bool)
            all_but_first(touched, a)[...] = all_but_last(solid, a) | all_but_first(solid, a)
            u[a][self.grid.faces][touched[self._padded]] = velocity[a]
        self.grid.fill_faces(u)

    @property
    def _padded(self) -> tuple[slice, ...]:
        """Of an array with one cell around the box: the box, and one cell more above it along each axis."""
        return tuple(slice(1, None) if n > 1 else slice(1, 2) for n in self.grid.shape)

    def divergence(self, u: Velocity) -> np.ndarray:
        """Of this rank's cells (box.shape); 0 where there is no pressure."""
        out = np.zeros(self.grid.box.shape)
        for a in self.grid.axes:
            n = self.grid.box.shape[2 - a]
            inner = list(self.grid.inner)
            low, high = u[a][tuple(inner)], None
            h = self.grid.halo[2 - a]
            inner[2 - a] = slice(h + 1, h + n + 1)
            high = u[a][tuple(inner)]
            out += high - low
        assert self._system is not None
        return np.where(self._system.active, out, 0.0)

    def subtract_gradient(self, u: Velocity, pressure: np.ndarray, factor: float = 1.0) -> None:
        """u -= factor grad p on the faces of the present geometry, in place; halos are filled. `pressure`: box.shape,
        in cells of velocity.
        """
        padded = np.zeros(self.flags.shape)
        interior(padded)[...] = pressure
        dmda.exchange(self.grid.dm, padded)
        for a in self.grid.axes:
            rise = np.zeros(padded.shape)
            all_but_first(rise, a)[...] = all_but_first(padded, a) - all_but_last(padded, a)
            u[a][self.grid.faces] -= factor * (self.gradient_weight[a] * rise)[self._padded]
        self.grid.fill_faces(u)

    def project(self, u: Velocity) -> tuple[np.ndarray, Solved]:
        """Free `u` of its divergence, in place. Returns the pressure (box.shape) whose gradient was taken off."""
        system, ksp, comm = self._system, self._ksp, self.grid.dm.comm.tompi4py()
        assert system is not None
        self.grid.fill_faces(u)
        before = self.divergence(u)
        b = system.vector(-before)
        x = b.duplicate()
        comm.barrier()
        start = time.perf_counter()
        ksp.setUp()
        ready = time.perf_counter()
        ksp.solve(b, x)
        end = time.perf_counter()
        pressure = system.field(x)
        for vec in (b, x):
            vec.destroy()
        self.subtract_gradient(u, pressure)
        norms = [np.sqrt(self.grid.total(float((d * d).sum()))) for d in (before, self.divergence(u))]
        left = norms[1] / norms[0] if norms[0] > 0 else 0.0
        return pressure, Solved(ksp.getIterationNumber(), ksp.getConvergedReason(), ready - start, end - ready, left)

    def destroy(self) -> None:
        """Collective."""
        self._ksp.destroy()
        if self._system is not None:
            self._system.A.destroy()


LEAST_SHARE = 0.05
"""Of a cell: the least distance of the surface from a cell's centre, which bounds the matrix."""


def _across_the_surface(level: np.ndarray, a: int) -> np.ndarray:
    """One over the share of the way from fluid to air that lies in the fluid, for every face along an axis."""
    below, above = all_but_last(level, a), all_but_first(level, a)
    inside = np.minimum(below, above)
    span = np.abs(above - below)
    share = np.divide(-inside, span, out=np.ones_like(span), where=span > 0)
    return np.asarray(1.0 / np.clip(share, LEAST_SHARE, 1.0))
