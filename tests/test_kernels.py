"""Compiling and caching the C kernels: one compiler run for many processes, read-only homes, no compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

from petsc_dcdm.models.kernels import build
from petsc_dcdm.models.kernels.build import KernelsUnavailable

SOURCE = "#include <math.h>\ndouble dcdm_test(double x) { return sqrt(x); }\n"  # quicker to compile than the kernels
LOAD = """
import pathlib, sys
from petsc_dcdm.models.kernels import build
build.SOURCE_DIRECTORY = pathlib.Path(sys.argv[1])
build.library().dcdm_test
print('numpy' in sys.modules)
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache directory, a process that has not looked for kernels yet, and a small source."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "small.c").write_text(SOURCE)
    monkeypatch.setattr(build, "SOURCE_DIRECTORY", tmp_path / "sources")
    build._load.cache_clear()
    yield tmp_path / "petsc_dcdm"
    build._load.cache_clear()


def test_compiled_once_and_then_taken_from_the_cache(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.library()
    (library,) = fresh.glob("*.so")
    build._load.cache_clear()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    build.library()
    assert library.exists()


def test_of_several_processes_one_compiles(fresh: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec cc "$@"\n')
    compiler.chmod(0o755)
    environment = {
        "XDG_CACHE_HOME": str(tmp_path),
        "CC": str(compiler),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD, tmp_path / "sources"], env=environment) for _ in range(3)
    ]
    assert [p.wait(timeout=100) for p in processes] == [0, 0, 0]
    assert sum("-shared" in line for line in log.read_text().splitlines()) == 1
    assert len(list(fresh.glob("*.so"))) == 1


@pytest.mark.parametrize("flag", ["-DOTHER", "-O2"])
def test_another_compiler_command_is_another_library(fresh: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    keys = {build._key(["/usr/bin/cc"]), build._key(["/usr/bin/cc", flag])}
    monkeypatch.setattr(build, "_processor", lambda: "another processor")
    keys.add(build._key(["/usr/bin/cc"]))
    assert len(keys) == 3


def test_unwritable_cache(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory can be made below a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.library().dcdm_test


def test_a_changed_source_is_compiled_anew(fresh: Path, tmp_path: Path) -> None:
    build.library()
    (tmp_path / "sources" / "header.h").write_text("// new")
    build._load.cache_clear()
    build.library()
    assert len(list(fresh.glob("*.so"))) == 2


def test_no_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    for _ in range(2):
        with pytest.raises(KernelsUnavailable, match="'no-such-compiler' that CC names was not found"):
            build.library()
    build._load.cache_clear()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(fresh))
    with pytest.raises(KernelsUnavailable, match=r"a C compiler \(cc, gcc or clang\) was not found"):
        build.library()


def test_failing_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'x.c:1: error: licence expired' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(KernelsUnavailable, match="could not be compiled: x.c:1: error: licence expired"):
        build.library()
    assert [p.suffix for p in fresh.iterdir()] == [".lock"]


def test_a_compiler_without_openmp_will_do(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-fopenmp*) echo "error: no OpenMP" >&2; exit 1;; esac\nexec /usr/bin/cc "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert build.library().dcdm_test


def test_loading_imports_nothing_but_the_standard_library(fresh: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-c", LOAD, fresh.parent / "sources"],
        env={"XDG_CACHE_HOME": str(fresh.parent), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "False"
