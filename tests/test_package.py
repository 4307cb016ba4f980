"""What importing the package does, and what it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import ROOT


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_importing_loads_neither_petsc_nor_mpi_nor_torch():
    code = "import sys, petsc_dcdm; print([m for m in ('petsc4py', 'mpi4py', 'torch', 'numpy') if m in sys.modules])"
    assert python(code).stdout == "[]\n"


def test_a_cpu_solve_does_not_load_torch():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from petsc4py import PETSc\n"
        "from systems import poisson, right_hand_side, solve\n"
        "A = poisson((20, 20, 20)); ksp, x = solve(A, right_hand_side(A))\n"
        "print(ksp.getConvergedReason() > 0, [m for m in ('torch', 'scipy', 'trimesh') if m in sys.modules])\n"
    )
    result = python(code)
    assert result.stdout == "True []\n", result.stderr


@pytest.mark.parametrize("model, forbidden", [("multigrid", ("torch", "rich")), ("cnn", ("rich",))])
def test_a_solve_without(model: str, forbidden: tuple[str, ...]) -> None:
    """On a machine where an import of torch or rich fails; the published network is written in torch."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {forbidden}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from petsc4py import PETSc\n"
        "from systems import poisson, right_hand_side, solve\n"
        f"PETSc.Options()['pc_dcdm_model'] = '{model}'\n"
        "A = poisson((20, 20, 20)); ksp, x = solve(A, right_hand_side(A))\n"
        "import petsc_dcdm.poisson.solving, petsc_dcdm.poisson.families, petsc_dcdm.compare.driver\n"
        "print(ksp.getConvergedReason() > 0)\n"
    )
    result = python(code)
    assert result.stdout == "True\n", result.stderr


def test_a_command_without_rich_says_what_to_install() -> None:
    result = python("import sys; sys.modules['rich'] = None; from petsc_dcdm.cli import main; sys.exit(main(['info']))")
    assert result.returncode == 2 and "pip install rich" in result.stderr and "Traceback" not in result.stderr


def test_a_program_ends_well_with_solvers_alive():
    """Also in a cycle, which the interpreter does not take apart at its end: PETSc 3.18 crashes on those by itself."""
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from petsc4py import PETSc\n"
        "from systems import poisson, right_hand_side, solve\n"
        "A = poisson((20, 20, 20)); ksp, x = solve(A, right_hand_side(A))\n"
        "alone = PETSc.PC().create(); alone.setOperators(A); alone.setType('python')\n"
        "alone.setPythonType('petsc_dcdm.PC'); alone.setUp()\n"
        "cycle = [ksp, alone]; cycle.append(cycle); sys.exit(5)"
    )
    result = python(code)
    assert result.returncode == 5 and not result.stderr, result.stderr


def test_a_missing_petsc4py_gives_a_sentence():
    result = python("import sys; sys.modules['petsc4py'] = None; import petsc_dcdm; petsc_dcdm.KSP")
    assert result.returncode == 1 and "it needs petsc4py and mpi4py" in result.stderr


def test_an_unknown_name_lists_what_there_is():
    result = python("import petsc_dcdm; petsc_dcdm.ksp_")
    assert "it has KSP, PC, load_model" in result.stderr


def test_the_networks_run_without_petsc():
    blocked = "import sys; sys.modules['petsc4py'] = sys.modules['mpi4py'] = None\n"
    assert (
        python(
            blocked + "import petsc_dcdm.network.multigrid, petsc_dcdm.network.cnn, petsc_dcdm.training.train"
        ).returncode
        == 0
    )


def test_the_version_is_told_once() -> None:
    """Where it has to be repeated it is that of the package."""
    import petsc_dcdm

    assert f"\nversion: {petsc_dcdm.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {petsc_dcdm.__version__}" in (ROOT / "CHANGELOG.md").read_text()
