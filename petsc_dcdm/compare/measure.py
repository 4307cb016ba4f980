"""One solver on one system in this process: ``python -m petsc_dcdm.compare.measure job.json result.json``.

A process of its own (under mpirun for several ranks) makes peak memory and set-up honest: nothing is warm that
a user's program would find cold. The driver starts it; nothing else needs to.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.compare.job import Job, Measured, SystemSpec
from petsc_dcdm.compare.systems import Problem, build, structured
from petsc_dcdm.poisson import dmda
from petsc_dcdm.poisson.solving import reason_name, relative_residual

MATMULTS, APPLIES = 21, 5
PLUGIN = ("petsc_dcdm.solver.ksp", "petsc_dcdm.solver.pc", "petsc_dcdm.backends.cpu.hierarchy")
"""What the plugin imports sooner or later in a solve on the CPU: imported, and timed, first of all."""
IN_TORCH = ("petsc_dcdm.network.multigrid", "petsc_dcdm.network.cnn")
"""The same for solvers whose options (:data:`TORCH_OPTIONS`) have the network run in torch."""
TORCH_OPTIONS = ("-pc_dcdm_model cnn", "-pc_dcdm_compile off", "-pc_dcdm_device cuda")


def _memory(key: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process in MB, summed over the ranks. Collective."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return float(MPI.COMM_WORLD.allreduce(int(line.split()[1]))) / 1024
    return float("nan")


def _release_memory() -> None:
    """Give back what the assembly left behind and start VmHWM again, so that the peak is the solver's. Python looks
    through the objects of the imports and of the assembly now: 14 ms that would fall in any solve, or in none.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        print("compare: peak memory cannot be reset here; the assembly's is included", file=sys.stderr)


def _now() -> float:
    """The time when all ranks are here."""
    MPI.COMM_WORLD.barrier()
    return time.perf_counter()


def _packages() -> frozenset[str]:
    return frozenset(name for name in ("hypre", "ml") if PETSc.Sys.hasExternalPackage(name))


class _Watch:
    """The residual norm of every iteration of the latest solve and when it was known."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._start, self._size = 0.0, 1.0

    def begin(self, size: float) -> None:
        """A solve begins now; norms are divided by ``size``."""
        self.points.clear()
        self._start, self._size = time.perf_counter(), size

    def __call__(self, ksp: PETSc.KSP, its: int, norm: float) -> None:
        self.points.append((time.perf_counter() - self._start, norm / self._size))


class _Run:
    """A KSP with the job's options, and the system that it solves now. All methods are collective."""

    def __init__(self, job: Job, problem: Problem, options: str) -> None:
        self.watch = _Watch()
        self._job = job
        database = PETSc.Options()
        database.insertString(options)
        if problem.grid and job.solver.ours:
            database["pc_dcdm_grid"] = problem.grid
        self._load(problem)
        self.ksp = self._new_ksp()

    def _load(self, problem: Problem) -> None:
        self.problem = problem
        self.x = problem.A.createVecRight()
        struct = self._job.solver.needs == "struct"
        self.operator = structured(problem.A, problem.dm) if struct else problem.A

    def _new_ksp(self) -> PETSc.KSP:
        ksp = PETSc.KSP().create()
        ksp.setTolerances(rtol=self._job.rtol, atol=0.0, max_it=self._job.max_it)
        ksp.setMonitor(self.watch)
        if self.problem.dm is not None:
            dmda.attach(ksp, self.problem.dm)
        ksp.setFromOptions()
        return ksp

    def replace(self, spec: SystemSpec) -> None:
        """Go on with another system: the same KSP if the size is the same, a new one if it is not.

        (PETSc 3.18's GAMG cannot be reset for another size.)
        """
        old, operator = self.problem, self.operator
        sizes = operator.getSizes()
        self.x.destroy()
        self._load(build(spec))
        if self.operator.getSizes() != sizes:
            self.ksp.destroy()
            self.ksp = self._new_ksp()
        self.ksp.setOperators(self.operator)
        operator.destroy()
        old.destroy()

    def solve(self, out: Measured) -> None:
        """One set-up (nothing to do if the matrix is the same) and one solve; adds what it took to ``out``."""
        problem = self.problem
        size = problem.b.norm()
        self.x.set(0.0)
        if problem.guess is not None:
            problem.guess.copy(self.x)
            self.ksp.setInitialGuessNonzero(True)
        self.ksp.setOperators(self.operator)
        start = _now()
        self.ksp.setUp()
        ready = _now()
        self.watch.begin(size)
        self.ksp.solve(problem.b, self.x)
        end = _now()
        out.setup_s.append(ready - start)
        out.solve_s.append(end - ready)
        out.iterations.append(self.ksp.getIterationNumber())
        out.reasons.append(reason_name(self.ksp.getConvergedReason()))


def measure(job: Job) -> Measured:
    """Run the job on all ranks. Collective."""
    out = Measured()
    start = time.perf_counter()
    if job.solver.ours:
        in_torch = any(option in job.solver.options for option in TORCH_OPTIONS)
        for module in PLUGIN + IN_TORCH * in_torch:
            importlib.import_module(module)
    out.import_s = MPI.COMM_WORLD.allreduce(time.perf_counter() - start, op=MPI.MAX)
    out.import_rss_mb = _memory("VmRSS")
    problem = build(job.system)
    out.unknowns = problem.unknowns
    dimension = problem.dm.getDim() if problem.dm is not None else 0
    out.skipped = job.solver.obstacle(dimension, problem.levels, _packages())
    out.options = job.solver.on(MPI.COMM_WORLD.size, problem.levels)
    if out.skipped:
        return out
    run = _Run(job, problem, out.options)
    _release_memory()
    out.system_rss_mb = _memory("VmRSS")
    for n in range(job.solves):
        if n and job.moving:
            run.replace(job.system.moved(n))
        elif n:
            _new_right_hand_side(problem, n)
        run.solve(out)
    out.history = list(run.watch.points)
    out.peak_rss_mb = _memory("VmHWM")
    out.true_relative_residual = relative_residual(run.problem.A, run.x, run.problem.b)
    out.matmult_s = _median_time(run.problem.A.mult, run.problem, MATMULTS)
    out.apply_s = _median_time(run.ksp.getPC().apply, run.problem, APPLIES)
    run.ksp.destroy()
    return out


def _new_right_hand_side(problem: Problem, n: int) -> None:
    random = PETSc.Random().create()
    random.setInterval((-1.0, 1.0))
    random.setSeed(n)
    problem.b.setRandom(random)
    random.destroy()
    if problem.A.getNullSpace():
        problem.A.getNullSpace().remove(problem.b)


def _median_time(function: Callable[[PETSc.Vec, PETSc.Vec], None], problem: Problem, times: int) -> float:
    """Median seconds of function(b, y), after a few that do not count."""
    y = problem.b.duplicate()
    taken = []
    for _ in range(times + 3):
        start = _now()
        function(problem.b, y)
        taken.append(_now() - start)
    y.destroy()
    return sorted(taken[3:])[times // 2]


def main(argv: list[str]) -> None:
    """``job.json result.json``: rank 0 writes the result."""
    job_file, result_file = argv
    out: dict[str, Any] = asdict(measure(Job.from_json(Path(job_file).read_text())))
    if MPI.COMM_WORLD.rank == 0:
        Path(result_file).write_text(json.dumps(out))


if __name__ == "__main__":
    main(sys.argv[1:])
