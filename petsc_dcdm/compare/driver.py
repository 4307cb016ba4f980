"""Runs every solver of a comparison in fresh processes, in turn, and takes medians.

One round is one run of every solver on every number of ranks. The first round warms the machine (disk caches,
compiled kernels) and does not count; the others alternate, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petsc_dcdm.compare.baselines import Solver
from petsc_dcdm.compare.job import Job, Measured, SystemSpec

BOUND = "mpirun --bind-to core -n {ranks}"
FREE = "mpirun --oversubscribe --bind-to none -n {ranks}"


class RunFailed(RuntimeError):
    """A process ended without a result; the message is the last thing it said."""


@dataclass
class Result:
    """One solver on one system with one number of ranks: medians over the runs that count.

    Times of a sequence of solves are sums over it. ``spread``: smallest and largest total_s of the runs. cold: no run
    found our kernels compiled.
    problem: why there are no figures (not applicable, failed, timed out), or empty.
    """

    system: SystemSpec
    solver: Solver
    ranks: int
    solves: int = 1
    moving: bool = False
    cold: bool = False
    options: str = ""
    unknowns: int = 0
    iterations: int = 0
    setup_s: float = float("nan")
    solve_s: float = float("nan")
    total_s: float = float("nan")
    matmult_s: float = float("nan")
    apply_s: float = float("nan")
    true_relative_residual: float = float("nan")
    converged_reason: str = ""
    peak_rss_mb: float = float("nan")
    import_s: float = float("nan")
    import_rss_mb: float = float("nan")
    system_rss_mb: float = float("nan")
    spread: tuple[float, float] = (float("nan"), float("nan"))
    runs: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    problem: str = ""

    @property
    def converged(self) -> bool:
        """Whether every solve of every run met the tolerance."""
        return not self.problem and self.converged_reason.startswith("CONVERGED")

    def to_json(self) -> dict[str, Any]:
        """The object of the package's JSON contract, and after it what else is known."""
        keys = "setup_s solve_s total_s matmult_s true_relative_residual"
        out: dict[str, Any] = {
            "name": self.solver.name,
            "options": self.options or self.solver.options,
            "ranks": self.ranks,
            "unknowns": self.unknowns,
            "iterations": self.iterations,
            **{key: _number(getattr(self, key)) for key in keys.split()},
            "converged_reason": self.problem or self.converged_reason,
            "peak_rss_mb": _number(self.peak_rss_mb),
        }
        extra = "apply_s import_s import_rss_mb system_rss_mb"
        out |= {key: _number(getattr(self, key)) for key in extra.split()}
        return out | {
            "system": self.system.label,
            "grid": self.system.size,
            "solves": self.solves,
            "moving": self.moving,
            "cold": self.cold,
            "runs": self.runs,
            "total_s_min": _number(self.spread[0]),
            "total_s_max": _number(self.spread[1]),
            "history": [[round(t, 6), r] for t, r in self.history],
        }


def _number(x: float) -> float | None:
    """JSON has no NaN."""
    return x if x == x else None


