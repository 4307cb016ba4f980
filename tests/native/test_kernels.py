"""Compiling and caching the C kernels: one compiler run for many processes, read-only homes, no compiler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import ROOT

from petsc_dcdm.native import build, structures
from petsc_dcdm.native.build import KernelsUnavailable

SOURCE = "#include <math.h>\ndouble dcdm_test(double x) { return sqrt(x); }\n"  # quicker to compile than the kernels
LOAD = """
import pathlib, sys
from petsc_dcdm.native import build
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
    monkeypatch.setattr(structures, "_mirrors", {})
    build._load.cache_clear()
    yield tmp_path / "petsc_dcdm"
    build._load.cache_clear()


def test_compiled_once_and_then_taken_from_the_cache(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.library()
    (library,) = fresh.glob("*.so")
    build._load.cache_clear()
    monkeypatch.setattr(build, "_run", lambda *_: pytest.fail("compiled again"))
    build.library()
    assert library.exists()


@pytest.fixture
def slow_compiler(fresh: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A compiler that takes its time and logs its arguments, and the environment of a process that uses it for
    three sources.
    """
    for name in ("second", "third"):
        (tmp_path / "sources" / f"{name}.c").write_text(SOURCE.replace("dcdm_test", name))
    log, compiler = tmp_path / "log", tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {log}\nsleep 0.3\nexec cc "$@"\n')
    compiler.chmod(0o755)
    return log, {"XDG_CACHE_HOME": str(tmp_path), "CC": str(compiler), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def start(environment: dict[str, str], sources: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", LOAD, sources], env=environment, start_new_session=True)


def test_several_processes_share_the_work(slow_compiler, fresh: Path, tmp_path: Path) -> None:
    log, environment = slow_compiler
    processes = [start(environment, tmp_path / "sources") for _ in range(4)]
    assert [p.wait(timeout=100) for p in processes] == [0] * 4
    lines = log.read_text().splitlines()
    made = [line.split(" -c ")[1].split()[0] for line in lines if " -c " in line]
    assert sorted(Path(source).stem for source in made) == ["second", "small", "third"]
    assert len(lines) == 4 and "-shared" in lines[-1]
    assert sorted(p.suffix for p in fresh.iterdir()) == [".lock", ".so"]


def test_a_process_that_is_killed_is_in_nobodys_way(slow_compiler, fresh: Path, tmp_path: Path) -> None:
    log, environment = slow_compiler
    victim = start(environment, tmp_path / "sources")
    deadline = time.monotonic() + 100
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    other = start(environment, tmp_path / "sources")
    os.killpg(victim.pid, signal.SIGKILL)
    assert victim.wait(timeout=100) == -signal.SIGKILL
    assert other.wait(timeout=100) == 0
    assert sorted(p.suffix for p in fresh.iterdir()) == [".lock", ".so"]


def test_a_file_system_without_locks(slow_compiler, fresh: Path, tmp_path: Path) -> None:
    _, environment = slow_compiler
    load = "import fcntl\ndef lockf(*_): raise OSError(38, 'no locks')\nfcntl.lockf = lockf\n" + LOAD
    command = [sys.executable, "-c", load, tmp_path / "sources"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [p.wait(timeout=100) for p in processes] == [0] * 3


@pytest.mark.parametrize("flag", ["-DOTHER", "-O2"])
def test_another_compiler_command_is_another_library(fresh: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    keys = {build._key(["/usr/bin/cc"]), build._key(["/usr/bin/cc", flag])}
    monkeypatch.setattr(build, "_processor", lambda: "another processor")
    keys.add(build._key(["/usr/bin/cc"]))
    assert len(keys) == 3


def test_flags_of_the_environment_come_last(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = build._key(["/usr/bin/cc"])
    source = "#ifdef PLAIN\nint dcdm_plain(void) { return 1; }\n#endif\n"
    (tmp_path / "sources" / "small.c").write_text(source)
    monkeypatch.setenv(build.FLAGS_VARIABLE, "-UPLAIN '-DPLAIN=a b'")
    assert build.library().dcdm_plain() == 1
    assert build._key(["/usr/bin/cc"]) != before


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
