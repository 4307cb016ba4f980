"""Iterations of the plugin on everything it promises to be good at: ``python -m petsc_dcdm.studies.robustness``.

One solve to 1e-10 per system, right-hand side and seed; the history says when 1e-6 was reached, and the residual at the
end is computed from the matrix. PETSc options with one dash go to the solver, for example
``-pc_dcdm_model other.safetensors``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.grid.shape import Shape, shape_argument, size_text
from petsc_dcdm.poisson.families import families, find

if TYPE_CHECKING:
    from petsc4py import PETSc

    from petsc_dcdm.compare.systems import Problem

SEEDS = (11, 12, 13)
"""Training counts its seeds up from 1 and draws from other generators."""
TOLERANCES = (1e-6, 1e-10)
MOST_ITERATIONS = 60
MESH = Path(__file__).parents[2] / "meshes" / "fox.obj"


@dataclass(frozen=True)
class Case:
    """A row of the table: how its systems are described, and what is promised, as in families.Family.

    planar: whether there is one in 2D. attached: whether the matrix says what its null space is.
    """

    kind: str
    name: str
    limit: int | None
    more_if_smooth: int = 0
    random: bool = False
    planar: bool = True
    attached: bool = True


OTHERS = {
    "vertex": Case("vertex", "", 7, more_if_smooth=1, planar=False),
    "mesh": Case("mesh", str(MESH), 7, more_if_smooth=1, planar=False),
    "neumann_unattached": Case("family", "neumann", 8, attached=False),
}
"""What is not a family, or not as it is."""


def case_of(name: str) -> Case:
    """One of the others, or a family by its name; ValueError for neither."""
    if name in OTHERS:
        return OTHERS[name]
    family = find(name)
    return Case("family", name, family.limit, family.more_if_smooth, family.random)


def promised() -> list[str]:
    """All that something is promised of."""
    return [name for name, family in families.items() if family.limit is not None] + list(OTHERS)


def system_argument(text: str) -> str:
    """The name of a system, given to argparse."""
    try:
        case_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} Others are {', '.join(OTHERS)}.") from None
    return text


@dataclass
class Row:
    """What one system took. Lists have one entry per seed and right-hand side.

    ``iterations[tolerance]``: ``MOST_ITERATIONS + 1`` where it was not reached.
    """

    name: str
    size: str
    iterations: dict[float, list[int]] = field(default_factory=lambda: {t: [] for t in TOLERANCES})
    smooth: list[bool] = field(default_factory=list)
    residual: float = 0.0
    setup_s: float = 0.0
    solve_s: float = 0.0
    levels: int = 0
    coarse: int = 0

    def limit(self, smooth: bool) -> int | None:
        """Iterations to 1e-6 that are promised, if any are."""
        case, large = case_of(self.name), max(int(n) for n in self.size.split("x")) >= 128
        return None if case.limit is None else case.limit + case.more_if_smooth * (smooth and large)

    def worst(self, tolerance: float, smooth: bool) -> int:
        """The most iterations over the seeds."""
        return max(n for n, s in zip(self.iterations[tolerance], self.smooth, strict=True) if s == smooth)

    @property
    def misses(self) -> bool:
        """Whether some right-hand side needed more than is promised."""
        limits = {smooth: self.limit(smooth) for smooth in set(self.smooth)}
        return any(most is not None and self.worst(TOLERANCES[0], smooth) > most for smooth, most in limits.items())

    def text(self, tolerance: float) -> str:
        """The most iterations for a random and for a smooth right-hand side."""
        return " / ".join(_count(self.worst(tolerance, smooth)) for smooth in sorted(set(self.smooth)))

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        pairs = [self.text(tolerance) for tolerance in TOLERANCES]
        limit = f"{self.limit(False) or 'none'} / {self.limit(True) or 'none'}"
        return [
            self.name, self.size, *pairs, limit + (" **missed**" if self.misses else ""),
            f"{self.residual:.0e}", str(self.levels), str(self.coarse), f"{self.setup_s:.2f} + {self.solve_s:.2f}",
        ]  # fmt: skip


HEADINGS = ("system", "grid", "1e-6", "1e-10", "limit at 1e-6", "true residual", "levels", "coarse unknowns", "seconds")


def _count(iterations: int) -> str:
    return f"> {MOST_ITERATIONS}" if iterations > MOST_ITERATIONS else str(iterations)


def measure(name: str, shape: Shape, seeds: tuple[int, ...], kinds: tuple[str, ...]) -> Row:
    """Solve one system for all seeds and right-hand sides. Collective."""
    case = case_of(name)
    row = Row(name, size_text(shape, "x"))
    for seed in seeds if case.random else seeds[:1]:
        _solve(SystemSpec(case.kind, case.name, shape, seed), case.attached, kinds, row)
    return row


def _solve(spec: SystemSpec, attached: bool, kinds: tuple[str, ...], row: Row) -> None:
    """One set-up and a solve per kind of right-hand side; adds to ``row``. Collective."""
    problem, right = problem_of(spec, kinds)
    A = problem.A if attached else _without_null_space(problem.A)
    ksp = solver(A, problem.dm, TOLERANCES[-1])
    begun = time.perf_counter()
    ksp.setUp()
    row.setup_s = time.perf_counter() - begun
    levels = ksp.getPC().getPythonContext().hierarchy.levels  # before a solve may end in the net, which has none
    for kind, b in right.items():
        _one(ksp, problem, b, kind, row)
    row.levels, row.coarse = len(levels), levels[-1].unknowns
    ksp.destroy()
    problem.destroy()


def solver(A: PETSc.Mat, dm: PETSc.DMDA | None, rtol: float) -> PETSc.KSP:
    """The plugin for a matrix on a DMDA, not set up yet. Collective."""
    from petsc4py import PETSc

    from petsc_dcdm.poisson.dmda import attach

    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    if dm is not None:
        attach(ksp, dm)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=MOST_ITERATIONS)
    ksp.setFromOptions()
    return ksp


def problem_of(spec: SystemSpec, kinds: tuple[str, ...]) -> tuple[Problem, dict[str, PETSc.Vec]]:
    """The system and a right-hand side of each kind; the vertex-centred box has one of its own."""
    from petsc_dcdm.compare.systems import Problem, build
    from petsc_dcdm.poisson import dmda, mesh, rhs, scene
    from petsc_dcdm.poisson.assemble import assemble
    from petsc_dcdm.poisson.families import make
    from petsc_dcdm.poisson.pockets import seal_pockets

    if spec.kind == "vertex":
        problem = build(spec)
        return problem, {"smooth": problem.b}
    assert spec.shape is not None
    dm = dmda.create(spec.shape)
    if spec.kind == "mesh":
        world = scene.around_mesh(spec.shape, dmda.box_of(dm), mesh.place(mesh.load(spec.name), spec.shape))
    else:
        world = make(spec.name, spec.shape, spec.seed, dmda.box_of(dm))
    seal_pockets(world, dm)
    system = assemble(world, dm)
    right = {kind: rhs.make(kind, system, spec.seed) for kind in kinds}
    return Problem(system.A, next(iter(right.values())), dm, "", True, system.unknowns), right


def _without_null_space(A: PETSc.Mat) -> PETSc.Mat:
    """A copy that does not say what its null space is."""
    from petsc4py import PETSc

    return PETSc.Mat().createAIJ(A.getSizes(), csr=A.getValuesCSR(), comm=A.comm)


def _one(ksp: PETSc.KSP, problem: Problem, b: PETSc.Vec, kind: str, row: Row) -> None:
    """Solve from the problem's guess; what it took goes to ``row``. Collective."""
    from petsc_dcdm.poisson.solving import relative_residual

    norms: list[float] = []
    ksp.monitorCancel()
    ksp.setMonitor(lambda _ksp, _its, norm: norms.append(norm))
    x = b.duplicate()
    if problem.guess is not None:
        problem.guess.copy(x)
        ksp.setInitialGuessNonzero(True)
    begun = time.perf_counter()
    ksp.solve(b, x)
    row.solve_s = time.perf_counter() - begun
    size = b.norm()
    for tolerance in TOLERANCES:
        reached = [number for number, norm in enumerate(norms) if norm <= tolerance * size]
        row.iterations[tolerance].append(reached[0] if reached else MOST_ITERATIONS + 1)
    row.smooth.append(kind == "smooth")
    row.residual = max(row.residual, relative_residual(problem.A, x, b))
    x.destroy()


