"""Flow past a mesh, solved by DCDM and by BoomerAMG on the same matrix: a table and a picture.

python -m petsc_dcdm.studies.demo [--mesh meshes/fox.obj] [--size 96] [--out out/demo.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

import numpy as np
import petsc4py

petsc4py.init([])
from petsc4py import PETSc  # noqa: E402

from petsc_dcdm.compare.baselines import BASELINES, new_ksp  # noqa: E402
from petsc_dcdm.grid.shape import Shape  # noqa: E402
from petsc_dcdm.poisson import dmda, flow, mesh, rhs, scene  # noqa: E402
from petsc_dcdm.poisson.assemble import System, assemble  # noqa: E402
from petsc_dcdm.poisson.pockets import seal_pockets  # noqa: E402
from petsc_dcdm.poisson.solving import Result, print_table, solve  # noqa: E402

SOLVERS = {"dcdm": "DCDM", "boomeramg-tuned": "CG + BoomerAMG"}
RUNS = 3
RTOL, PLOTTED_RTOL = 1e-6, 1e-10
ROOT = Path(__file__).resolve().parents[2]


def build(path: Path, shape: Shape) -> tuple[System, PETSc.Vec, mesh.trimesh.Trimesh]:
    """The system, its right-hand side and the placed surface, which stands on the floor. Collective."""
    placed = mesh.place(mesh.load(path), shape, 0.62, (0.42, 0.5, 0.5))
    placed.vertices = placed.vertices - [0.0, 0.0, placed.vertices[:, 2].min()]
    dm = dmda.create(shape)
    world = scene.around_mesh(shape, dmda.box_of(dm), placed)
    seal_pockets(world, dm)
    system = assemble(world, dm)
    return system, rhs.make("flow", system), placed


def run(system: System, b: PETSc.Vec, name: str, rtol: float) -> tuple[Result, PETSc.Vec]:
    """One set-up and solve of a named solver, from nothing."""
    prefix = name.replace("-", "_") + "_"
    ksp = new_ksp(BASELINES[name], system, prefix)
    ksp.setTolerances(rtol=rtol)
    ksp.setFromOptions()
    x = b.duplicate()
    result = solve(ksp, b, x, SOLVERS[name], system.unknowns)
    ksp.destroy()
    return result, x


def compare(system: System, b: PETSc.Vec) -> tuple[list[Result], list[Result], PETSc.Vec]:
    """(medians of RUNS solves, the middle one of as many to PLOTTED_RTOL, the solution). Collective.

    The solvers take turns, so that a slow moment of the machine hits both; the first round is a warm-up.
    """
    timed: dict[tuple[str, float], list[Result]] = {(name, tol): [] for tol in (RTOL, PLOTTED_RTOL) for name in SOLVERS}
    for n in range(RUNS + 1):
        for (name, tol), results in timed.items():
            result, x = run(system, b, name, tol)
            if n:
                results.append(result)
            if n < RUNS or tol != PLOTTED_RTOL:
                x.destroy()
    medians, curves = [], []
    for name in SOLVERS:
        results = timed[name, RTOL]
        middle = results[-1]
        middle.setup_s = median(r.setup_s for r in results)
        middle.solve_s = median(r.solve_s for r in results)
        medians.append(middle)
        curves.append(sorted(timed[name, PLOTTED_RTOL], key=lambda r: r.setup_s + r.solve_s)[RUNS // 2])
    return medians, curves, x


def main(argv: list[str] | None = None) -> int:
    """Run the demo on all ranks; exit code 2 on bad input."""
    parser = argparse.ArgumentParser(description="Flow past a mesh: DCDM and BoomerAMG on the same matrix.")
    parser.add_argument("--mesh", type=Path, default=ROOT / "meshes" / "fox.obj", help="a closed surface, z up")
    parser.add_argument("--size", type=int, default=96, help="cells along each edge (default 96)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo.png", help="the picture")
    args = parser.parse_args(argv)
    comm = PETSc.COMM_WORLD
    try:
        system, b, placed = build(args.mesh, (args.size,) * 3)
    except ValueError as error:
        if comm.rank == 0:
            print(f"demo: {error}", file=sys.stderr)
        return 2
    medians, curves, x = compare(system, b)
    ranks = f"{comm.size} rank{'s' * (comm.size > 1)}"
    title = f"Flow past {args.mesh.name}, {args.size} x {args.size} x {args.size}, {ranks}, median of {RUNS} runs"
    print_table(title, medians, comm)
    pressure = system.field(x)
    velocity = flow.projected_velocity(system, pressure)
    parts = [dmda.gather(system.dm, f) for f in (pressure, system.world.fluid * 1.0, *np.moveaxis(velocity, -1, 0))]
    fields = [field for field in parts if field is not None]
    if fields:  # rank 0
        from petsc_dcdm.studies.demo_picture import draw

        args.out.parent.mkdir(parents=True, exist_ok=True)
        draw(args.out, placed, fields[0], fields[1] > 0, np.stack(fields[2:], axis=-1), medians, curves, title)
        print(f"Picture: {args.out}")
    return 0 if all(result.converged for result in medians) else 1


if __name__ == "__main__":
    sys.exit(main())
