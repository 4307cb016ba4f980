"""MPI assembly of a World's pressure matrix on the DMDA that divides it. No rank holds a global array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.grid.faces import interior, neighbours
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.flags import CLOSED_SIDE
from petsc_dcdm.poisson.scene import World, conduct

ROWS_PER_SLAB = 40_000  # rows built in numpy at a time: bounds the temporaries at some 10 MB


class AssemblyError(ValueError):
    """A world that gives no linear system; the message is one sentence, the same on all ranks."""


@dataclass
class System:
    """An assembled pressure system and the way between its vectors and the grid.

    A: AIJ, symmetric positive (semi)definite, with its null space attached when no pressure is held.
       With ``fluid_only`` its rows are the active cells of each rank's box, x fastest, and the index set
       'dcdm_cells' (global lexicographic cell number of each local row) is composed on it; otherwise its rows
       are those of the DMDA and a cell that is not active has only a diagonal.

    Attributes
    ----------
    active
        owned cells that are unknowns, bool (box.shape): fluid with at least one neighbour or held side.
    singular
        whether the constant over the active cells is in the null space.
    """

    world: World
    dm: PETSc.DMDA
    A: PETSc.Mat
    active: np.ndarray
    fluid_only: bool
    singular: bool

    @property
    def unknowns(self) -> int:
        """Active cells on all ranks. Collective."""
        return int(self.dm.comm.tompi4py().allreduce(int(self.active.sum())))

    def vector(self, values: np.ndarray) -> PETSc.Vec:
        """A vector of A from a value per owned cell (box.shape); what is not active becomes 0. Collective."""
        v = self.A.createVecRight()
        with v as a:
            a[:] = values[self.active] if self.fluid_only else np.where(self.active, values, 0.0).ravel()
        return v

    def field(self, v: PETSc.Vec, outside: float = 0.0) -> np.ndarray:
        """A vector of A as a value per owned cell, float64 (box.shape); ``outside`` where not active."""
        out = np.full(self.active.shape, outside)
        a = v.getArray(readonly=True)
        out[self.active] = a if self.fluid_only else a.reshape(out.shape)[self.active]
        return out

    def attach(self, ksp: PETSc.KSP) -> None:
        """Give a KSP the matrix and, with one row per cell, the DMDA (not to assemble with)."""
        ksp.setOperators(self.A)
        if not self.fluid_only:
            dmda.attach(ksp, self.dm)

    def destroy(self) -> None:
        """Free the matrix and the DMDA. Collective."""
        self.A.destroy()
        self.dm.destroy()


def assemble(world: World, dm: PETSc.DMDA, fluid_only: bool = False) -> System:
    """The pressure system of a world whose box is the one the DMDA gives this rank. Collective.

    Raises AssemblyError (on all ranks) when the world has no active cell or its box is not the DMDA's.
    """
    comm = dm.comm.tompi4py()
    if comm.allreduce(int(world.box != dmda.box_of(dm) or world.shape != dmda.shape_of(dm))):
        raise AssemblyError("The world was built on other boxes than those of the DMDA it is assembled on.")
    diagonal = world.diagonal()
    active = diagonal > 0
    count, coupled, largest = (
        comm.allreduce(int(active.sum())),
        comm.allreduce(bool((world.s > 0).any()), op=max),
        comm.allreduce(float(diagonal.max(initial=0.0)), op=max),
    )
    if count == 0:
        raise AssemblyError("The scene has no fluid cell with a neighbour: there is nothing to solve.")
    A = _matrix(world, dm, diagonal, active, fluid_only, largest)
    A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    A.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
    A.setOption(PETSc.Mat.Option.SPD, bool(coupled))
    system = System(world, dm, A, active, fluid_only, not coupled)
    if fluid_only:
        cells = world.box.numbers(world.shape)[active].astype(PETSc.IntType)
        index_set = PETSc.IS().createGeneral(cells, comm=dm.comm)
        A.compose("dcdm_cells", index_set)
        index_set.destroy()
    if system.singular:
        _attach_null_space(system)
    return system


def _attach_null_space(system: System) -> None:
    """The constant over the active cells; identity rows take no part in it."""
    if system.fluid_only:
        space = PETSc.NullSpace().create(constant=True, comm=system.dm.comm)
    else:
        constant = system.vector(np.ones(system.active.shape))
        constant.normalize()
        space = PETSc.NullSpace().create(constant=False, vectors=[constant], comm=system.dm.comm)
        constant.destroy()
    system.A.setNullSpace(space)
    space.destroy()


def _numbering(world: World, dm: PETSc.DMDA, active: np.ndarray, fluid_only: bool) -> tuple[np.ndarray, int, int]:
    """(global row of every cell, padded and of PETSc's integer type; rows of this rank; first of them).

    Only rows of active cells are meaningful in the halo.
    """
    rows = int(active.sum()) if fluid_only else active.size
    start = dm.comm.tompi4py().exscan(rows) or 0  # None on rank 0
    padded = np.zeros([n + 2 for n in active.shape])
    interior(padded)[...] = start + (
        np.cumsum(active).reshape(active.shape) - 1 if fluid_only else np.arange(rows).reshape(active.shape)
    )
    dmda.exchange(dm, padded)  # float64 holds row numbers up to 2^53 exactly
    return padded.astype(PETSc.IntType), rows, start


def _matrix(
    world: World, dm: PETSc.DMDA, diagonal: np.ndarray, active: np.ndarray, fluid_only: bool, largest: float
) -> PETSc.Mat:
    number, rows, start = _numbering(world, dm, active, fluid_only)
    kept = active if fluid_only else np.ones_like(active)
    inner, outer = np.ones(active.shape, PETSc.IntType), np.zeros(active.shape, PETSc.IntType)
    for a, is_high, w in _faces(world):
        across = _rank_border(world, a, is_high)
        inner += (w > 0) & ~across
        outer += (w > 0) & across
    A = PETSc.Mat().create(dm.comm)
    A.setSizes(((rows, PETSc.DETERMINE), (rows, PETSc.DETERMINE)))
    A.setType(PETSc.Mat.Type.AIJ)
    A.setPreallocationNNZ((inner[kept], outer[kept]))
    # A rank without rows takes its empty counts for no preallocation; the assembly then waits for it in vain unless
    # all ranks agree that no entry is new.
    A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, True)
    del inner, outer
    # A row with only its diagonal, of the size of the others, so that no method sees an outlier.
    values = np.where(active, diagonal, largest)
    per_slab = max(1, ROWS_PER_SLAB // max(1, active.shape[1] * active.shape[2]))
    for k in range(0, active.shape[0], per_slab):
        slab = slice(k, k + per_slab)
        lengths, columns, entries = _slab(world, number, kept, values, slab)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(PETSc.IntType)
        own = interior(number)[slab][kept[slab]]
        A.setValuesIJV(indptr, columns, entries, addv=True, rowmap=own)  # two cells of a ring are coupled twice
    A.assemble()
    return A


def _faces(world: World) -> Iterator[tuple[int, bool, np.ndarray]]:
    """(axis, whether high, conductance of that face of the owned cells), columns ascending."""
    axes = [a for a in (2, 1, 0) if world.shape[2 - a] > 1]
    for a in axes:
        yield a, False, interior(world.w[a])
    for a in reversed(axes):
        yield a, True, neighbours(world.w[a], a)[1]


def _rank_border(world: World, a: int, is_high: bool) -> np.ndarray:
    """The low or high layer of the box along axis a, whose neighbours belong to another rank, or to none."""
    at = np.zeros([n if axis == 2 - a else 1 for axis, n in enumerate(world.box.shape)], bool)
    if at.size and world.box.shape[2 - a] < world.shape[2 - a]:
        at.flat[-1 if is_high else 0] = True
    return at


def _slab(
    world: World, number: np.ndarray, kept: np.ndarray, diagonal: np.ndarray, slab: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths, columns and values of the rows of some z planes of the box, rows in the order of the cells."""
    rows = kept[slab]
    wide = slice(slab.start, min(slab.stop, kept.shape[0]) + 2)
    columns, values = [interior(number)[slab][rows]], [diagonal[slab][rows]]
    place = 0
    for a, is_high, w in _faces(world):
        place = place if is_high else place + 1
        columns.append(neighbours(number[wide], a)[is_high][rows])
        values.append(-w[slab][rows])
    # The diagonal goes between the low and the high faces, so that columns ascend within a rank.
    order = [*range(1, place + 1), 0, *range(place + 1, len(columns))]
    column = np.stack([columns[n] for n in order], axis=1)
    value = np.stack([values[n] for n in order], axis=1)
    present = value != 0
    return present.sum(axis=1), column[present], value[present]


def close_rings(world: World, dm: PETSc.DMDA) -> World:
    """The same world, changed in place, with the DMDA's periodic axes: what lies beyond their sides, open or closed, is
    the other end, and the cells there are neighbours. Collective; nothing to do on a DMDA without such axes.
    """
    world.periodic = dmda.periodic_of(dm)
    if not any(world.periodic):
        return world
    world.sides = tuple(CLOSED_SIDE if world.periodic[2 - n // 2] else side for n, side in enumerate(world.sides))
    world.flags[...] = dmda.exchanged(dm, world.flags)
    given = world.coefficient if isinstance(world.coefficient, tuple) else (world.coefficient,)
    for coefficient in given:
        if coefficient is not None:
            dmda.exchange(dm, coefficient)
    conduct(world)
    return world
