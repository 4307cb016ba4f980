"""What is installed: the files of wheel and sdist, and a solve with the installed package, far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from harness import ROOT, run_program

NOT_IN_THE_TREE = ("__pycache__", ".*", "build", "dist", "out", "*.egg-info")
OLDEST_SETUPTOOLS = 77  # pyproject.toml's build-system

SOLVE = """
import pathlib, petsc_dcdm
from petsc4py import PETSc
n = 12
A = PETSc.Mat().createAIJ((n**3, n**3), nnz=7)
for row in range(n**3):
    A[row, row] = 6.0
    for stride in (1, n, n * n):
        if row // stride % n < n - 1:
            A[row, row + stride] = A[row + stride, row] = -1.0
A.assemble()
x, b = A.createVecs()
b.set(1.0)
ksp = PETSc.KSP().create()
ksp.setType("python")
ksp.setPythonType("petsc_dcdm.KSP")
ksp.setOperators(A)
ksp.solve(b, x)
print(pathlib.Path(petsc_dcdm.__file__).parent, ksp.getConvergedReason() > 0)
ksp.destroy()
try:
    import petsc_dcdm.studies
except ModuleNotFoundError:
    print("no studies")
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of the tree, its sdist, and the wheel of that sdist; nothing is downloaded, the tree stays clean."""
    if int(metadata.version("setuptools").partition(".")[0]) < OLDEST_SETUPTOOLS:
        pytest.skip(f"setuptools here is older than {OLDEST_SETUPTOOLS}")
    folder = tmp_path_factory.mktemp("archives")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_IN_THE_TREE))
    shutil.copytree(ROOT / ".ci", tree / ".ci")
    build = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    made = {}
    for name, hook, source in (
        ("wheel", "build_wheel", tree),
        ("sdist", "build_sdist", tree),
        ("wheel of the sdist", "build_wheel", folder / "unpacked"),
    ):
        if name == "wheel of the sdist":
            shutil.unpack_archive(made["sdist"], source)
            (source,) = source.iterdir()
        out = folder / name.replace(" ", "-")
        run_program([sys.executable, "-c", build, hook, out], cwd=source)
        (made[name],) = out.iterdir()
    return made


def files(*folders: str) -> set[str]:
    """The files of the tree in some of its folders, relative to its root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kept = [path.relative_to(ROOT) for path in found if path.suffix not in (".pyc", ".so")]
    return {str(path) for path in kept if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_files_of_the_wheel(archives: dict[str, Path]) -> None:
    """All of the package but the studies, the file that Python reads when it starts, and nothing else; the sdist gives
    the same wheel.
    """
    wanted = {"petsc_dcdm.pth"} | {name for name in files("petsc_dcdm") if not name.startswith("petsc_dcdm/studies/")}
    for wheel in (archives["wheel"], archives["wheel of the sdist"]):
        names = zipfile.ZipFile(wheel).namelist()
        assert {name for name in names if ".dist-info/" not in name} == wanted
        assert any(name.endswith("/LICENSE") for name in names)


@pytest.mark.slow
def test_files_of_the_sdist(archives: dict[str, Path]) -> None:
    """The tree: studies, tests, scripts, pages and meshes as well, so that all checks run from it."""
    with tarfile.open(archives["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files("petsc_dcdm", "tests", "run_scripts", "docs", "meshes", ".ci")
    wanted |= {
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "LICENSE",
        "CITATION.cff",
        *(path.name for path in ROOT.glob("*.md")),
    }
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.endswith((".pyc", ".so"))]


@pytest.mark.slow
def test_files_of_an_editable_wheel(archives: dict[str, Path], tmp_path: Path) -> None:
    """For ``pip install -e``: the file that Python reads when it starts is there as well."""
    tree = tmp_path / "tree"
    shutil.unpack_archive(archives["sdist"], tree)
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    run_program([sys.executable, "-c", build, tmp_path / "out"], cwd=next(tree.iterdir()))
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert "petsc_dcdm.pth" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wheel", "wheel of the sdist"])
def test_the_installed_package_solves(name: str, archives: dict[str, Path], tmp_path: Path) -> None:
    """In a fresh environment on the same Python and with the same PETSc, from another directory."""
    venv, python = tmp_path / "venv", tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--no-index"]
    clean = {"PYTHONPATH": "", "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run_program([*pip, "--no-deps", archives[name]], env=clean, cwd=tmp_path)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    # numpy, safetensors and petsc4py are those of this environment, behind what was just installed
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "others.pth").write_text("\n".join(others))
    output = run_program([python, "-c", SOLVE], env=clean, cwd=tmp_path)
    assert output.splitlines() == [f"{site / 'petsc_dcdm'} True", "no studies"], output
    assert "multigrid" in run_program([venv / "bin" / "petsc-dcdm", "info", "multigrid"], env=clean, cwd=tmp_path)
