"""The paper's comparison: its scenes, deflated CG, and the whole way from solvers to tables at a toy size."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from petsc4py import PETSc

from petsc_dcdm.compare.baselines import BASELINES, new_ksp
from petsc_dcdm.network import weights
from petsc_dcdm.network.cnn import DcdmNet, to_tensors
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.assemble import System, assemble
from petsc_dcdm.studies.paper import ablation as paper_ablation
from petsc_dcdm.studies.paper import comparison as paper
from petsc_dcdm.studies.paper import report as paper_report
from petsc_dcdm.studies.paper.deflation import DeflatedCG, low_sines
from petsc_dcdm.studies.paper.scenes import right_hand_sides, scenes, training_box
from petsc_dcdm.training.cnn_recipes import RECIPES
from petsc_dcdm.training.ritz import box_eigenvalues, box_operator

#: Model, size, scene, iterations allowed to 1e-4 and 1e-6.
SHIPPED = [
    ("cnn", 32, "training operator", {"random": (6, 9), "smooth": (7, 10)}),
    ("cnn", 32, "moving obstacle", {"random": (8, 11), "smooth": (9, 13)}),
    ("cnn", 64, "training operator", {"random": (10, 14), "smooth": (13, 19)}),
    ("cnn-64", 64, "training operator", {"random": (9, 14), "smooth": (12, 18)}),
]


def box_system(n: int) -> System:
    world = training_box(n)
    return assemble(world, dmda.create(world.shape, PETSc.COMM_SELF))


def almost_identity() -> DcdmNet:
    """Weights by hand: f(r) = r + its mean over blocks of 2^3 cells, by carrying the parts r > 0 and r < 0."""
    net = DcdmNet("64")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.head[0].weight[:2, 0, 1, 1, 1] = torch.tensor([1.0, -1.0])
        for layer in (net.head[1], net.head[-1]):
            layer.weight[:2, :2, 1, 1, 1] = torch.eye(2)
        net.last.weight[0, :2, 0, 0, 0] = torch.tensor([1.0, -1.0])
    return net


@pytest.fixture
def cnn_file(tmp_path):
    path = tmp_path / "by-hand.safetensors"
    weights.save(
        path,
        "cnn",
        (3,),
        to_tensors(almost_identity()),
        training_domain="none",
        seed=0,
        command="none",
        hyper={"variant": "64"},
    )
    return path


def test_training_box_is_the_operator_of_the_training():
    system = box_system(6)
    values = np.random.default_rng(0).standard_normal((6, 6, 6))
    y = system.field(system.A * system.vector(values))
    assert np.allclose(y, box_operator(torch.from_numpy(values)).numpy(), atol=1e-13)


@pytest.mark.parametrize("name", ["training operator", "obstacle", "moving obstacle", "free surface"])
def test_scenes_keep_the_outer_walls(name):
    for world in scenes(12, None)[name]():
        d = world.diagonal()
        assert d[0, 0, 0] == 6.0 and set(np.unique(d)) <= set(range(7))
        assert 0.3 < world.fluid.mean() <= 1.0
        assert (d[world.fluid] > 0).all()


def test_low_sines_are_the_lowest_eigenvectors_in_order():
    system = box_system(6)
    exact = box_eigenvalues(6).numpy()
    vectors = [system.vector(v) for v in low_sines((6, 6, 6), 16)]
    for v, value in zip(vectors, exact, strict=False):
        residual = system.A * v - float(value) * v
        assert residual.norm() < 1e-12 * v.norm()


def test_deflation_saves_iterations_and_solves_the_system():
    system = box_system(16)
    b = system.vector(right_hand_sides(16)["random"])
    x = b.duplicate()
    steps = {}
    for count in (1, 16):
        norms = []

        def report(_step, norm, norms=norms):
            norms.append(norm)
            return norm <= 1e-8 * norms[0]

        steps[count] = DeflatedCG(system.A, [system.vector(v) for v in low_sines((16, 16, 16), count)]).solve(
            b, x, report
        )
        r = b - system.A * x
        assert r.norm() <= 1.01e-8 * b.norm()
    assert steps[16] < 0.85 * steps[1], steps


@pytest.mark.parametrize("scene", ["training operator", "obstacle", "free surface"])
def test_the_solver_keeps_its_promises_with_a_network_of_random_weights(tmp_path, scene):
    """Directions A-orthogonal to the two before; the error never grows in the A-norm, also on unseen operators."""
    torch.manual_seed(4)
    file = tmp_path / "random.safetensors"
    tensors = to_tensors(DcdmNet("64"))
    weights.save(file, "cnn", (3,), tensors, training_domain="none", seed=0, command="none", hyper={"variant": "64"})
    world = scenes(12, None)[scene]()[0]
    system = assemble(world, dmda.create(world.shape, PETSc.COMM_SELF))
    exact = system.vector(right_hand_sides(12)["random"])
    b = system.A * exact
    PETSc.Options()["random_pc_dcdm_model"] = str(file)
    ksp = new_ksp(BASELINES["dcdm"], system, "random_")
    points = []
    ksp.setMonitor(lambda ksp, its, norm: points.append(ksp.getSolution().copy()))
    ksp.setTolerances(rtol=1e-30, atol=0.0, max_it=15)
    ksp.setFromOptions()
    ksp.solve(b, b.duplicate())
    steps = [new - old for old, new in zip(points, points[1:], strict=False)]
    assert len(steps) == 15
    for k, d in enumerate(steps):
        for p in steps[max(0, k - 2) : k]:
            assert abs(d.dot(system.A * p)) < 1e-6 * np.sqrt(d.dot(system.A * d) * p.dot(system.A * p))
    energies = [(exact - x).dot(system.A * (exact - x)) for x in points]
    assert all(new <= old * (1 + 1e-12) for old, new in zip(energies, energies[1:], strict=False))
    assert energies[-1] < energies[0]


@pytest.mark.parametrize(("model", "size", "scene", "limits"), SHIPPED)
def test_the_shipped_networks_take_few_iterations(model, size, scene, limits):
    """To 1e-4 and 1e-6, random and smooth right-hand side: one or two more than it takes."""
    system = assemble(scenes(size, None)[scene]()[0], dmda.create((size, size, size), PETSc.COMM_SELF))
    _, solve = paper.set_up_by(system, BASELINES["dcdm"], model)()
    found = {}
    for name, values in right_hand_sides(size).items():
        b = system.vector(values)
        norms = [norm for _, norm in solve(b, b.duplicate())]
        found[name] = [next(k for k, v in enumerate(norms) if v <= t * norms[0]) for t in paper.TOLERANCES]
    assert all(found[name][t] <= most[t] for name, most in limits.items() for t in (0, 1)), found


@pytest.mark.parametrize(("name", "resolution"), [("cnn", 32), ("cnn-64", 64)])
def test_the_shipped_networks_are_those_of_the_recipes(name, resolution):
    meta = weights.load(name).meta
    assert meta["command"] == f"petsc-dcdm train cnn --variant 64 --seed 0 --resolution {resolution}"
    stages = json.loads(json.dumps([asdict(stage) for stage in RECIPES[resolution]]))
    assert json.loads(meta["settings"])["stages"] == stages
    assert f"{resolution}^3" in meta["training_domain"] and "exact modes" in meta["training_domain"]


def test_from_solvers_to_tables(tmp_path, cnn_file, capsys):
    file = tmp_path / "size-8.json"
    words = ["--size", "8", "--repeats", "1", "--scene", "training operator", "--model", f"cnn={cnn_file}"]
    assert paper.main([*words, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert {row["solver"] for row in rows} == {"DCDM, cnn", "CG", "deflated PCG (16)", "IC PCG"}
    for row in rows:
        assert row["true_relative_residual"] <= 1.01e-6
        first, last = row["iterations"]
        assert 0 < first < last == len(row["residuals"]) - 1
        assert 0 < row["solve_s"][0] <= row["solve_s"][1]
    ablation = tmp_path / "ablation.json"
    assert paper_ablation.main(["--model", str(cnn_file), "--size", "8", "--steps", "0", "--json", str(ablation)]) == 0
    counts = json.loads(ablation.read_text())["solver"]
    assert counts["m = 2"]["random"][1] <= (counts["m = 0"]["random"][1] or 101)
    out = tmp_path / "report"
    assert paper_report.main([str(file), "--ablation", str(ablation), "--output", str(out)]) == 0
    assert "| training operator | smooth | IC PCG |" in (out / "tables.md").read_text()
    assert (out / "size-8.png").stat().st_size > 10_000


def test_a_missing_mesh_is_an_error_of_one_sentence(tmp_path, capsys):
    assert paper.main(["--mesh", str(tmp_path / "none.obj")]) == 2
    assert "no such mesh file" in capsys.readouterr().err
