"""`petsc-dcdm check`: whether a matrix will be served, how its grid was found, what is odd, and what a solve takes."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from petsc4py import PETSc

SERVED, NOT_CONVERGED, REFUSED = 0, 1, 3

EPILOG = (
    "Exit code: 0 served and converged, 1 served and not converged, 2 bad input, 3 refused. Every option with a single "
    "dash goes to PETSc."
)


def add_check_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``check``; the parsed arguments carry the function to call as ``run``."""
    parser = subparsers.add_parser("check", help="will a matrix be served, and how", epilog=EPILOG)
    parser.add_argument("matrix", metavar="A.bin", help="a matrix written with -ksp_view_mat binary:A.bin")
    parser.add_argument("--rhs", metavar="b.bin", help="a right-hand side (default: random)")
    parser.add_argument("--seed", type=int, default=0, help="of a random right-hand side")
    parser.add_argument("--grid", metavar="NX,NY[,NZ]", help="cells of the grid, if the matrix cannot tell")
    parser.add_argument("--cells", metavar="cells.bin", help="index set: cell number of each row")
    parser.add_argument("--fallback", metavar="PC", default="gamg", help="tried where it is refused (default gamg)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Set up, solve and report. Collective. Returns the exit code; ValueError on bad input."""
    import petsc4py

    petsc4py.init(["petsc-dcdm", *args.petsc_options])
    from petsc4py import PETSc

    from petsc_dcdm.commands.files import system_of_files
    from petsc_dcdm.commands.petsc_options import say_unused
    from petsc_dcdm.grid.errors import UnsupportedSystem
    from petsc_dcdm.solver.petsc_build import require_real_double

    require_real_double(PETSc.COMM_WORLD, "KSP")
    A, b = system_of_files(args)
    rows = A.getSize()[0]
    facts: dict[str, Any] = {
        "matrix": args.matrix,
        "rows": rows,
        "entries_per_row": round(A.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"] / max(rows, 1), 2),
    }
    ksp = _solver(A, {"ksp_type": "python", "ksp_python_type": "petsc_dcdm.KSP"})
    A.comm.tompi4py().barrier()
    start = time.perf_counter()
    try:
        ksp.setUp()
        code = SERVED
    except (UnsupportedSystem, PETSc.Error) as problem:
        facts |= {"served": False, "refusal": str(problem.__cause__ or problem)}
        code = REFUSED
    if code == SERVED:
        setup = time.perf_counter() - start
        facts |= {"served": True, **_found(ksp.getPC().getPythonContext())}
        facts["solve"] = {**_solved(ksp, b), "setup_s": setup}
        code = SERVED if facts["solve"]["converged"] else NOT_CONVERGED
    elif A.getSize()[0] == A.getSize()[1] and b.norm() < float("inf"):
        other = _solver(A, {"ksp_type": "gcr", "pc_type": args.fallback})
        facts["fallback"] = {"pc": args.fallback, **_solved(other, b)}
        other.destroy()
    ksp.destroy()
    say_unused(args.petsc_options, A.comm)
    if A.comm.rank == 0:
        print(json.dumps(facts, indent=1) if args.json else _text(facts))
    return code


def _solver(A: PETSc.Mat, types: dict[str, str]) -> PETSc.KSP:
    """A KSP with defaults that the command line goes before. Collective."""
    from petsc4py import PETSc

    from petsc_dcdm.poisson.solving import RTOL

    database = PETSc.Options()
    for name, value in types.items():
        if not database.hasName(name):
            database[name] = value
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOperators(A)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=RTOL)
    ksp.setFromOptions()
    for name in types:
        database.delValue(name)
    return ksp


def _found(context: Any) -> dict[str, Any]:
    """What set-up found out about the matrix. Collective."""
    from petsc_dcdm.grid.shape import size_text

    system, hierarchy = context.system, context.hierarchy
    fixed = int(context.layout.sum(np.array([system.fixed.rows.size]))[0])
    rings = [axis for axis, ring in zip("xyz", system.grid.periodic[::-1], strict=True) if ring]
    scaled = f"rows were scaled one by one, by factors 1 : {system.factors.spread:.3g}" if system.factors else ""
    odd = {
        f"periodic along {', '.join(rings)}": bool(rings),
        scaled: bool(scaled),
        "not of 5- or 7-point form: set up on the nearest operator that is": system.near is not None,
        "negative definite": system.scale < 0,
        "constants are a null space": system.singular,
        "constants are nearly a null space": system.nearly_closed,
        f"{fixed} rows are decided by their own diagonals": fixed > 0,
        "penalties fix some of these": system.fixed.coupled,
    }
    return {
        "grid": size_text(system.grid.shape),
        "grid_from": system.grid.source,
        "active_cells": system.active_cells,
        "odd": [what for what, so in odd.items() if so],
        "levels": [
            {
                "cells": size_text(level.global_shape),
                "unknowns": level.unknowns,
                "coarsened": "".join("xyz"[a] for a in level.coarsened),
            }
            for level in hierarchy.levels
        ],
        "coarsest_solver": hierarchy.coarse_solve.name if hierarchy.coarse is not None else None,
    }


def _solved(ksp: PETSc.KSP, b: PETSc.Vec) -> dict[str, Any]:
    """One solve in numbers. Collective."""
    from petsc_dcdm.poisson.solving import solve

    result = solve(ksp, b, b.duplicate())
    return {
        "iterations": result.iterations,
        "setup_s": result.setup_s,
        "solve_s": result.solve_s,
        "true_relative_residual": result.residual,
        "reason": result.reason,
        "converged": result.converged,
    }


def _text(facts: dict[str, Any]) -> str:
    """The facts for people, one a line."""
    lines = [f"{facts['matrix']}: {facts['rows']:,} rows, {facts['entries_per_row']} entries a row"]
    if facts["served"]:
        lines.append(f"served on a grid of {facts['grid']} cells, {facts['active_cells']:,} of them active")
        lines.append(f"the grid is from: {facts['grid_from']}")
        lines += [f"found: {odd}" for odd in facts["odd"]]
        lines += [
            f"level {i}: {level['cells']}, {level['unknowns']:,} unknowns"
            + (f", coarsened along {level['coarsened']}" if level["coarsened"] else "")
            for i, level in enumerate(facts["levels"])
        ]
        if facts["coarsest_solver"]:
            lines[-1] += f", solved by {facts['coarsest_solver']}"
    else:
        lines.append(f"refused: {facts['refusal']}")
    for kind in ("solve", "fallback"):
        if kind in facts:
            one = facts[kind]
            name = "petsc_dcdm.KSP" if kind == "solve" else f"with -pc_dcdm_fallback {one['pc']} (here: gcr)"
            lines.append(
                f"{name}: {one['iterations']} iterations, set-up {one['setup_s']:.3f} s, solve {one['solve_s']:.3f} s, "
                f"true residual {one['true_relative_residual']:.1e}, {one['reason']}"
            )
    return "\n".join(lines)
