"""``petsc-dcdm compare``: any solvers on any system."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from petsc_dcdm.compare.baselines import BASELINES, DEFAULT, resolve
from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.shape import NOT_PERIODIC, axes_argument, shape_argument
from petsc_dcdm.native.processor import processor_facts

EXAMPLES = """examples:
  petsc-dcdm compare --family mixed --size 32 64 96 128 --ranks 1 2 --json out/mixed.json --plot out/mixed.png
  petsc-dcdm compare --mesh bunny.obj --size 128,96,96 --solver dcdm --solver ml
  petsc-dcdm compare --matrix A.bin --rhs b.bin --grid 64,64,64 --solver dcdm --solver 'mine=-ksp_type cg -pc_type gamg'
  petsc-dcdm compare --family box --size 128 --solver dcdm --solver pfmg --solver mg
  petsc-dcdm compare --family dam_break --size 96 --fluid-only --solves 20 --moving
  petsc-dcdm compare --family mixed --size 96 --solver dcdm@1 --solver gamg@2 --cold
"""


def _count(text: str) -> int:
    """A number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def add_compare_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``compare`` to the program's subcommands; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "compare",
        help="any solvers on any system: set-up and solve time, true residual, memory",
        description="Runs solvers in turn on the same system, each time in fresh processes, and prints medians.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("system").add_mutually_exclusive_group(required=True)
    what.add_argument("--family", help="a family of worlds, or module:name; --family list names them")
    what.add_argument("--mesh", type=Path, help="flow past a surface mesh (OBJ, STL, PLY)")
    what.add_argument("--vertex", action="store_true", help="the 3D Laplacian of PETSc's tutorial ex45")
    what.add_argument("--matrix", type=Path, help="a matrix written with -ksp_view_mat binary:FILE")
    more = parser.add_argument_group("more about the system")
    more.add_argument(
        "--size", type=shape_argument, nargs="+", help="grids, n or nx,ny[,nz] each: a sweep (default 64)"
    )
    more.add_argument("--seed", type=int, default=0, help="of the family and the right-hand side (default 0)")
    more.add_argument(
        "--periodic", type=axes_argument, default=NOT_PERIODIC, help="axes whose sides meet, as x,y (family, mesh)"
    )
    more.add_argument("--fluid-only", action="store_true", help="number only the fluid cells")
    more.add_argument("--rhs", default="", help="flow, random or smooth (default random); for a matrix, a file")
    more.add_argument("--grid", type=shape_argument, help="grid of a matrix file, nx,ny[,nz]")
    more.add_argument("--cells", type=Path, help="file with the cell of each row of a matrix file")
    how = parser.add_argument_group("solvers and runs")
    how.add_argument(
        "--solver",
        action="append",
        metavar="NAME[@RANKS]|OPTIONS|NAME=OPTIONS",
        help=f"repeatable; names: {', '.join(BASELINES)} (default {', '.join(DEFAULT)})",
    )
    how.add_argument("--ranks", type=_count, nargs="+", default=[1], help="numbers of MPI ranks (default 1)")
    how.add_argument("--threads", type=int, default=0, help="threads per rank (default: cores / ranks)")
    how.add_argument("--rtol", type=float, default=1e-6, help="relative residual to reach (default 1e-6)")
    how.add_argument("--max-it", type=_count, default=2000, help="iterations allowed (default 2000)")
    how.add_argument("--runs", type=_count, default=3, help="runs that count, after a warm-up (default 3)")
    how.add_argument("--solves", type=_count, default=1, help="solves in a row, times are then sums (default 1)")
    how.add_argument("--cold", action="store_true", help="no run finds our kernels compiled")
    how.add_argument("--moving", action="store_true", help="with --solves: the geometry changes every time")
    how.add_argument("--launcher", default="", help="instead of mpirun, such as 'srun -n {ranks}'")
    how.add_argument("--timeout", type=float, default=600, help="seconds for one run (default 600)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", type=Path, help="write the results, one object per solver and number of ranks")
    out.add_argument("--plot", type=Path, help="write a plot: time against size, residual against time")
    parser.set_defaults(run=run)


