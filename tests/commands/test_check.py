"""`petsc-dcdm check` and the JSON of the other commands: what they say is what a solve finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import mpirun_program, run_program
from petsc4py import PETSc
from ring_systems import assembled
from ring_systems import conductances as ring_conductances
from systems import conductances, matrix, poisson

COMMAND = [sys.executable, "-m", "petsc_dcdm"]


def write(A: PETSc.Mat, path: Path) -> str:
    viewer = PETSc.Viewer().createBinary(str(path), "w")
    A.view(viewer)
    viewer.destroy()
    return str(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> str:
    A = poisson((8, 12, 16), sign=-1.0)
    A.zeroRows([5, 40], -3.0)
    return write(A, tmp_path_factory.mktemp("served") / "A.bin")


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> str:
    A = PETSc.Mat().createAIJ((40, 40), nnz=40)
    A.setValues(range(40), range(40), np.eye(40) * 90 - 1)
    A.assemble()
    return write(A, tmp_path_factory.mktemp("dense") / "A.bin")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_matrix_that_is_served(served, ranks):
    facts = json.loads(mpirun_program(ranks, [*COMMAND, "check", served, "--json"]))
    assert facts["served"] and facts["grid"] == "16 x 12 x 8" and "offsets" in facts["grid_from"]
    assert facts["active_cells"] == facts["levels"][0]["unknowns"] == 8 * 12 * 16 - 2
    assert "negative definite" in facts["odd"] and "2 rows are decided by their own diagonals" in facts["odd"]
    assert facts["coarsest_solver"] == ("Cholesky factors of a band" if ranks == 1 else "PETSc's preonly + cholesky")
    assert facts["solve"]["converged"] and facts["solve"]["true_relative_residual"] <= 1e-6
    assert 1 <= facts["solve"]["iterations"] <= 5 and facts["solve"]["setup_s"] > 0


def test_a_matrix_that_is_refused_with_what_would_serve_it(dense):
    said = run_program([*COMMAND, "check", dense, "--grid", "8,5"], expect=3)
    assert "refused: " in said and "is no face neighbour" in said
    assert "-pc_dcdm_fallback gamg (here: gcr): " in said and "CONVERGED_RTOL" in said


def test_a_solve_that_does_not_converge(served):
    assert "DIVERGED_ITS" in run_program([*COMMAND, "check", served, "-ksp_max_it", "1"], expect=1)


def test_a_file_that_is_not_there():
    assert "There is no file" in run_program([*COMMAND, "check", "/no/such/A.bin"], expect=2)


def test_results_and_facts_as_json(served):
    result = json.loads(run_program([*COMMAND, "solve", "--matrix", served, "--json"]))
    assert result["converged"] and result["residual"] <= 1e-6 and len(result["history"]) == result["iterations"] + 1
    facts = json.loads(run_program([*COMMAND, "info", "--json", "multigrid"]))
    (weights,) = facts["weights"].values()
    assert weights["kind"] == "multigrid" and facts["PETSc"].startswith("3.")


def test_a_misspelt_petsc_option_is_said(served):
    said = run_program([*COMMAND, "check", served, "-ksp_rtoll", "1e-3", "-ksp_max_it", "50"])
    assert said.count("nobody has read the option") == 1 and "-ksp_rtoll: is it misspelt?" in said


def test_what_is_odd(tmp_path):
    w, s = ring_conductances((1, 20, 24), (False, True, False))
    m = assembled(w, s)
    indices = m.indptr.astype(PETSc.IntType), m.indices.astype(PETSc.IntType)
    A = PETSc.Mat().createAIJ(m.shape, csr=(*indices, m.data))
    scale = A.createVecLeft()
    scale.setArray(np.linspace(1.0, 5.0, m.shape[0]))
    A.diagonalScale(L=scale)
    said = run_program([*COMMAND, "check", write(A, tmp_path / "A.bin"), "--grid", "24,20"])
    assert "found: periodic along y" in said and "found: rows were scaled one by one, by factors 1 : 5" in said


def test_who_solves_the_coarsest_level(tmp_path):
    """Noise ends the plan early: a large coarsest level, which is not PETSc's to solve."""
    k = np.exp(3.0 * np.random.default_rng(4).standard_normal((20, 24, 28)))
    path = write(matrix(*conductances(k.shape, coefficient=k)), tmp_path / "A.bin")
    assert "solved by coarse cells of several parts" in run_program([*COMMAND, "check", path])
    said = run_program([*COMMAND, "check", path, "-pc_dcdm_coarse_pc_type", "gamg"])
    assert "solved by PETSc's preonly + gamg" in said


def test_the_families_by_name():
    lists = [run_program([*COMMAND, command, "--family", "list"]) for command in ("solve", "compare")]
    assert lists[0] == lists[1] and "\ndam_break " in lists[0]


def test_periodic_axes_of_a_simulation():
    said = run_program([*COMMAND, "flow", "plume", "--size", "16,16", "--steps", "2", "--periodic", "x"])
    assert "2 steps" in said
    said = run_program([*COMMAND, "flow", "plume", "--periodic", "xy"], expect=2)
    assert "axes as x, y, z or several of them, such as x,y; x,y?" in said
