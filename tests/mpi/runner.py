"""Runs a Python file on every rank: ``mpirun -n 2 python tests/mpi/runner.py tests/mpi/check_halo.py``.

The file runs as ``__main__``; then its functions named ``test_*`` are called in order, on all ranks. An
uncaught exception on any rank prints its traceback with the rank and aborts them all, so that the others do
not wait for it forever.
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
import traceback
from pathlib import Path


def finalize() -> None:
    """Ends PETSc before Python: 3.18 crashes when a Python KSP or PC outlives the interpreter."""
    if "petsc4py.PETSc" in sys.modules:
        sys.modules["petsc4py.PETSc"]._finalize()


def main() -> None:
    atexit.register(finalize)
    path = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[:0] = [str(Path(path).resolve().parent), str(Path(__file__).resolve().parent.parent)]
    from harness import clear_options
    from mpi4py import MPI

    namespace = runpy.run_path(path, run_name="__main__")
    for name, function in namespace.items():
        if name.startswith("test_") and callable(function):
            if "BOX" in os.environ:
                from petsc4py import PETSc

                PETSc.Options()["pc_dcdm_box"] = os.environ["BOX"]
            function()
            clear_options()
            if MPI.COMM_WORLD.rank == 0:
                print(f"{name}: ok", flush=True)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        failure = f"exit: {stop.code}"
    except BaseException:
        failure = traceback.format_exc()
    else:
        sys.exit(0)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    print(f"rank {world.rank} of {world.size} failed\n{failure}", file=sys.stderr, flush=True)
    world.Abort(1)
