"""What grows with the number of ranks, a row of a table: ``mpirun -n N python -m petsc_dcdm.studies.scaling``.

``run_scripts/scaling.sh`` runs it on several rank counts. Counts of messages and reductions are exact on any machine,
oversubscribed or not; times mean something only where every rank has its cores to itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.poisson import dmda, families, rhs
from petsc_dcdm.poisson.assemble import assemble
from petsc_dcdm.poisson.pockets import seal_pockets
from petsc_dcdm.solver.threads import threads_per_rank

COLUMNS = (
    ("ranks", "ranks x threads"),
    ("boxes", "boxes x, y, z"),
    ("iterations", "iterations"),
    ("messages", "messages per iteration"),
    ("kilobytes", "kB sent per iteration"),
    ("reductions", "reductions per iteration"),
    ("setup", "set-up ms"),
    ("solve", "first solve ms"),
    ("again", "further solve ms"),
)


def _now() -> float:
    MPI.COMM_WORLD.barrier()
    return time.perf_counter()


def measure(size: int, family: str, repeats: int, rtol: float) -> dict[str, str]:
    """Solve ``family`` on ``size``^3 cells; counts of the rank that has most, medians of ``repeats`` times. Collective.

    A reduction is a global sum that all ranks wait for, or the gathering of the coarsest right-hand side. The first
    solve after a set-up takes its memory from the system, further ones do not.
    """
    comm, shape = MPI.COMM_WORLD, (size, size, size)
    dm = dmda.create(shape)
    world = families.make(family, shape, 0, dmda.box_of(dm))
    seal_pockets(world, dm)
    system = assemble(world, dm)
    b = rhs.make("random", system, 0)
    x = b.duplicate()
    setups, solves, again = [], [], []
    counts = np.zeros(3)
    for _ in range(repeats + 1):  # the first one is a warm-up
        system.A.stateIncrease()
        ksp = PETSc.KSP().create()
        system.attach(ksp)
        ksp.setType(PETSc.KSP.Type.PYTHON)
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=rtol)
        ksp.setFromOptions()
        start = _now()
        ksp.setUp()
        ready = _now()
        layout = ksp.getPC().getPythonContext().layout
        before = np.array([layout.messages, layout.bytes, layout.reductions])
        ksp.solve(b, x)
        end = _now()
        iterations = ksp.getIterationNumber()
        if ksp.getConvergedReason() <= 0:
            raise RuntimeError(f"the solve did not converge: reason {ksp.getConvergedReason()}")
        counts = (np.array([layout.messages, layout.bytes, layout.reductions]) - before) / iterations
        setups.append(ready - start)
        solves.append(end - ready)
        end = _now()
        ksp.solve(b, x)
        again.append(_now() - end)
        ksp.destroy()
    messages, size_sent, reductions = _worst(counts)
    procs = layout.boxes.procs
    system.destroy()
    return {
        "ranks": f"{comm.size} x {threads_per_rank(comm)}",
        "boxes": " ".join(str(n) for n in procs[::-1]),
        "iterations": str(iterations),
        "messages": f"{messages:.0f}",
        "kilobytes": f"{size_sent / 1000:.0f}",
        "reductions": f"{reductions + (comm.size > 1):.0f}",
        "setup": _milliseconds(setups),
        "solve": _milliseconds(solves),
        "again": _milliseconds(again),
    }


def _milliseconds(times: list[float]) -> str:
    """The median without the warm-up, if there is more than that."""
    return f"{1000 * statistics.median(times[1:] or times):.0f}"


def _worst(counts: np.ndarray) -> np.ndarray:
    out = np.empty_like(counts)
    MPI.COMM_WORLD.Allreduce(counts, out, op=MPI.MAX)
    return out


def main() -> None:
    """Print the row of this number of ranks as Markdown, with the head of the table if asked for."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.scaling", description=__doc__)
    parser.add_argument("--size", type=int, default=64, metavar="N", help="cells along each edge (default 64)")
    parser.add_argument("--family", default="mixed", help="a scene of petsc_dcdm.poisson.families (default mixed)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed solves after the first, which warms up (default 3)"
    )
    parser.add_argument("--rtol", type=float, default=1e-6, help="relative residual (default 1e-6)")
    parser.add_argument("--head", action="store_true", help="print the head of the table first")
    parser.add_argument("--counts", action="store_true", help="leave the times out: there are more ranks than cores")
    args = parser.parse_args()
    row = measure(args.size, args.family, args.repeats, args.rtol)
    if MPI.COMM_WORLD.rank:
        return
    columns = [(key, title) for key, title in COLUMNS if not (args.counts and key in ("setup", "solve", "again"))]
    if args.head:
        print("| " + " | ".join(title for _, title in columns) + " |")
        print("|" + "---|" * len(columns))
    print("| " + " | ".join(row[key] for key, _ in columns) + " |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