def run_job(
    job: Job, ranks: int, launcher: str = "", timeout: float = 600, threads: int = 0, cold: bool = False
) -> Measured:
    """One fresh process per rank. Raises RunFailed with the last thing said, also after ``timeout`` seconds.

    launcher: command before the Python of the ranks, ``{ranks}`` in it replaced; empty: none for one rank, else
    mpirun with a core per rank if there are enough. threads: OMP_NUM_THREADS of a rank, 0
    leaves it to the solver. cold: our kernels are not compiled yet.
    """
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    env.pop("PETSC_OPTIONS", None)
    if threads:
        env["OMP_NUM_THREADS"] = str(threads)
    if os.geteuid() == 0:
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    if not launcher and ranks > 1:
        launcher = BOUND if ranks <= len(os.sched_getaffinity(0)) else FREE
    with tempfile.TemporaryDirectory() as folder:
        if cold:
            env["XDG_CACHE_HOME"] = folder
        job_file, result_file, log = (Path(folder) / name for name in ("job.json", "result.json", "log"))
        job_file.write_text(job.to_json())
        command = [
            *shlex.split(launcher.format(ranks=ranks)),
            *(sys.executable, "-m", "petsc_dcdm.compare.measure", str(job_file), str(result_file)),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                start_new_session=True,
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                _stop(process)
                raise RunFailed(f"not finished after {timeout:.0f} s") from None
            except BaseException:
                _stop(process)
                raise
        if not result_file.exists():
            raise RunFailed(_last_words(log.read_text(errors="replace"), process.returncode))
        fields = json.loads(result_file.read_text())
    fields["history"] = [(t, r) for t, r in fields["history"]]
    return Measured(**fields)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: mpirun passes it on to its ranks, which SIGKILL would leave running."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
            return
        except ProcessLookupError:  # it has just ended by itself
            return
        except subprocess.TimeoutExpired:
            continue


def _last_words(log: str, status: int) -> str:
    """The line of an output that says best why a process failed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("petsc_dcdm.")]
    # "[0] PCSetType() at ./src/..." says where, the "[0]" lines after it say what
    petsc = [line[4:] for line in lines if line.startswith("[0] ") and "() at " not in line]
    errors = [line for line in lines if "Error" in line and not line.startswith(("Traceback", "File"))]
    return (ours or petsc or errors or lines or ["said nothing"])[-1][:300] + f" (exit status {status})"


def compare(
    systems: Sequence[SystemSpec],
    solvers: Sequence[Solver],
    ranks: Sequence[int],
    *,
    rtol: float = 1e-6,
    max_it: int = 2000,
    runs: int = 3,
    solves: int = 1,
    moving: bool = False,
    launcher: str = "",
    timeout: float = 600,
    threads: int = 0,
    cold: bool = False,
    told: Callable[[str], None] = lambda text: None,
    done: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """Every solver on every system and number of ranks: a warm-up round, then ``runs`` rounds per system.

    ``told`` is called with what runs next, ``done`` with the results of each system. A solver that fails, times out or
    does not apply is not run again and its result says why.
    """
    results: list[Result] = []
    for system in systems:
        cases = [
            Result(system, solver, n, solves, moving, cold)
            for n in sorted({*ranks, *(solver.ranks for solver in solvers if solver.ranks)})
            for solver in solvers
            if n == solver.ranks or (not solver.ranks and n in ranks)
        ]
        measured_by_case: list[list[Measured]] = [[] for _ in cases]
        for turn in range(runs + 1):
            for case, measured in zip(cases, measured_by_case, strict=True):
                if case.problem:
                    continue
                where = f"{system.label} {system.size}, {case.ranks} rank{'s' * (case.ranks > 1)}"
                told(f"{where}: {case.solver.name}, {f'run {turn}' if turn else 'warm-up'}")
                job = Job(system, case.solver, rtol, max_it, solves, moving)
                try:
                    one = run_job(job, case.ranks, launcher, timeout, threads, cold)
                except RunFailed as failure:
                    case.problem = f"failed: {failure}"
                    continue
                case.problem = f"not applicable: {one.skipped}" if one.skipped else ""
                case.options, case.unknowns = one.options, one.unknowns
                if turn:
                    measured.append(one)
        of_system = [summarise(case, measured) for case, measured in zip(cases, measured_by_case, strict=True)]
        done(of_system)
        results += of_system
    return results


def summarise(case: Result, measured: Sequence[Measured]) -> Result:
    """The case with medians over its runs filled in."""
    if case.problem or not measured:
        return case

    def median(values: Sequence[float]) -> float:
        return float(statistics.median(values))

    totals = [sum(one.setup_s) + sum(one.solve_s) for one in measured]
    middle = sorted(measured, key=lambda one: sum(one.solve_s))[len(measured) // 2]
    reasons = [reason for one in measured for reason in one.reasons]
    return replace(
        case,
        iterations=round(median([sum(one.iterations) for one in measured])),
        setup_s=median([sum(one.setup_s) for one in measured]),
        solve_s=median([sum(one.solve_s) for one in measured]),
        total_s=median(totals),
        matmult_s=median([one.matmult_s for one in measured]),
        apply_s=median([one.apply_s for one in measured]),
        true_relative_residual=max(one.true_relative_residual for one in measured),
        converged_reason=next((r for r in reasons if not r.startswith("CONVERGED")), reasons[0]),
        peak_rss_mb=median([one.peak_rss_mb for one in measured]),
        import_s=median([one.import_s for one in measured]),
        import_rss_mb=median([one.import_rss_mb for one in measured]),
        system_rss_mb=median([one.system_rss_mb for one in measured]),
        spread=(min(totals), max(totals)),
        runs=len(measured),
        history=middle.history,
    )