def systems_of(args: argparse.Namespace) -> list[SystemSpec]:
    """The systems that the arguments describe. ValueError with one sentence if they contradict each other."""
    if args.matrix:
        if args.size or args.fluid_only or args.moving or any(args.periodic):
            raise ValueError(
                "--size, --periodic, --fluid-only and --moving do not go with --matrix; its grid is given by --grid."
            )
        files = [str(path.resolve()) if path else "" for path in (args.cells, Path(args.rhs) if args.rhs else None)]
        name = str(args.matrix.resolve())
        return [SystemSpec("matrix", name, args.grid, args.seed, rhs=files[1], cells=files[0])]
    if args.grid or args.cells:
        raise ValueError("--grid and --cells describe a matrix file; the grid of a scene is given by --size.")
    if args.moving and (args.solves < 2 or args.vertex):
        raise ValueError("--moving needs a scene that can move and --solves of at least 2.")
    if args.vertex and (args.fluid_only or args.rhs or any(args.periodic)):
        raise ValueError("--vertex has no fluid cells, no periodic axes and no right-hand side but its own.")
    kind = "family" if args.family else "mesh" if args.mesh else "vertex"
    name = args.family or (str(args.mesh.resolve()) if args.mesh else "")
    shapes = args.size or [(64, 64, 64)]
    own = {"seed": args.seed, "fluid_only": args.fluid_only, "rhs": args.rhs, "periodic": args.periodic}
    return [SystemSpec(kind, name, shape, **own) for shape in shapes]


def run(args: argparse.Namespace) -> int:
    """Compare and print; 0 if this package's solvers (all, if it has none here) converged, else 1. Interrupted, it
    prints and writes what is finished and returns 130.

    ValueError, with one sentence, for arguments that make no comparison; OSError for a file that is not there.
    """
    from rich.console import Console

    from petsc_dcdm.compare.driver import Result, compare
    from petsc_dcdm.compare.report import print_tables
    from petsc_dcdm.poisson.families import catalogue, find

    console = Console(width=None if sys.stdout.isatty() else 140)
    if args.family == "list":
        print(catalogue())
        return 0
    for path in (args.mesh, args.matrix, args.cells, Path(args.rhs) if args.matrix and args.rhs else None):
        if path and not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    systems = systems_of(args)
    solvers = [resolve(text) for text in args.solver or DEFAULT]
    if args.family:
        find(args.family)
    console.print(f"{machine()}; relative residual {args.rtol:g}; medians of {args.runs} runs", highlight=False)
    results: list[Result] = []

    def finished(of_system: list[Result]) -> None:
        results.extend(of_system)
        print_tables(of_system, console)

    interrupted = False
    with console.status("starting") as status:
        try:
            compare(
                systems,
                solvers,
                args.ranks,
                rtol=args.rtol,
                max_it=args.max_it,
                runs=args.runs,
                solves=args.solves,
                moving=args.moving,
                launcher=args.launcher,
                timeout=args.timeout,
                threads=args.threads,
                cold=args.cold,
                told=status.update,
                done=finished,
            )
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        left = len(systems) - len({r.system for r in results})
        console.print(f"interrupted; {left} of {len(systems)} systems are not done", style="yellow")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([result.to_json() for result in results], indent=1) + "\n")
        console.print(f"wrote {args.json}")
    if args.plot:
        threads = f"{args.threads} threads a rank" if args.threads else "threads on all cores"
        from petsc_dcdm.compare.plots import plot

        plot(results, args.plot, args.rtol, f"{machine()}, {threads}; medians of {args.runs} runs")
        console.print(f"wrote {args.plot}")
    wanted = [r for r in results if r.solver.ours] or results
    return 130 if interrupted else 0 if all(r.converged for r in wanted) else 1


def machine() -> str:
    """Processor and number of cores."""
    model = processor_facts().get("model name", platform.machine())
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