def show(cells: tuple[str, ...] | list[str]) -> None:
    """Print a row of a Markdown table, from the first rank. Collective."""
    from petsc4py import PETSc

    PETSc.Sys.Print("| " + " | ".join(cells) + " |", flush=True)


def main(argv: list[str]) -> int:
    """Print a Markdown table; 1 if a limit was missed or a solve did not converge."""
    from petsc_dcdm.commands.arguments import split_petsc_options

    argv, petsc_options = split_petsc_options(argv)
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.robustness", description=__doc__)
    parser.add_argument(
        "--size", type=shape_argument, nargs="+", default=[(64, 64, 64)], help="n or nx,ny[,nz] (default 64)"
    )
    parser.add_argument("--system", nargs="+", type=system_argument, default=promised(), help="default: all")
    parser.add_argument("--seed", type=int, nargs="+", default=list(SEEDS), help="default: 11 12 13")
    parser.add_argument("--rhs", nargs="+", choices=("random", "smooth"), default=["random", "smooth"])
    args = parser.parse_args(argv)
    import petsc4py

    petsc4py.init([sys.argv[0], *petsc_options])
    show(HEADINGS)
    show(["---"] * len(HEADINGS))
    missed = False
    for shape in args.size:
        for name in args.system:
            if shape[0] == 1 and not case_of(name).planar:
                continue
            row = measure(name, shape, tuple(args.seed), tuple(args.rhs))
            show(row.cells)
            missed |= row.misses
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
