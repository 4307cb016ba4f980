"""The same world, matrix and right-hand side however the grid is divided."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson import dmda, families, flow, rhs
from petsc_dcdm.poisson.assemble import System, assemble
from petsc_dcdm.poisson.flags import whole
from petsc_dcdm.poisson.pockets import seal_pockets

RANKS = (1, 4)

comm = MPI.COMM_WORLD
NAMES = ("mixed", "random_solids", "neumann", "lognormal", "plates", "dam_break")


def uneven(n: int, parts: int) -> list[int]:
    """n cells for some ranks, more and more of them."""
    cuts = np.round(n * (np.arange(parts + 1) / parts) ** 1.7).astype(int)
    lengths = np.maximum(np.diff(cuts), 1)
    lengths[-1] += n - lengths.sum()
    return [int(m) for m in lengths]


def divisions(shape: Shape) -> list[PETSc.DMDA]:
    """PETSc's own division, uneven slabs along x, and uneven columns in y and z (or y)."""
    nz, ny, nx = shape
    second = [[nx], [ny], uneven(nz, comm.size)] if nz >= comm.size else [[nx], uneven(ny, comm.size), [nz]]
    if comm.size == 4 and nz > 1:
        second = [[nx], uneven(ny, 2), uneven(nz, 2)]
    return [
        dmda.create(shape),
        dmda.create(shape, ranges=[uneven(nx, comm.size), [ny], [nz]]),
        dmda.create(shape, ranges=second),
    ]


def global_entries(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, column, value) of all ranks in cell numbers, sorted."""
    shape = system.world.shape
    numbers = system.world.box.numbers(shape)
    cells = numbers[system.active] if system.fluid_only else numbers.ravel()
    everyone = np.concatenate(comm.allgather(cells))
    indptr, columns, values = system.A.getValuesCSR()
    rows = np.repeat(cells, np.diff(indptr))
    parts = comm.allgather((rows, everyone[columns], values))
    row, column, value = (np.concatenate([part[n] for part in parts]) for n in range(3))
    order = np.lexsort((column, row))
    return row[order], column[order], value[order]


def alone(name: str, shape: Shape, fluid_only: bool) -> System:
    """The system as one rank makes it."""
    dm = dmda.create(shape, comm=PETSc.COMM_SELF)
    world = families.make(name, shape, 2, whole(shape))
    seal_pockets(world, dm)
    return assemble(world, dm, fluid_only)


def test_same_system() -> None:
    for shape in ((9, 11, 14), (1, 23, 19)):
        for name in NAMES:
            for fluid_only in (False, True):
                reference = alone(name, shape, fluid_only)
                numbers = reference.world.box.numbers(shape)
                cells = numbers[reference.active] if fluid_only else numbers.ravel()
                indptr, columns, values = reference.A.getValuesCSR()
                entries = np.repeat(cells, np.diff(indptr)), cells[columns], values
                b = {kind: reference.field(rhs.make(kind, reference, 5)) for kind in rhs.kinds}
                pressure = np.sin(numbers)
                velocity = flow.projected_velocity(reference, pressure)
                for dm in divisions(shape):
                    world = families.make(name, shape, 2, dmda.box_of(dm))
                    removed = seal_pockets(world, dm)
                    system = assemble(world, dm, fluid_only)
                    own = tuple(slice(o, o + n) for o, n in zip(*world.box, strict=True))
                    np.testing.assert_array_equal(world.fluid, reference.world.fluid[own])
                    for found, wanted in zip(global_entries(system), entries, strict=True):
                        np.testing.assert_allclose(found, wanted, rtol=1e-14)
                    assert system.A.getInfo(PETSc.Mat.InfoType.GLOBAL_MAX)["mallocs"] == 0
                    assert system.A.getInfo(PETSc.Mat.InfoType.GLOBAL_MAX)["nz_unneeded"] == 0
                    assert system.singular == reference.singular and system.unknowns == reference.unknowns
                    for kind, field in b.items():
                        np.testing.assert_allclose(
                            system.field(rhs.make(kind, system, 5)), field[own], atol=1e-12, rtol=1e-12
                        )
                    np.testing.assert_allclose(
                        flow.projected_velocity(system, pressure[own]), velocity[own], atol=1e-13
                    )
                    gathered = dmda.gather(dm, pressure[own])
                    if comm.rank == 0:
                        np.testing.assert_array_equal(gathered, pressure)
                    if system.singular:
                        assert system.A.getNullSpace().test(system.A)
                    system.destroy()
                    assert removed >= 0
                reference.destroy()


def test_uneven_pockets() -> None:
    """A winding corridor that crosses the ranks many times, and a pocket that lies on several of them."""
    from petsc_dcdm.poisson import scene
    from petsc_dcdm.poisson.flags import SOLID, sides_of

    shape = (1, 12, 24)
    for dm in divisions(shape):
        box = dmda.box_of(dm)
        _, j, i = np.broadcast_arrays(*box.grown().indices())
        wall = (j % 2 == 1) & (i != np.where(j % 4 == 1, 0, 23)) | ((j == 9) & (i == 0))
        flags = scene.all_fluid(box)
        flags[wall] = SOLID
        world = scene.build(shape, box, flags, sides_of("y-"))
        assert seal_pockets(world, dm) == 24 + 1  # rows 10 and the way round to it, above the closed gate
        dm.destroy()
