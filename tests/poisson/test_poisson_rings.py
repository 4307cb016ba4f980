"""Scenes whose sides meet: the matrix is that of the ring, for any family, and the pressure converges."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from ring_systems import assembled
from scipy import sparse

from petsc_dcdm.cli import main
from petsc_dcdm.compare.baselines import BASELINES
from petsc_dcdm.compare.job import Job, SystemSpec
from petsc_dcdm.compare.systems import build
from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.poisson import dmda, families, flow, rhs
from petsc_dcdm.poisson.assemble import System, assemble, close_rings
from petsc_dcdm.poisson.flags import FLUID, OPEN, SOLID, sides_of, whole
from petsc_dcdm.poisson.pockets import seal_pockets
from petsc_dcdm.poisson.scene import World, all_fluid
from petsc_dcdm.poisson.scene import build as scene

SMALL: Shape = (6, 7, 8)


def closed(world: World, periodic: Periodic, seal: bool = True, **options: bool) -> System:
    dm = dmda.create(world.shape, PETSc.COMM_SELF, periodic=periodic)
    close_rings(world, dm)
    if seal:
        seal_pockets(world, dm)
    return assemble(world, dm, **options)


def csr(A: PETSc.Mat) -> sparse.csr_matrix:
    indptr, indices, data = A.getValuesCSR()
    return sparse.csr_matrix((data, indices, indptr), A.getSize())


@pytest.mark.parametrize("name", ["box", "mixed", "jumps", "dam_break"])
@pytest.mark.parametrize("shape", [(12, 13, 14), (1, 20, 21), (2, 12, 16)])
def test_a_world_on_a_ring(name: str, shape: Shape) -> None:
    """Its matrix is that of its own cells: every face by the rule of all others, those of the seam too."""
    periodic = (True, False, True)
    world = families.make(name, shape, 1, whole(shape))
    system = closed(world, periodic)
    fluid, air = world.fluid, interior(world.flags) == OPEN
    k = np.ones(shape) if world.coefficient is None else interior(world.coefficient)
    w, s = [], np.zeros(shape)
    for axis in range(3):
        i = 2 - axis
        mean = world.axis[axis] * 2 * k * np.roll(k, 1, i) / (k + np.roll(k, 1, i))
        face = mean * (fluid & np.roll(fluid, 1, i))
        beside = (fluid & np.roll(air, 1, i)) * 1.0, (fluid & np.roll(air, -1, i)) * 1.0
        open_sides = [side == "open" for side in world.sides[2 * axis : 2 * axis + 2]]
        if not periodic[i] or shape[i] == 1:
            np.moveaxis(face, i, 0)[0] = 0.0
            ends = np.moveaxis(beside[0], i, 0)[0], np.moveaxis(beside[1], i, 0)[-1]
            cells = np.moveaxis(fluid, i, 0)[0], np.moveaxis(fluid, i, 0)[-1]
            for end, cell, is_open in zip(ends, cells, open_sides, strict=True):
                end[...] = 2.0 * cell * (is_open and shape[i] > 1)
        w.append(face)
        s += world.axis[axis] * k * (beside[0] + beside[1]) if shape[i] > 1 else 0.0
    want = assembled(w, s)
    got = csr(system.A)
    on = np.flatnonzero(system.active.ravel())
    assert abs(want[on] - got[on]).max() < 1e-12
    np.testing.assert_allclose(interior(world.w[0]), w[0])


def test_a_stream_goes_round() -> None:
    """Through an empty ring without a source, but not through one with a wall."""
    empty = closed(families.make("box", SMALL, 0, whole(SMALL)), (True, True, True)).world
    assert not flow.divergence(empty, (1.0, 2.0, 3.0)).any()
    flags = all_fluid(whole(SMALL))
    flags[:, :, 4] = SOLID
    system = closed(scene(SMALL, whole(SMALL), flags, sides_of("y+")), (False, False, True))
    source = flow.divergence(system.world, (1.0, 0.0, 0.0))
    assert abs(source).sum() == 2 * 42 and system.singular is False
    assert (interior(system.world.flags) == FLUID).sum() == 7 * 42


def test_pockets_are_seen_across_the_seam() -> None:
    """Two rooms that only meet round the end are one; nothing of it is sealed."""
    flags = all_fluid(whole(SMALL))
    flags[:, :, 4] = SOLID
    world = scene(SMALL, whole(SMALL), flags.copy(), sides_of("x+"))
    dm = dmda.create(SMALL, PETSc.COMM_SELF, periodic=(False, False, True))
    flags[3, 3, 8] = OPEN
    ring = close_rings(scene(SMALL, whole(SMALL), flags, sides_of("")), dm)
    assert seal_pockets(world) > 0 and seal_pockets(ring, dm) == 0


def test_second_order_on_a_ring() -> None:
    errors = []
    for n in (16, 32):
        box = whole((1, n, n))
        system = closed(scene(box.shape, box, all_fluid(box), sides_of("x+ y+")), (False, False, True))
        source, exact = rhs.manufactured(system.world)
        b = rhs.compatible(system, source)
        ksp = PETSc.KSP().create(PETSc.COMM_SELF)
        system.attach(ksp)
        ksp.setType("python")
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=1e-10)
        x = b.duplicate()
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0
        errors.append(abs(system.field(x) - exact).max())
    assert errors[0] < 0.05 and errors[1] < 0.3 * errors[0]


def test_a_comparison_can_ask_for_rings() -> None:
    spec = SystemSpec("family", "box", (8, 8, 8), periodic=(False, True, True))
    job = Job(spec, BASELINES["dcdm"])
    assert Job.from_json(job.to_json()).system == spec
    assert spec.label == "box periodic along x, y"
    problem = build(spec)
    assert csr(problem.A).getnnz(axis=1).min() == 6
    assert SystemSpec("family", "box", (8, 8, 8)).label == "box"


def test_commands_say_what_axes_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["solve", "--family", "box", "--periodic", "xw"])
    assert "'xw' must be axes as x, y, z or several of them, such as x,y; x?" in capsys.readouterr().err
    for arguments in (["solve", "--matrix", __file__], ["compare", "--matrix", __file__], ["compare", "--vertex"]):
        assert main([*arguments, "--periodic", "x"]) == 2
        assert "periodic" in capsys.readouterr().err
