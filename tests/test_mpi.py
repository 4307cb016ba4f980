"""Runs each file ``tests/mpi/check_*.py`` under mpirun: its ``test_*`` functions, on all ranks together.

A line ``RANKS = (1, 2, 4)`` in the file says on how many ranks (2 without it), ``TIMEOUT = 200`` gives it other than
120 seconds, ``NEEDS = "hypre"`` names a package that PETSc must have been built with. Every rank has a box of its own,
as ranks of different nodes would, except where a line ``BOX = "auto"`` says otherwise.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from harness import ROOT, mpirun
from petsc4py import PETSc


def constant(path: Path, name: str, default):
    """The literal that ``path`` assigns to ``name``, read without running the file."""
    found = re.search(rf"^{name}\s*=\s*(.+?)\s*(?:#.*)?$", path.read_text(), re.MULTILINE)
    return ast.literal_eval(found.group(1)) if found else default


FILES = sorted((ROOT / "tests" / "mpi").glob("check_*.py"))
CASES = [(path, ranks) for path in FILES for ranks in constant(path, "RANKS", (2,))]


@pytest.mark.mpi
@pytest.mark.parametrize("path, ranks", CASES, ids=[f"{p.stem.removeprefix('check_')}-{n}" for p, n in CASES])
def test_file(path: Path, ranks: int) -> None:
    needed = constant(path, "NEEDS", None)
    if needed and not PETSc.Sys.hasExternalPackage(needed):
        pytest.skip(f"this PETSc has no {needed}")
    mpirun(ranks, path, timeout=constant(path, "TIMEOUT", 120), env={"BOX": constant(path, "BOX", "rank")})
