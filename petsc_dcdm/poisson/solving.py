"""One timed solve of an assembled system and its report: what the command line and the demo share."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from petsc4py import PETSc

RTOL = 1e-6


@dataclass
class Result:
    """What one solve took. All seconds are wall-clock between points where all ranks were.

    Attributes
    ----------
    residual
        |b - A x| / |b|, recomputed from the matrix in double precision.
    history
        (seconds since the solve began, residual norm / |b|) of every iteration, on this rank's clock.
    """

    name: str
    unknowns: int
    iterations: int
    setup_s: float
    solve_s: float
    residual: float
    reason: str
    history: list[tuple[float, float]] = field(default_factory=list, repr=False)

    @property
    def converged(self) -> bool:
        return self.reason.startswith("CONVERGED")


def reason_name(number: int) -> str:
    """The name PETSc prints for a converged reason."""
    names = PETSc.KSP.ConvergedReason
    if number == names.DIVERGED_MAX_IT:
        return "DIVERGED_ITS"
    prefixes = ("CONVERGED_", "DIVERGED_")
    return next((n for n in dir(names) if n.startswith(prefixes) and getattr(names, n) == number), str(number))


def relative_residual(A: PETSc.Mat, x: PETSc.Vec, b: PETSc.Vec) -> float:
    """|b - A x| / |b|, taken with the matrix; where b is 0, |A x|. Collective."""
    r = b.duplicate()
    A.mult(x, r)
    r.aypx(-1.0, b)
    size = r.norm() / (b.norm() or 1.0)
    r.destroy()
    return float(size)


def describe(ksp: PETSc.KSP) -> str:
    """Types of a KSP and its PC as on the command line: "cg + hypre", "petsc_dcdm.KSP"."""

    def name(thing: PETSc.KSP | PETSc.PC) -> str:
        kind = thing.getType()
        return thing.getPythonType() if kind == "python" else kind

    parts = [name(ksp), name(ksp.getPC())]
    return parts[0] if parts == ["petsc_dcdm.KSP", "petsc_dcdm.PC"] else " + ".join(parts)


def solve(ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, name: str = "", unknowns: int | None = None) -> Result:
    """Set up and solve with a KSP that has its operators and options. Collective. ``x`` gets the solution.

    name: of the solver in the report, its types if empty. unknowns: rows of the matrix if None.
    """
    comm = b.comm.tompi4py()
    norm_b = b.norm()
    history: list[tuple[float, float]] = []

    def now() -> float:
        comm.barrier()
        return time.perf_counter()

    x.set(0.0)
    start = now()
    ksp.setUp()
    ready = now()
    ksp.setMonitor(lambda _, its, norm: history.append((time.perf_counter() - ready, norm / (norm_b or 1.0))))
    ksp.solve(b, x)
    end = now()
    ksp.monitorCancel()
    return Result(
        name or describe(ksp),
        b.getSize() if unknowns is None else unknowns,
        ksp.getIterationNumber(),
        ready - start,
        end - ready,
        relative_residual(ksp.getOperators()[0], x, b),
        reason_name(ksp.getConvergedReason()),
        history,
    )


def result_json(title: str, result: Result, comm: PETSc.Comm) -> str:
    """One JSON object: the system's title, ranks, and the fields of the result, its history included."""
    facts = {"system": title, "ranks": comm.getSize(), **asdict(result), "converged": result.converged}
    return json.dumps(facts, indent=1)


def print_table(title: str, results: Sequence[Result], comm: PETSc.Comm) -> None:
    """A table of results for people, on rank 0."""
    if comm.rank:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("solver", no_wrap=True)
    for column in ("unknowns", "iterations", "set-up", "solve", "total", "residual"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.name,
            f"{result.unknowns:,}",
            str(result.iterations),
            f"{result.setup_s:.3f} s",
            f"{result.solve_s:.3f} s",
            f"{result.setup_s + result.solve_s:.3f} s",
            f"{result.residual:.1e}",
        )
    console = Console()
    console.print(table)
    for result in results:
        if not result.converged:
            console.print(f"[red]{result.name} did not converge: {result.reason}[/]")
