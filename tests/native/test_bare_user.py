"""An ordinary user without HOME, without a compiler, who can write to no site-packages: right, with one warning."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, run_program

COMPILERS = ("cc", "gcc", "clang", "g++", "c++", "tcc", "icc", "icx", "mpicc", "as", "ld")

SOLVE = """
import sys
if "torch" in sys.argv:
    sys.modules["torch"] = None  # not there
from petsc4py import PETSc
n = 12
A = PETSc.Mat().create()
A.setSizes(n**3)
A.setType("aij")
A.setPreallocationNNZ(7)
for row in range(*A.getOwnershipRange()):
    A[row, row] = 6.0
    for stride in (1, n, n * n):
        if row // stride % n < n - 1:
            A[row, row + stride] = -1.0
        if row // stride % n > 0:
            A[row, row - stride] = -1.0
A.assemble()
x, b = A.createVecs()
b.set(1.0)
ksp = PETSc.KSP().create()
ksp.setOperators(A)
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setTolerances(rtol=1e-8)
ksp.solve(b, x)
r = b.duplicate()
A.mult(x, r)
r.aypx(-1.0, b)
PETSc.Sys.Print("solved", ksp.getConvergedReason() > 0 and r.norm() <= 1.01e-8 * b.norm())
ksp.destroy()
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Path]]:
    """What runs a command as that user, only PATH in the environment and on it all programs but compilers; a script."""
    folder = Path("/tmp") / f"{tmp_path_factory.getbasetemp().name}-bare-{os.getpid()}"
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for path in map(Path, ["/usr/bin", "/bin", str(Path(sys.executable).parent)]):
        for program in path.iterdir():
            here = programs / program.name
            if not here.is_symlink() and not any(program.name.endswith(name) for name in COMPILERS):
                here.symlink_to(program)
    (folder / "solve.py").write_text(SOLVE)
    folder.chmod(0o755)
    user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*user, "env", "-i", f"PATH={programs}", f"PYTHONPATH={ROOT}", "OMP_NUM_THREADS=1"]
    try:
        seen = subprocess.run([*command, sys.executable, "-c", "import petsc_dcdm, petsc4py"], capture_output=True)
    except FileNotFoundError:
        seen = None
    if seen is None or seen.returncode:
        shutil.rmtree(folder)
        pytest.skip("no setpriv, or another user cannot read this Python and this checkout")
    yield command, folder / "solve.py"
    shutil.rmtree(folder)


@pytest.mark.parametrize("ranks", [1, 2])
def test_right_with_one_warning(command, ranks: int) -> None:
    user, script = command
    mpirun = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    said = run_program([*user, *mpirun, sys.executable, script], cwd="/")
    assert "solved True" in said
    warnings = [line for line in said.splitlines() if line and not line.startswith(("solved", "mpirun: "))]
    assert len(warnings) == 1 and "a C compiler (cc, gcc or clang) was not found" in warnings[0], said


def test_a_sentence_where_torch_is_missing_too(command) -> None:
    user, script = command
    said = run_program([*user, sys.executable, script, "torch"], cwd="/", expect=1)
    assert "the network runs in torch, which is not installed here: pip install torch" in said.splitlines()[-1]
