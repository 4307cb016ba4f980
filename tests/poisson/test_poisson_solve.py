"""The systems of poisson/ solved with petsc_dcdm.KSP: second order, few iterations, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import ROOT

pytest.importorskip("petsc4py")
from petsc4py import PETSc

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson import dmda, families, mesh, rhs, scene
from petsc_dcdm.poisson.assemble import System, assemble
from petsc_dcdm.poisson.flags import SIDES, sides_of
from petsc_dcdm.poisson.pockets import seal_pockets
from petsc_dcdm.poisson.solving import Result, solve


def run(system: System, b: PETSc.Vec, rtol: float) -> tuple[Result, np.ndarray]:
    """Solve with petsc_dcdm.KSP; the report and the field."""
    ksp = PETSc.KSP().create()
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    if system.fluid_only:
        PETSc.Options()["pc_dcdm_grid"] = ",".join(str(n) for n in system.world.shape[::-1])
    system.attach(ksp)
    ksp.setTolerances(rtol=rtol)
    ksp.setFromOptions()
    x = b.duplicate()
    result = solve(ksp, b, x)
    ksp.destroy()
    assert result.converged
    return result, system.field(x)


def full_box(shape: Shape, sides: str) -> System:
    dm = dmda.create(shape)
    box = dmda.box_of(dm)
    return assemble(scene.build(shape, box, scene.all_fluid(box), sides_of(sides)), dm)


@pytest.mark.parametrize("sides", [" ".join(SIDES), "x+", ""])
def test_a_manufactured_solution_converges_at_second_order(sides: str) -> None:
    errors = []
    for n in (32, 64, 128):
        system = full_box((n, n, n), sides)
        values, exact = rhs.manufactured(system.world)
        _, field = run(system, rhs.compatible(system, values), 1e-8)
        error = field - exact
        errors.append(np.sqrt(np.mean((error - system.singular * error.mean()) ** 2)))
        system.destroy()
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["fox.obj", "propeller.ply", "knot.stl"])
@pytest.mark.parametrize("fluid_only", [False, True])
def test_flow_past_each_mesh_takes_few_iterations(name: str, fluid_only: bool) -> None:
    shape = (64, 64, 64)
    dm = dmda.create(shape)
    placed = mesh.place(mesh.load(ROOT / "meshes" / name), shape, 0.5)
    world = scene.around_mesh(shape, dmda.box_of(dm), placed)
    seal_pockets(world, dm)
    system = assemble(world, dm, fluid_only)
    b = rhs.make("flow", system)
    loose, _ = run(system, b, 1e-6)
    tight, _ = run(system, b, 1e-10)
    assert loose.iterations <= 8 and loose.residual <= 1e-6
    assert tight.iterations <= 14 and tight.residual <= 1.001e-10
    assert loose.history[0][1] == pytest.approx(1) and loose.history[-1][1] <= 1e-6


@pytest.mark.parametrize("shape", [(24, 33, 18), (1, 40, 57)])
@pytest.mark.parametrize("name", families.families)
def test_every_family_at_odd_sizes(name: str, shape: Shape) -> None:
    dm = dmda.create(shape)
    world = families.make(name, shape, 5, dmda.box_of(dm))
    seal_pockets(world, dm)
    system = assemble(world, dm)
    result, _ = run(system, rhs.make("smooth", system, 1), 1e-8)
    assert result.residual <= 1.001e-8 and result.iterations <= 30


def test_the_command_line_uses_our_solver_and_says_what_is_wrong(tmp_path: Path) -> None:
    import sys

    from harness import run_program

    command = [sys.executable, "-m", "petsc_dcdm.cli", "solve"]
    text = run_program([*command, "--family", "tank", "--size", "20,18,22", "--fluid-only"])
    assert "petsc_dcdm.KSP" in text
    write = ["-ksp_view_mat", f"binary:{tmp_path}/A", "-ksp_type", "cg", "-pc_type", "jacobi"]
    run_program([*command, "--family", "box", "--size", "12", *write])
    text = run_program([*command, "--matrix", tmp_path / "A", "--grid", "11,12,12"], expect=2)
    assert "-pc_dcdm_grid is 11 x 12 x 12" in text and "Traceback" not in text
    assert "petsc_dcdm.KSP" in run_program([*command, "--matrix", tmp_path / "A"])
