"""Random cases from SEED to SEED + COUNT - 1, a line each: ``mpirun -n 2 python tests/mpi/runner.py
tests/mpi/fuzz_truth.py SEED COUNT``. The driver is ``tests/truth_fuzz.py``, which counts and judges.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from petsc4py import PETSc
from truth_check import run


def main(first: int, count: int) -> None:
    head = PETSc.COMM_WORLD.getRank() == 0
    for seed in range(first, first + count):
        if head:
            print(f"case {seed}", flush=True)
        case, verdicts = run(seed)
        if head:
            found = {"seed": seed, "words": "; ".join(case.words), "solves": [asdict(v) for v in verdicts]}
            print("found " + json.dumps(found), flush=True)
        PETSc.garbage_cleanup() if hasattr(PETSc, "garbage_cleanup") else None


main(int(sys.argv[1]), int(sys.argv[2]))
