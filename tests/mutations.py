"""Faults planted one at a time in a copy of the tree: each must make the tests named beside it fail.

    bash run_scripts/mutations.sh [NUMBER ...]

A fault is a constant, a sign or a key that decides between right and wrong answers. Those that no test notices end the
script with an error. ``tests/test_mutations.py`` holds this list to the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Fault(NamedTuple):
    """``old`` occurs once in the file ``where`` of the package and becomes ``new``; ``tests`` are files below
    ``tests/``, or tests in them as pytest names these.
    """

    what: str
    where: str
    old: str
    new: str
    tests: str


FAULTS = (
    Fault(
        "wrong signs pass for rounding",
        "stencil/extract.py",
        "ROUNDING = 1e-9",
        "ROUNDING = 1e-3",
        "stencil/test_extract.py",
    ),
    Fault(
        "no wrong sign is rounding",
        "stencil/extract.py",
        "ROUNDING = 1e-9",
        "ROUNDING = 1e-15",
        "stencil/test_extract.py",
    ),
    Fault(
        "small s is dropped",
        "stencil/entries/report.py",
        "SUM_ROUNDING = 8 *",
        "SUM_ROUNDING = 1e7 *",
        "stencil/test_extract.py",
    ),
    Fault(
        "rounding is an s",
        "stencil/entries/report.py",
        "SUM_ROUNDING = 8 *",
        "SUM_ROUNDING = 1e-3 *",
        "stencil/test_extract.py",
    ),
    Fault("noise is an s", "stencil/extract.py", "NOISE = 0.1", "NOISE = 1e3", "stencil/test_extract.py"),
    Fault(
        "asymmetry passes",
        "stencil/forms/symmetry.py",
        "TOLERANCE = 1e-6",
        "TOLERANCE = 1e-2",
        "stencil/test_extract.py",
    ),
    Fault(
        "rounding is asymmetry",
        "stencil/forms/symmetry.py",
        "TOLERANCE = 1e-6",
        "TOLERANCE = 1e-15",
        "stencil/test_extract.py",
    ),
    Fault(
        "the sign of the matrix",
        "native/src/entries/csr_tools.c",
        "m->values[e] < 0 ? -1.0 : 1.0",
        "m->values[e] < 0 ? 1.0 : -1.0",
        "stencil/test_entries.py stencil/test_extract.py",
    ),
    Fault(
        "stiff springs are penalties",
        "native/src/entries/csr.h",
        "PENALTY = 1e6",
        "PENALTY = 1e4",
        "stencil/test_extract.py",
    ),
    Fault(
        "penalties are springs",
        "native/src/entries/csr.h",
        "PENALTY = 1e6",
        "PENALTY = 1e12",
        "stencil/test_extract.py",
    ),
    Fault(
        "weak springs hold nothing",
        "stencil/extract.py",
        "NEARLY_CLOSED = 1e-7",
        "NEARLY_CLOSED = 1e-3",
        "stencil/test_extract.py",
    ),
    Fault(
        "any vector is a null vector",
        "solver/loop/null_spaces.py",
        "TOLERANCE = 1e-8",
        "TOLERANCE = 1e-1",
        "solver/test_null_spaces.py",
    ),
    Fault(
        "no vector is a null vector",
        "solver/loop/null_spaces.py",
        "TOLERANCE = 1e-8",
        "TOLERANCE = 0.0",
        "solver/test_null_spaces.py",
    ),
    Fault(
        "a matrix is known by its address",
        "native/identity.py",
        "(thing if number is None else number), thing.stateGet()",
        "thing.handle, thing.stateGet()",
        "solver/test_reused_matrices.py",
    ),
    Fault(
        "a pattern that has changed is kept",
        "native/identity.py",
        "for o in (matrix, *beside)), changes.value)",
        "for o in (matrix, *beside)), 0)",
        "solver/test_reuse.py solver/test_reused_matrices.py",
    ),
    Fault(
        "claims on the recurrence",
        "solver/loop/one_solve.py",
        "ended.check(its, exact)",
        "ended.check(its, True)",
        "solver/test_ksp.py",
    ),
    Fault(
        "tolerances of all of b",
        "solver/loop/convergence.py",
        "= min(left, whole) if left else whole",
        "= whole",
        "solver/test_identity_rows.py",
    ),
    Fault(
        "tolerances of what is left",
        "solver/loop/convergence.py",
        "= min(left, whole) if left else whole",
        "= left",
        "solver/test_identity_rows.py solver/test_truth.py",
    ),
    Fault(
        "rounding is met early",
        "solver/loop/convergence.py",
        "ROUNDINGS = 10\n",
        "ROUNDINGS = 1e9\n",
        "solver/test_ksp.py solver/interface/test_matrix_kinds.py",
    ),
    Fault(
        "fixed rows are left in",
        "stencil/fixed.py",
        "if self.rows.size and _some_at",
        "if False and _some_at",
        "solver/test_identity_rows.py",
    ),
    Fault(
        "zero rows lose their guess",
        "stencil/fixed.py",
        "self._quotient(values, unknowns[self.rows] if self.empty.size else None)",
        "self._quotient(values)",
        "reach/test_decoupled_rows.py",
    ),
    Fault(
        "zeros at set-up are taken for the matrix",
        "solver/pc.py",
        "self._waits = all_zero(P)",
        "self._waits = False",
        "reach/test_set_up_on_zeros.py",
    ),
    Fault(
        "a grid that stored zeros have shown is kept",
        "solver/pc.py",
        "if kept[0] is not None:",
        "if False:",
        "stencil/lattice/test_grids.py",
    ),
    Fault(
        "an application's claim below rounding is refused",
        "solver/loop/convergence.py",
        "return norm <= ROUNDINGS * rounding(",
        "return 0 > ROUNDINGS * rounding(",
        "hosts/test_ground_water.py",
    ),
    Fault(
        "rows that repeat each other lie above one line, however long that is",
        "native/src/lattice/sweep.c",
        "if (n > left) n = left;",
        "(void)left;",
        "stencil/lattice/test_strands.py",
    ),
    Fault(
        "two rows may have one cell",
        "native/src/lattice/sweep.c",
        "&& pack_components(s);",
        "&& (pack_components(s), 1);",
        "stencil/lattice/test_strands.py",
    ),
    Fault(
        "line search",
        "solver/loop/steps.py",
        "alpha = slope / energy",
        "alpha = 1.05 * slope / energy",
        "solver/test_ksp.py",
    ),
    Fault("conjugation", "solver/loop/steps.py", "-beta / pAp", "beta / pAp", "solver/test_ksp.py"),
    Fault(
        "the first plane of a ring takes steps beside one of zeros",
        "native/src/cycle/outer.c",
        "if (part > 0 || l->wrap_w)\n        orthogonalise",
        "if (part > 0)\n        orthogonalise",
        "backends/test_cpu_rings.py",
    ),
    Fault(
        "cells that came round a ring of odd length have the wrong parents",
        "backends/cpu/levels.py",
        "place + (n + 1) * turn",
        "place + n * turn",
        "backends/test_cpu_rings.py",
    ),
    Fault(
        "the compiled line search",
        "backends/cpu/loop.py",
        "            slope / energy,\n",
        "            1.05 * slope / energy,\n",
        "backends/test_loop.py",
    ),
    Fault(
        "halos one cell narrow",
        "backends/cpu/hierarchy.py",
        "reach = self._steps\n",
        "reach = self._steps - 1\n",
        "backends/test_cpu_hierarchy.py",
    ),
    Fault(
        "a row is known again beside another rank's Dirichlet row",
        "native/src/entries/known_rows.h",
        "lone |= m->ghost_dirichlet[ghost];",
        "lone |= 0 * m->ghost_dirichlet[ghost];",
        "stencil/test_parts_of_rows.py",
    ),
    Fault(
        "a row like that of the line before is known beside another rank's Dirichlet row",
        "native/src/entries/known_rows.h",
        "odd |= m->ghost_dirichlet[ghost] | (uint64_t)",
        "odd |= (uint64_t)",
        "stencil/test_parts_of_rows.py",
    ),
    Fault(
        "a row like that of the line before is known beside a Dirichlet row",
        "native/src/entries/known_rows.h",
        "odd |= m->dirichlet[local] | (uint64_t)",
        "odd |= (uint64_t)",
        "stencil/test_parts_of_rows.py",
    ),
    Fault(
        "rows that are known again go on where the cells do not",
        "native/src/entries/known_rows.h",
        "t < n && (!m->cell || m->cell[r + t] == cell + t)",
        "t < n",
        "stencil/test_parts_of_rows.py",
    ),
    Fault(
        "numbers of s are changed beyond a line of own cells",
        "native/src/packed.c",
        "(!cell || cell[r + count] == c + count)",
        "(!cell || cell[r + count] >= c + count)",
        "stencil/test_renumbered.py",
    ),
    Fault(
        "what a guess had beyond walls is there in the next solve",
        "backends/cpu/loop.py",
        "not guess, self._written or guess",
        "not guess, False",
        "backends/test_loop.py",
    ),
    Fault(
        "a rank of a team does not tell the cell of its last row that others ask for",
        "stencil/ghosts.py",
        "values[begin:end]",
        "[*values[begin : end - 1], 0]",
        "test_mpi.py::test_file[node-2]",
    ),
)


def apply(fault: Fault, tree: Path) -> None:
    """Plant it in a copy of the repository."""
    path = tree / "petsc_dcdm" / fault.where
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.what}: {fault.where} has {text.count(fault.old)} times {fault.old!r}, and not once")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def caught(fault: Fault) -> bool:
    """Whether a test fails."""
    with tempfile.TemporaryDirectory(prefix="petsc_dcdm-fault-") as name:
        tree = Path(name)
        for part in ("petsc_dcdm", "tests", "meshes", "pyproject.toml", "setup.py"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, tree / part)
        apply(fault, tree)
        tests = [f"tests/{file}" for file in fault.tests.split()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tree / "cache")}
        ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        if ended.returncode not in (0, 1):
            raise RuntimeError(f"{fault.what}: pytest ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.returncode == 1


def main(wanted: list[str]) -> int:
    numbers = [int(n) for n in wanted] or range(len(FAULTS))
    missed = []
    for number in numbers:
        fault, start = FAULTS[number], time.monotonic()
        found = caught(fault)
        missed += [] if found else [fault.what]
        verdict = "caught" if found else "NOT CAUGHT"
        print(f"{number:2d} {verdict:<10} {time.monotonic() - start:5.0f} s  {fault.what} ({fault.where})", flush=True)
    print(f"{len(numbers) - len(missed)} of {len(numbers)} faults were caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
