"""The paper's comparison: DCDM against CG, deflated PCG and IC PCG, on operators seen in training and unseen.

    python -m petsc_dcdm.studies.paper.comparison --size 32 --json out/paper-32.json

Every solver starts from zero and goes on until |r| <= 1e-6 |b|; the step and the time at which 1e-4 was
reached come from the same solve, by a monitor. Times are the median of the repeats after a warm-up solve,
set-up is reported next to the solve, and the true residual b - A x is computed afterwards. One rank.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.compare.baselines import BASELINES, Solver, new_ksp, register
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.assemble import System, assemble
from petsc_dcdm.poisson.solving import relative_residual
from petsc_dcdm.studies.paper.scenes import right_hand_sides, scenes

TOLERANCES = (1e-4, 1e-6)
MOST = 1000

Trace = list[tuple[float, float]]
Setup = Callable[[], tuple[float, Callable[[PETSc.Vec, PETSc.Vec], Trace]]]
register(
    Solver(
        "deflated-16",
        "-ksp_type python -ksp_python_type petsc_dcdm.studies.paper.deflation.KSP -ksp_norm_type unpreconditioned "
        "-pc_type none",
        needs="box",
    )
)
RIVALS = {"CG": "cg", "deflated PCG (16)": "deflated-16", "IC PCG": "icc"}
"""Name in the tables -> the solver's in the comparison."""


@dataclass
class Row:
    """One solver on one system: iterations and solve time to each tolerance (None where it was not reached).

    `frame` numbers the positions of a moving obstacle. Times are in seconds.
    """

    scene: str
    frame: int
    size: int
    unknowns: int
    rhs: str
    solver: str
    setup_s: float
    iterations: list[int | None]
    solve_s: list[float | None]
    seconds_per_iteration: float
    matmult_s: float
    true_relative_residual: float
    residuals: list[float]


def solvers(models: dict[str, str]) -> dict[str, tuple[Solver, str]]:
    """Name in the tables -> a solver and the network of ours, if it is ours.

    `models` maps the names of the networks in the table to `-pc_dcdm_model`.
    """
    ours = {f"DCDM, {name}": (BASELINES["dcdm"], model) for name, model in models.items()}
    return ours | {name: (BASELINES[known], "") for name, known in RIVALS.items()}


def set_up_by(system: System, solver: Solver, model: str = "") -> Setup:
    """A function that sets up a KSP for the solver and returns (set-up time, solve)."""
    kept: list[PETSc.KSP] = []

    def setup() -> tuple[float, Callable[[PETSc.Vec, PETSc.Vec], Trace]]:
        for old in kept:
            old.destroy()
        kept.clear()
        prefix = f"paper_{solver.name.replace('-', '_')}_"
        if model:
            PETSc.Options()[f"{prefix}pc_dcdm_model"] = model
        start = time.perf_counter()
        ksp = new_ksp(solver, system, prefix)
        ksp.setTolerances(rtol=TOLERANCES[-1], max_it=MOST)
        ksp.setFromOptions()
        ksp.setUp()
        spent = time.perf_counter() - start
        kept.append(ksp)
        trace: Trace = []
        ksp.setMonitor(lambda _ksp, _its, norm: trace.append((time.perf_counter(), norm)))

        def solve(b: PETSc.Vec, x: PETSc.Vec) -> Trace:
            trace.clear()
            ksp.solve(b, x)
            return list(trace)

        return spent, solve

    return setup


def measure(system: System, rhs: dict[str, np.ndarray], models: dict[str, str], repeats: int) -> list[Row]:
    """All solvers on one system. The rows have no scene yet."""
    rows = []
    matmult = _matmult_seconds(system)
    for name, (solver, model) in solvers(models).items():
        setup = set_up_by(system, solver, model)
        spent, solve = zip(*(setup() for _ in range(2)), strict=True)
        for rhs_name, values in rhs.items():
            b = system.vector(values)
            x = b.duplicate()
            traces, times = [], []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                traces.append((start, solve[-1](b, x)))
                times.append(time.perf_counter() - start)
            norms = [norm for _, norm in traces[-1][1]]
            reached = [next((k for k, v in enumerate(norms) if v <= t * norms[0]), None) for t in TOLERANCES]
            seconds = [
                None if k is None else statistics.median(trace[k][0] - start for start, trace in traces[1:])
                for k in reached
            ]
            rows.append(
                Row(
                    scene="",
                    frame=0,
                    size=system.world.shape[0],
                    unknowns=system.unknowns,
                    rhs=rhs_name,
                    solver=name,
                    setup_s=spent[-1],
                    iterations=reached,
                    solve_s=seconds,
                    seconds_per_iteration=statistics.median(times[1:]) / max(1, len(norms) - 1),
                    matmult_s=matmult,
                    true_relative_residual=relative_residual(system.A, x, b),
                    residuals=[v / norms[0] for v in norms],
                )
            )
            for v in (b, x):
                v.destroy()
    return rows


def _matmult_seconds(system: System) -> float:
    x, y = system.A.createVecs()
    x.set(1.0)
    system.A.mult(x, y)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        system.A.mult(x, y)
        times.append(time.perf_counter() - start)
    x.destroy()
    y.destroy()
    return statistics.median(times)


def compare(size: int, mesh: Path | None, models: dict[str, str], repeats: int, only: list[str]) -> list[Row]:
    """All scenes of one size."""
    rows: list[Row] = []
    for name, make in scenes(size, mesh).items():
        if only and name not in only:
            continue
        for frame, world in enumerate(make()):
            system = assemble(world, dmda.create(world.shape, PETSc.COMM_SELF))
            new = measure(system, right_hand_sides(size), models, repeats)
            for row in new:
                row.scene, row.frame = name, frame
                print(
                    f"{size}^3 {name} {frame} {row.rhs}: {row.solver} {row.iterations} {row.solve_s}",
                    flush=True,
                )
            rows += new
            system.destroy()
    return rows


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.paper.comparison", description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="cells along an axis")
    parser.add_argument("--model", action="append", default=[], help="NAME=FILE of a network to compare, repeatable")
    parser.add_argument("--mesh", type=Path, help="surface mesh of the obstacle (default: two crossed bricks)")
    parser.add_argument("--scene", action="append", default=[], help="only this scene, repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="timed solves after one warm-up")
    parser.add_argument("--json", type=Path, help="file for the rows")
    args = parser.parse_args(arguments)
    if args.mesh is not None and not args.mesh.is_file():
        print(f"{args.mesh}: no such mesh file", file=sys.stderr)
        return 2
    models = dict(word.split("=", 1) for word in args.model) or {"cnn": "cnn", "multigrid": "multigrid"}
    rows = compare(args.size, args.mesh, models, args.repeats, args.scene)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
