"""The comparison: what it runs, what it says, and that its figures mean what their names say."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness import run_program

from petsc_dcdm.compare import baselines, cli, driver, report, tables
from petsc_dcdm.compare.driver import Result, RunFailed, compare, run_job, summarise
from petsc_dcdm.compare.job import Job, Measured, SystemSpec

CONTRACT = [
    *("name", "options", "ranks", "unknowns", "iterations", "setup_s", "solve_s", "total_s", "matmult_s"),
    *("true_relative_residual", "converged_reason", "peak_rss_mb"),
]
BOX = SystemSpec("family", "box", (12, 12, 12))
NORM = "-ksp_norm_type unpreconditioned"
JACOBI = baselines.resolve("jacobi")


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_compare_parser(parser.add_subparsers())
    return parser.parse_args(["compare", *argv])


# Names and options ------------------------------------------------------------------------------------------------


def test_solvers_by_name_or_options():
    assert baselines.resolve("gamg").options.endswith("-pc_type gamg")
    own = baselines.resolve("mine=-ksp_type cg -pc_type sor")
    assert (own.name, own.options, own.ours) == ("mine", f"-ksp_type cg -pc_type sor {NORM}", False)
    assert baselines.resolve("-ksp_type cg").options == f"-ksp_type cg {NORM}"
    natural = "-ksp_type cg -ksp_norm_type natural"
    assert baselines.resolve(natural).options == natural
    assert baselines.resolve("x=-ksp_python_type petsc_dcdm.KSP -pc_dcdm_model cnn").ours
    assert baselines.resolve("dcdm@2") == replace(baselines.resolve("dcdm"), ranks=2)
    for wrong in ("bomeramg", "a=b", "", "dcdm@", "dcdm@0", "dcdm@x"):
        with pytest.raises(ValueError, match="boomeramg-tuned"):
            baselines.resolve(wrong)


def test_options_depend_on_ranks_and_levels():
    assert "bjacobi" in baselines.resolve("icc").on(2, 1) and "bjacobi" not in baselines.resolve("icc").on(1, 1)
    assert "-pc_mg_levels 5" in baselines.resolve("mg").on(1, 5)


def test_obstacles():
    mg, pfmg = baselines.resolve("mg"), baselines.resolve("pfmg")
    assert mg.obstacle(3, 4, frozenset()) == "" and "halved" in mg.obstacle(2, 1, frozenset())
    assert "hypre" in pfmg.obstacle(3, 4, frozenset()) and "DMDA" in mg.obstacle(0, 4, frozenset())
    assert "3D" in pfmg.obstacle(2, 4, frozenset({"hypre"}))


def test_rivals_of_a_program_are_known_by_name(monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", dict(baselines.BASELINES))
    mine = baselines.register(baselines.Solver("sor", "-ksp_type cg -pc_type sor"))
    assert baselines.resolve("sor") is not mine and baselines.resolve("sor") == mine == baselines.register(mine)
    assert "sor" in str(pytest.raises(ValueError, baselines.resolve, "unknown").value)
    for name, why in (("sor", "already"), ("a@2", "cannot be called"), ("-x", "cannot be called")):
        with pytest.raises(ValueError, match=why):
            baselines.register(baselines.Solver(name, "-ksp_type gmres"))


@pytest.mark.parametrize(
    "argv",
    [
        "--matrix A.bin --size 8",
        "--family box --grid 8",
        "--family box --moving",
        "--vertex --fluid-only",
    ],
)
def test_contradictions_are_named(argv):
    with pytest.raises(ValueError, match="--"):
        cli.systems_of(parse(*argv.split()))


def test_systems_from_arguments(tmp_path):
    (a, b) = cli.systems_of(parse(*"--family tank --size 8 9,10 --seed 3 --fluid-only".split()))
    assert a == SystemSpec("family", "tank", (8, 8, 8), 3, True) and b.shape == (1, 10, 9)
    assert (a.label, b.size) == ("tank, fluid cells only", "9x10")
    (m,) = cli.systems_of(parse("--matrix", str(tmp_path / "A.bin"), "--grid", "4,5,6", "--rhs", "b.bin"))
    assert m.shape == (6, 5, 4) and m.rhs.endswith("/b.bin")


# Arithmetic -------------------------------------------------------------------------------------------------------


def result(name: str, setup: float, solve: float, **more) -> Result:
    solver = baselines.Solver(name, "-ksp_python_type petsc_dcdm.KSP" if name == "dcdm" else "-ksp_type cg")
    values = {
        "converged_reason": "CONVERGED_RTOL",
        "matmult_s": 0.01,
        "import_rss_mb": 50.0,
        "peak_rss_mb": 80.0,
    }
    return Result(BOX, solver, 1, setup_s=setup, solve_s=solve, total_s=setup + solve, unknowns=1728, **(values | more))


@pytest.mark.parametrize(
    "a, b, words",
    [
        ((1, 1), (2, 2), "faster from the first solve on"),
        ((2, 2), (1, 1), "slower however many solves"),
        ((10, 1), (1, 2.5), "faster from solve 7 on"),
        ((1, 2.5), (10, 1), "faster up to solve 6 only"),
        ((10, 1), (1, 10), "faster from solve 2 on"),
    ],
)
def test_break_even(a, b, words):
    text = report.break_even(result("dcdm", *a), result("gamg", *b))
    assert text == f"dcdm against gamg: {words}"
    if "from solve" in words:
        k = int(words.split()[3])
        assert a[0] + k * a[1] < b[0] + k * b[1] and a[0] + (k - 1) * a[1] >= b[0] + (k - 1) * b[1]


def test_verdict_takes_the_best_of_each():
    rows = [
        result("dcdm", 1, 1),
        result("gamg", 5, 2),
        result("ml", 4, 4),
        result("bad", 0, 0, converged_reason="DIVERGED_ITS"),
    ]
    first, second, *rest = report.verdict(rows)
    assert "gamg" in first and "3.50 times faster" in first
    assert "gamg" in second and "2.00 times faster" in second and len(rest) == 2
    assert "slower" in report.verdict([result("dcdm", 4, 4), result("gamg", 1, 1)])[0]
    assert report.verdict([result("gamg", 1, 1)]) == []


def test_medians_of_runs():
    runs = [
        Measured(setup_s=[s], solve_s=[1.0], iterations=[7], reasons=["CONVERGED_RTOL"], true_relative_residual=r)
        for s, r in ((1.0, 1e-7), (9.0, 2e-7), (2.0, 3e-7))
    ]
    out = summarise(Result(BOX, JACOBI, 1), runs)
    assert (out.setup_s, out.total_s, out.spread) == (2.0, 3.0, (2.0, 10.0))
    assert out.iterations == 7 and out.true_relative_residual == 3e-7 and out.runs == 3 and out.converged
    runs[1].reasons = ["DIVERGED_ITS"]
    assert not summarise(Result(BOX, JACOBI, 1), runs).converged


def test_solvers_run_on_their_own_ranks_or_on_those_of_the_comparison(monkeypatch):
    ran, finished = [], []
    one = Measured(setup_s=[1.0], solve_s=[1.0], iterations=[1], reasons=["CONVERGED_RTOL"])
    monkeypatch.setattr(
        driver, "run_job", lambda job, ranks, *more: ran.append((job.solver.name, ranks, more[-1])) or one
    )
    solvers = [JACOBI, baselines.resolve("gamg@3")]
    results = compare([BOX, BOX], solvers, [1, 2], runs=1, cold=True, done=finished.append)
    case = [("jacobi", 1, True), ("jacobi", 2, True), ("gamg", 3, True)]
    assert ran == 4 * case and [len(f) for f in finished] == [3, 3]
    assert [(r.solver.name, r.ranks, r.to_json()["cold"]) for r in results] == 2 * case


def test_an_interrupted_comparison_keeps_what_is_finished(monkeypatch, tmp_path, capsys):
    def run_job(job: Job, *_: object) -> Measured:
        if job.system.shape == (9, 9, 9):
            raise KeyboardInterrupt
        return Measured(setup_s=[1.0], solve_s=[1.0], iterations=[1], reasons=["CONVERGED_RTOL"])

    monkeypatch.setattr(driver, "run_job", run_job)
    args = parse(*"--family box --size 8 9 10 --solver jacobi --runs 1 --json".split(), f"{tmp_path}/o.json")
    assert args.run(args) == 130
    assert [o["grid"] for o in json.loads((tmp_path / "o.json").read_text())] == ["8x8x8"]
    assert "2 of 3 systems are not done" in capsys.readouterr().out


def test_tables_of_the_documentation(tmp_path, capsys):
    spread = {"spread": (0.3, 1.7)}
    slow = {"apply_s": 0.05, "matmult_s": 0.02, **spread}
    for name, solves in (("a", 1), ("b", 10)):
        rows = [
            result("dcdm", 0.1, 0.2, iterations=4, apply_s=0.02, **spread),
            result("ml", 1.0, 0.5, iterations=7, **slow),
            result("gamg", 0.9, 0.7, **slow),
            result("bad", 0, 0, converged_reason="DIVERGED_ITS"),
        ]
        for row in rows:
            row.solves = solves
        (tmp_path / f"{name}.json").write_text(json.dumps([r.to_json() for r in rows]))
    tables.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "| box 12x12x12 (1,728 unknowns) | **dcdm** | 1 | 4 | 100 | 200 | **300** |" in shown
    assert "| box 12x12x12 | ml, 1 | **5.0** | 2.5 | 10.0 | 2.00 | 30 / 30 |" in shown
    assert "box 12x12x12, 10 solves, one matrix" in shown and "DIVERGED_ITS" in shown


def test_a_job_survives_the_way_to_its_process():
    job = Job(SystemSpec("family", "box", (1, 5, 6), rhs="smooth"), baselines.resolve("icc"), 1e-3, 7, 2, True)
    assert Job.from_json(job.to_json()) == job


# Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_every_kind_of_result(tmp_path):
    """Two good solvers, one that cannot apply, one that fails and one that does not converge, on 1 and 2 ranks."""
    names = [
        "gamg",
        "pfmg",
        "short=-ksp_type cg -pc_type jacobi -ksp_max_it 3",
        "wrong=-ksp_type cg -pc_type nonsense",
    ]
    spec = SystemSpec("family", "dam_break", (12, 12, 12), fluid_only=True)
    results = compare([spec], [baselines.resolve(n) for n in names], [1, 2], runs=1)
    assert len(results) == 8
    for n in range(2):
        good, pfmg, short, wrong = results[4 * n : 4 * n + 4]
        assert good.converged and good.true_relative_residual <= 1e-6 and 1 <= good.iterations < 30
        assert good.ranks == n + 1 and good.unknowns == results[0].unknowns > 100
        assert good.setup_s > 0 and good.solve_s > 0 and math.isclose(good.total_s, good.setup_s + good.solve_s)
        assert 0 < good.matmult_s < 0.1 and good.peak_rss_mb > good.import_rss_mb > 20
        assert len(good.history) == good.iterations + 1 and good.history[-1][1] <= 1e-6
        assert "not applicable" in pfmg.problem and "DMDA" in pfmg.problem
        assert not short.converged and short.converged_reason == "DIVERGED_ITS" and short.iterations == 3
        assert wrong.problem.startswith("failed") and "nonsense" in wrong.problem
    objects = [r.to_json() for r in results]
    assert all(list(o)[: len(CONTRACT)] == CONTRACT for o in objects)
    assert json.loads(json.dumps(objects, allow_nan=False)) == json.loads(json.dumps(objects))
    assert objects[3]["setup_s"] is None and "nonsense" in objects[3]["converged_reason"]


def test_a_sequence_sets_up_once_or_every_time():
    same = run_job(Job(BOX, baselines.resolve("gamg"), solves=3), 1)
    assert len(same.iterations) == 3 and same.setup_s[1] < same.setup_s[0] / 5
    moving = run_job(
        Job(SystemSpec("family", "mixed", (12, 12, 12), fluid_only=True), JACOBI, solves=3, moving=True), 1
    )
    assert len(moving.iterations) == 3 and len(set(moving.iterations)) > 1
    assert set(moving.reasons) == {"CONVERGED_RTOL"} and moving.true_relative_residual <= 1e-6


def test_a_run_that_takes_too_long_is_ended():
    with pytest.raises(RunFailed, match="not finished after"):
        run_job(Job(SystemSpec("family", "box", (96, 96, 96)), JACOBI), 1, timeout=1.0)


def test_command(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    argv = "--family box --size 8 12 --solver jacobi --solver mg --runs 1"
    args = parse(*argv.split(), "--json", f"{tmp_path}/o.json", "--plot", f"{tmp_path}/o.png")
    assert args.run(args) == 0
    shown = capsys.readouterr().out
    assert "box 12x12x12: 1,728 unknowns" in shown and "jacobi" in shown
    assert [o["unknowns"] for o in json.loads((tmp_path / "o.json").read_text())] == [512, 512, 1728, 1728]
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    args = parse("--family", "list")
    assert args.run(args) == 0 and "dam_break" in capsys.readouterr().out
    args = parse("--family", "nosuch")
    with pytest.raises(ValueError, match="dam_break"):
        args.run(args)
    args = parse("--matrix", "nosuch.bin")
    with pytest.raises(FileNotFoundError, match=r"there is no file nosuch\.bin"):
        args.run(args)


def test_the_driver_starts_neither_petsc_nor_mpi():
    """Open MPI's mpirun cannot be started from a process that has initialised MPI."""
    code = (
        "import sys, petsc_dcdm.compare.cli, petsc_dcdm.compare.driver, petsc_dcdm.compare.report\n"
        "import petsc_dcdm.compare.plots\n"
        "sys.exit(any(m in sys.modules for m in ('petsc4py.PETSc', 'mpi4py.MPI', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Systems ----------------------------------------------------------------------------------------------------------


@pytest.mark.hosts
@pytest.mark.mpi
def test_vertex_is_ex45_and_its_files_can_be_compared(tmp_path: Path, tutorial: Callable[[str], Path]):
    from petsc4py import PETSc

    from petsc_dcdm.compare.systems import build

    A, b = tmp_path / "A.bin", tmp_path / "b.bin"
    grid = "-da_grid_x 9 -da_grid_y 8 -da_grid_z 7 -ksp_type cg -pc_type bjacobi".split()
    run_program([tutorial("ex45.c"), *grid, "-ksp_view_mat", f"binary:{A}", "-ksp_view_rhs", f"binary:{b}"])
    ours = build(SystemSpec("vertex", shape=(7, 8, 9)))
    theirs = build(SystemSpec("matrix", str(A), (7, 8, 9), rhs=str(b)))
    theirs.A.axpy(-1.0, ours.A, PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
    theirs.b.axpy(-1.0, ours.b)
    assert theirs.A.norm() < 1e-14 and theirs.b.norm() < 1e-14
    measured = run_job(Job(SystemSpec("matrix", str(A), (7, 8, 9), rhs=str(b)), baselines.resolve("gamg")), 2)
    assert measured.unknowns == 9 * 8 * 7 and measured.true_relative_residual < 1e-5
    with pytest.raises(ValueError, match="504 rows"):
        build(SystemSpec("matrix", str(A), (7, 8, 10)))


def test_levels_by_halving():
    from petsc_dcdm.compare.systems import count_levels

    assert count_levels([64, 64, 64], True) == 5 and count_levels([65, 65], False) == 5
    assert count_levels([64, 63], True) == 1 and count_levels([], True) == 1
