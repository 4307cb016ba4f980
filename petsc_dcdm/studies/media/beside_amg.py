"""Iterations beside those of BoomerAMG: ``python -m petsc_dcdm.studies.media.beside_amg``.

Both solve every system to 1e-10, from the same matrix and right-hand sides on the same ranks, and the residuals they
end at are taken with the matrix. PETSc options with one dash go to both; ``amg_`` is the prefix of BoomerAMG's. Times
are those of the machine as it is.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from petsc_dcdm.compare.baselines import BASELINES
from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.shape import Shape, shape_argument, size_text
from petsc_dcdm.poisson.families import families, find
from petsc_dcdm.studies.media.foreign import NAMES as FOREIGN

if TYPE_CHECKING:
    from petsc4py import PETSc

    from petsc_dcdm.compare.systems import Problem

TOLERANCES = (1e-6, 1e-10)
MORE = 1
"""Iterations to 1e-6 more than BoomerAMG's that are within what is promised."""
MOST_ITERATIONS = 200
RIVAL = "boomeramg-tuned"
HEADINGS = ("system", "grid", "right-hand side", "1e-6", "1e-10", "true residuals", "set-up, solve (s)", "by")


class Ran(NamedTuple):
    """One solve: iterations to each of `TOLERANCES`, None where it was not reached; |b - A x| / |b| at the end."""

    iterations: list[int | None]
    residual: float
    seconds: str = ""


def short_of(ours: Ran, rival: Ran) -> str:
    """What of the promises is missed: iterations to 1e-6, and a residual of 1e-10 wherever the rival has one. Where it
    claims 1e-6 and does not have it, x holds no more in double precision, and there is nothing to compare.
    """
    few, at_most = ours.iterations[0], rival.iterations[0]
    missed = []
    if at_most is not None and rival.residual <= TOLERANCES[0] and (few is None or few > at_most + MORE):
        missed.append("iterations")
    limit = TOLERANCES[-1] * (1 + 1e-6)
    if rival.residual <= limit < ours.residual:
        missed.append("residual")
    return ", ".join(missed)


def _solver(A: PETSc.Mat, dm: PETSc.DMDA | None, rtol: float, ours: bool) -> PETSc.KSP:
    """Not set up yet. Collective."""
    from petsc4py import PETSc

    from petsc_dcdm.solver.options import option_defaults
    from petsc_dcdm.studies.robustness import solver

    if ours:
        return solver(A, dm, rtol)
    words = BASELINES[RIVAL].options.split()
    ksp = PETSc.KSP().create(A.comm)
    ksp.setOptionsPrefix("amg_")
    ksp.setOperators(A)
    with option_defaults("amg_", {name[1:]: value for name, value in zip(words[::2], words[1::2], strict=True)}):
        ksp.setFromOptions()
    ksp.setTolerances(rtol=rtol, atol=0.0)
    return ksp


def _run(problem: Problem, b: PETSc.Vec, rtol: float, ours: bool) -> tuple[Ran, str]:
    """Set-up and one solve from 0, and what gave the directions if they are ours. Collective."""
    from petsc_dcdm.poisson.solving import relative_residual

    ksp, A = _solver(problem.A, problem.dm, rtol, ours), problem.A
    norms: list[float] = []
    ksp.setTolerances(max_it=MOST_ITERATIONS)
    ksp.setMonitor(lambda _ksp, _its, norm: norms.append(norm))
    x, size, begun = b.duplicate(), b.norm(), time.perf_counter()
    ksp.setUp()
    ready = time.perf_counter()
    ksp.solve(b, x)
    seconds = f"{ready - begun:.2f}, {time.perf_counter() - ready:.2f}"
    reached = [next((its for its, norm in enumerate(norms) if norm <= t * size), None) for t in TOLERANCES]
    ran, by = Ran(reached, relative_residual(A, x, b), seconds), _by(ksp) if ours else ""
    x.destroy()
    ksp.destroy()
    return ran, by


def _by(ksp: PETSc.KSP) -> str:
    """What gave our directions: levels of the network and unknowns below them, and the net if it was needed."""
    context = ksp.getPC().getPythonContext()
    if context._net.pc is not None:
        return f"net, {context._net.why}"
    levels = context.hierarchy.levels
    return f"{len(levels)} levels, {levels[-1].unknowns} left"


def measure(name: str, shape: Shape, seed: int, kinds: tuple[str, ...], rtol: float) -> list[tuple[list[str], bool]]:
    """Rows of the table for one system, and whether each misses what is promised. Collective."""
    from petsc_dcdm.studies.robustness import problem_of

    problem, right = problem_of(SystemSpec("family", name, shape, seed), kinds)
    rows = []
    for kind in kinds:
        ours, by = _run(problem, right[kind], rtol, ours=True)
        rival, _ = _run(problem, right[kind], rtol, ours=False)
        counts = zip(ours.iterations, rival.iterations, strict=True)
        its = [" / ".join("not" if n is None else str(n) for n in pair) for pair in counts]
        missed = short_of(ours, rival)
        seconds, residuals = f"{ours.seconds} / {rival.seconds}", f"{ours.residual:.1e} / {rival.residual:.1e}"
        cells = [name, size_text(shape, "x"), kind, *its, residuals, seconds, by]
        rows.append(([*cells, f"**{missed}**" if missed else ""], bool(missed)))
    problem.destroy()
    return rows


def main(argv: list[str]) -> int:
    """Print a Markdown table, ours / BoomerAMG's; 1 if something promised is missed."""
    from petsc_dcdm.commands.arguments import split_petsc_options

    argv, petsc_options = split_petsc_options(argv)
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.media.beside_amg", description=__doc__)
    parser.add_argument("--size", type=shape_argument, nargs="+", default=[(64, 64, 64)], help="default: 64")
    own = [name for name in families if name not in FOREIGN]
    parser.add_argument(
        "--system", nargs="+", choices=[*own, *FOREIGN, "all", "foreign"], metavar="NAME", default=["all"],
        help="families, or media that are none of them: %(choices)s; all: all families (default)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, nargs="+", default=[11], help="default: 11")
    parser.add_argument("--rhs", nargs="+", choices=("random", "smooth"), default=["random", "smooth"])
    parser.add_argument("--rtol", type=float, default=TOLERANCES[-1], help="how far both go (default: 1e-10)")
    args = parser.parse_args(argv)
    import petsc4py

    petsc4py.init([sys.argv[0], *petsc_options])
    from petsc_dcdm.studies.robustness import show

    several = {"all": own, "foreign": list(FOREIGN)}
    names = [name for group in args.system for name in several.get(group, [group])]

    show([*HEADINGS, "missed"])
    show(["---"] * (len(HEADINGS) + 1))
    missed = False
    for shape in args.size:
        for name in names:
            for seed in args.seed if find(name).random else args.seed[:1]:
                for cells, misses in measure(name, shape, seed, tuple(args.rhs), args.rtol):
                    show([f"{cells[0]}, seed {seed}" if find(name).random else cells[0], *cells[1:]])
                    missed |= misses
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
