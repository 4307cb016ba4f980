"""Periodic sides on several ranks: the answers and the iterations of one."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc
from ring_systems import assembled, conductances, rings_of, sizes, to_petsc
from systems import right_hand_side, solve

from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.poisson import dmda, families, rhs
from petsc_dcdm.poisson.assemble import assemble, close_rings
from petsc_dcdm.poisson.pockets import seal_pockets

RANKS = (3, 4)
TIMEOUT = 240
comm = PETSc.COMM_WORLD
X, XY, XYZ = (False, False, True), (False, True, True), (True, True, True)
CASES: list[tuple[Shape, Periodic, float]] = [
    ((32, 32, 32), XYZ, 0.0),
    ((24, 16, 40), X, 2.0),
    ((17, 21, 30), XYZ, 0.0),  # odd, and cut
    ((17, 21, 13), XY, 0.0),
    ((1, 64, 63), XY, 2.0),
    ((1, 96, 5), (False, True, False), 0.0),
    ((3, 2, 200), XYZ, 2.0),
    ((6, 6, 6), XYZ, 0.0),
]


def system(shape: Shape, periodic: Periodic, walls: float):
    """The same medium and right-hand side on all ranks, one with a solution."""
    k = 10.0 ** np.random.default_rng(5).random(shape)
    w, s = conductances(shape, periodic, walls, coefficient=k)
    m = assembled(w, s)
    b = np.random.default_rng(6).standard_normal(m.shape[0])
    return m, b - b.mean() * (not s.any())


def solved(m, b: np.ndarray, comm: PETSc.Comm, compiled: str = "on", **options):
    A = to_petsc(m, comm)
    v = A.createVecRight()
    v.setArray(b[slice(*A.getOwnershipRange())])
    ksp, x = solve(A, v, ksp_rtol=1e-10, pc_dcdm_compile=compiled, **options)
    assert ksp.getConvergedReason() > 0
    return ksp, x


def on_all_ranks(x: PETSc.Vec) -> np.ndarray:
    return np.concatenate(comm.tompi4py().allgather(x.getArray()))


def test_answers_and_iterations_of_one_rank() -> None:
    for shape, periodic, walls in CASES:
        m, b = system(shape, periodic, walls)
        for compiled in ("on", "off") if min(shape) % 2 and comm.getSize() == 3 else ("on",):  # torch is slow to start
            one, x = solved(m, b, PETSc.COMM_SELF, compiled)
            many, y = solved(m, b, comm, compiled)
            rings = [ksp.getPC().getPythonContext().layout.periodic for ksp in (one, many)]
            assert rings[0] == rings[1] == rings_of(shape, periodic, 3)
            counts = one.getIterationNumber(), many.getIterationNumber()
            assert counts[0] == counts[1], (shape, walls, compiled, counts)
            found = on_all_ranks(y)
            constants = abs(m @ np.ones(m.shape[0])).max() <= 1e-12 * abs(m).max()  # are a null space: any mean will do
            want = x.getArray() - (x.sum() / x.getSize() - found.mean()) * constants
            np.testing.assert_allclose(found, want, atol=1e-7 * abs(want).max())


def test_a_dmda_with_periodic_sides() -> None:
    """Assembled with its own stencil calls, in PETSc's ordering; two cells along x are coupled twice by one entry."""
    kind = PETSc.DM.BoundaryType.PERIODIC
    for shape in ((12, 16, 20), (16, 20, 2), (1, 30, 27)):
        dim = 2 if shape[0] == 1 else 3
        dm = PETSc.DMDA().create(dim, 1, shape[::-1][:dim], None, (kind,) * dim, stencil_width=1, comm=comm)
        A = dm.createMat()
        (x0, *rest), (mx, *counts) = dm.getCorners()
        y0, z0 = (*rest, 0)[:2]
        my, mz = (*counts, 1)[:2]
        row, column = PETSc.Mat.Stencil(), PETSc.Mat.Stencil()
        for k, j, i in np.ndindex(mz, my, mx):
            row.index = here = (x0 + i, y0 + j, z0 + k)
            A.setValueStencil(row, row, 2.0 * dim + 0.01, addv=True)
            for axis in range(dim):
                for step in (-1, 1):
                    there = list(here)
                    there[axis] += step
                    column.index = tuple(there)
                    A.setValueStencil(row, column, -1.0, addv=True)
        A.assemble()
        ksp, x = solve(A, right_hand_side(A), dm=dm, ksp_rtol=1e-6)
        layout = ksp.getPC().getPythonContext().layout
        assert layout.periodic == rings_of(shape, XYZ)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 4, (shape, ksp.getIterationNumber())


def test_rows_in_any_order_over_the_ranks() -> None:
    shape = (9, 10, 12)
    m, b = system(shape, XYZ, 2.0)
    order = np.random.default_rng(0).permutation(m.shape[0])
    A = to_petsc(m, comm, order)
    own = slice(*A.getOwnershipRange())
    A.compose("dcdm_cells", PETSc.IS().createGeneral(order[own].astype(PETSc.IntType), comm=comm))
    v = A.createVecRight()
    v.setArray(b[order][own])
    ksp, x = solve(A, v, ksp_rtol=1e-10, pc_dcdm_grid=sizes(shape))
    _, want = solved(m, b, PETSc.COMM_SELF)
    assert ksp.getConvergedReason() > 0
    found, want = on_all_ranks(x), want.getArray()[order]
    np.testing.assert_allclose(found - found.mean(), want - want.mean(), atol=1e-7)


def test_one_sided_couplings_round_the_end_are_refused_on_all_ranks() -> None:
    m, _ = system((8, 6, 10), XYZ, 2.0)
    m = m.tolil()
    last = 7 * 60 + 5
    m[5, 5] -= m[5, last]
    m[5, last] = 0.0
    A = to_petsc(m.tocsr(), comm)
    said = ""
    try:
        solve(A, right_hand_side(A))
    except Exception as error:
        said = str(error.__cause__ or error)
    everyone = set(comm.tompi4py().allgather(said))
    assert len(everyone) == 1 and "high neighbour along z" in said, everyone


def test_scenes_on_rings_are_those_of_one_rank() -> None:
    found = []
    for where in (PETSc.COMM_SELF, comm):
        dm = dmda.create((12, 14, 16), where, periodic=(True, False, True))
        world = close_rings(families.make("mixed", (12, 14, 16), 2, dmda.box_of(dm)), dm)
        seal_pockets(world, dm)
        scene = assemble(world, dm)
        b = rhs.make("random", scene, 1)
        ksp = PETSc.KSP().create(where)
        scene.attach(ksp)
        ksp.setType("python")
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=1e-8)
        x = b.duplicate()
        ksp.solve(b, x)
        assert ksp.getPC().getPythonContext().layout.periodic[2]  # air may lie between the ends along z
        found.append((scene.unknowns, scene.A.norm(), b.norm(), ksp.getIterationNumber(), x.norm()))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_no_ring_where_nothing_goes_round() -> None:
    m, b = system((8, 8, 8), NOT_PERIODIC, 2.0)
    ksp, _ = solved(m, b, comm, pc_dcdm_periodic="x,y,z")
    assert ksp.getPC().getPythonContext().layout.periodic == NOT_PERIODIC
