"""The ablation and the floor of the residual: variants are what their names say, rounding is what stops a solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from petsc4py import PETSc

from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.network import multigrid, weights
from petsc_dcdm.network.fields import no_exchange
from petsc_dcdm.network.initial import initial_tensors
from petsc_dcdm.studies import ablation, floor
from petsc_dcdm.studies.robustness import problem_of, solver
from petsc_dcdm.training import domains, train, validation
from petsc_dcdm.training.losses import exact_solver


def test_scalars_leaves_the_fields_constant():
    settings = train.Settings(steps=2, batch=1)
    tensors = train.train_multigrid(settings, draw=lambda rng: domains.family_box((10, 10, 10), rng), learn=("log_c",))
    for name, before in initial_tensors(4, 16, 1).items():
        assert (tensors[name] == before).all() == (name != "log_c")


def test_variants_are_made_once_and_solve(tmp_path, capsys):
    path = ablation.weights_file("jacobi-4", tmp_path)
    made = weights.load(path)
    assert np.exp(made.tensors["log_c"][:4]) == pytest.approx(2 / 3)
    assert "jacobi-4: " in capsys.readouterr().err
    assert ablation.weights_file("jacobi-4", tmp_path) == path and not capsys.readouterr().err
    rows = [ablation.count(model, "mixed", (24, 24, 24), (11,)) for model in (path, "multigrid")]
    assert rows[0].worst(1e-6, True) > rows[1].worst(1e-6, True)
    assert (
        ablation.main(["--size", "8", "--system", "box", "--variant", "jacobi-4", "shipped", "--out", str(tmp_path)])
        == 0
    )
    assert capsys.readouterr().out.splitlines()[0] == "| 8x8x8, 1e-6 | jacobi-4 | shipped |"


def test_the_split_cycle_is_the_cycle_where_its_halves_are_alike():
    system = validation.mixed((16, 16, 16), 0)
    loaded = {name: torch.from_numpy(a) for name, a in ablation.classical(3, np.array([0.4, 0.6, 0.9])).items()}
    op = multigrid.operator_from_arrays(system.w, system.s, system.shape)
    smoothers, coarse, _ = multigrid.build(loaded, op, SerialLayout(system.shape, ((0, 1, 2),)), no_exchange)
    solve = exact_solver(coarse, system.closed)
    r = torch.from_numpy(validation.right_hand_side(system, "random", 0)).float()[None]
    torch.testing.assert_close(
        ablation.cycle_after(smoothers, solve, r, 3, 3), multigrid.cycle(smoothers, solve, r, no_exchange)
    )


def test_no_solver_gets_below_the_floor():
    problem, right = problem_of(SystemSpec("family", "plates", (1, 128, 128), 11), ("smooth",))
    ksp = solver(problem.A, problem.dm, 1e-6)
    size, exact, computed = floor.attainable(ksp, problem.A, right["smooth"])
    assert size > 1e4 and 1e-17 * size < exact < 1e-15 * size and exact < 2 * computed
    ksp.destroy()
    best = PETSc.KSP().create()
    best.setOperators(problem.A)
    best.setType("preonly")
    best.getPC().setType("cholesky")
    x, r = right["smooth"].duplicate(), right["smooth"].duplicate()
    best.solve(right["smooth"], x)
    problem.A.mult(x, r)
    r.aypx(-1.0, right["smooth"])
    assert r.norm() > 0.5 * exact * right["smooth"].norm()
    best.destroy()
    problem.destroy()
