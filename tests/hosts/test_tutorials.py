"""PETSc's own tutorials, compiled as they are, solve with the plugin chosen on the command line.

Each system runs on one rank and on two. What counts: few iterations, a true residual below the tolerance,
every option used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import iterations, mpirun_program, run_program, true_residuals
from petsc_sources import find_tutorial

pytestmark = pytest.mark.hosts

PLUGIN = ("-python", "-ksp_type", "python", "-ksp_python_type", "petsc_dcdm.KSP")
WATCH = ("-ksp_converged_reason", "-ksp_monitor_true_residual", "-options_left")
Build = Callable[[str], Path]


def run(ranks: int, program: Path, *options: str, expect: int | None = 0, **env: str) -> str:
    """Runs a program, on one rank without mpirun as most people do, and returns its output."""
    if ranks == 1:
        return run_program([program, *options], expect=expect, env=env, cwd=program.parent)
    return mpirun_program(ranks, [program, *options], expect=expect, env=env, cwd=program.parent)


def check(output: str, rtol: float = 1e-6) -> None:
    """Few iterations, the true residual below ``rtol``, no option left unused."""
    assert 1 <= iterations(output) <= MOST[rtol], output
    assert true_residuals(output)[-1] <= rtol * (1 + 1e-6), output
    assert "Option left" not in output, output


MOST = {1e-6: 6, 1e-10: 9}  # iterations, by tolerance
SYSTEMS = {
    "3D Dirichlet, vertices": ("ex45.c", "-da_grid_x 65 -da_grid_y 65 -da_grid_z 65"),
    "3D Dirichlet, uneven": ("ex45.c", "-da_grid_x 41 -da_grid_y 30 -da_grid_z 23"),
    "3D Dirichlet, Fortran": ("ex22f.F90", "-da_grid_x 33 -da_grid_y 33 -da_grid_z 33"),
    "3D Neumann, cells": ("ex34.c", "-da_grid_x 40 -da_grid_y 40 -da_grid_z 40"),
    "2D, no DM": ("ex2.c", "-m 120 -n 100"),
    "2D, no DM, Fortran": ("ex2f.F90", "-m 90 -n 110"),
    "2D Dirichlet, vertices": ("ex29.c", "-da_grid_x 129 -da_grid_y 129"),
    "2D Neumann, vertices": ("ex29.c", "-da_grid_x 129 -da_grid_y 129 -bc_type neumann"),
    "2D, each row with a density of its own": ("ex29.c", "-da_grid_x 129 -da_grid_y 129 -rho 100"),
    "2D Neumann, cells": ("ex50.c", "-da_grid_x 128 -da_grid_y 96"),
    "2D, DMDA only on the matrix": ("ex46.c", "-da_grid_x 100 -da_grid_y 80"),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("rtol", MOST)
@pytest.mark.parametrize("system", SYSTEMS)
def test_system(tutorial: Build, system: str, rtol: float, ranks: int) -> None:
    source, options = SYSTEMS[system]
    more = "kksp" in find_tutorial(source).read_text()  # newer ex2f: then a system whose upper couplings it forgets
    fallback = ("-pc_dcdm_fallback", "lu") if more else ()
    output = run(ranks, tutorial(source), *options.split(), "-ksp_rtol", str(rtol), *PLUGIN, *WATCH, *fallback)
    assert output.count("instead (-pc_dcdm_fallback): the matrix is not symmetric") == more, output
    if more:
        head, first, second = output.split("  0 KSP ")
        assert iterations(second) == 1 and "Option left" not in head + second, output
        output = first
    check(output, rtol)


@pytest.mark.parametrize("ranks", [1, 2])
def test_large_ex45(tutorial: Build, ranks: int) -> None:
    grid = "-da_grid_x 129 -da_grid_y 129 -da_grid_z 129"
    output = run(ranks, tutorial("ex45.c"), *grid.split(), "-ksp_rtol", "1e-6", *PLUGIN, *WATCH)
    check(output)


def test_options_from_the_environment(tutorial: Build) -> None:
    """A program whose command line is not the user's takes everything from PETSC_OPTIONS."""
    options = " ".join([*PLUGIN, *WATCH, "-ksp_rtol", "1e-6"])
    check(run(1, tutorial("ex45.c"), PETSC_OPTIONS=options))


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_preconditioner_alone(tutorial: Build, ranks: int) -> None:
    """PETSc's own flexible CG around petsc_dcdm.PC."""
    options = "-python -ksp_type fcg -ksp_fcg_mmax 2 -pc_type python -pc_python_type petsc_dcdm.PC"
    grid = "-da_grid_x 40 -da_grid_y 40 -da_grid_z 40 -ksp_norm_type unpreconditioned -ksp_rtol 1e-6"
    check(run(ranks, tutorial("ex45.c"), *options.split(), *grid.split(), *WATCH))


@pytest.mark.parametrize("ranks", [1, 2])
def test_many_solves_with_one_matrix(tutorial: Build, ranks: int) -> None:
    options = "-da_refine 5 -testsolver -ksp_rtol 1e-6"
    output = run(ranks, tutorial("ex29.c"), *options.split(), *PLUGIN, *WATCH)
    assert output.count("Linear solve converged") == 22
    check(output)


def test_a_solver_that_is_never_destroyed(build: Callable[[Path], Path], tmp_path: Path) -> None:
    """PETSc ends before Python does, or the other way round: neither complains."""
    source, line = find_tutorial("ex2.c").read_text(), "  PetscCall(KSPDestroy(&ksp));\n"
    assert source.count(line) == 1
    kept = tmp_path / "ex2_kept.c"
    kept.write_text(source.replace(line, ""))
    output = run(1, build(kept), "-m", "40", "-n", "30", *PLUGIN, "-ksp_converged_reason")
    assert iterations(output) <= 8 and "ERROR" not in output and "Traceback" not in output, output


def test_the_right_answer(tutorial: Build) -> None:
    """ex2 knows its solution and ex34 its equation's, so their own error norms judge."""
    output = run(1, tutorial("ex2.c"), "-m", "60", "-n", "50", "-ksp_rtol", "1e-10", *PLUGIN)
    assert float(output.split("Norm of error ")[1].split()[0]) < 1e-6
    errors = []
    for n in ("16", "32"):
        grid = ["-da_grid_x", n, "-da_grid_y", n, "-da_grid_z", n]
        output = run(1, tutorial("ex34.c"), *grid, "-ksp_rtol", "1e-10", *PLUGIN)
        errors.append(float(output.split("Error norm ")[1].split()[0]))
    assert 3.5 < errors[0] / errors[1] < 4.5, errors  # second order


# program, options, what the sentence must name
REFUSED = {
    "several unknowns per cell": ("ex34.c", "-da_dof 2", ("dof", "unknown")),
    "a grid of another size": ("ex2.c", "-m 30 -n 20 -pc_dcdm_grid 30,19", ("30", "19")),
    "no such weights file": ("ex45.c", "-pc_dcdm_model missing.safetensors", ("missing.safetensors",)),
    "an option's value": ("ex45.c", "-ksp_dcdm_history -3", ("ksp_dcdm_history",)),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_sentence(tutorial: Build, case: str, ranks: int) -> None:
    """What cannot be solved ends the program, on all ranks, with one sentence that names the matter."""
    source, options, words = REFUSED[case]
    output = run(ranks, tutorial(source), *options.split(), *PLUGIN, "-ksp_converged_reason", expect=None)
    assert "Linear solve converged" not in output, output
    told = [line for line in output.splitlines() if "petsc_dcdm" in line and any(w in line for w in words)]
    assert told, output


def test_a_program_whose_matrices_are_refused_ends(tutorial: Build) -> None:
    """ex9 has two systems in turn, one never symmetric on two ranks; all of these have the same left of refusals."""
    output = run(2, tutorial("ex9.c"), *PLUGIN, "-pc_dcdm_fallback", "bjacobi")
    assert output.count("Norm of error") >= 2 and "instead (-pc_dcdm_fallback): the matrix is not symmetric" in output
