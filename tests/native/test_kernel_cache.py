"""The cache of kernels: wherever a user has no home or may not write, and where others could have put something."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT
from systems import poisson, right_hand_side, solve

from petsc_dcdm.commands import info
from petsc_dcdm.native import build, cache, structures

SOURCE = "double dcdm_test(double x) { return x; }\n"  # quicker to compile than the kernels
STRANGER = 4242  # no such user
LOAD = """
import pathlib, sys
from petsc_dcdm.native import build
build.SOURCE_DIRECTORY = pathlib.Path(sys.argv[1])
build.library().dcdm_test
print(build.take_notice())
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users can look into, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """One small source, in place of ours."""
    folder = place / "sources"
    folder.mkdir()
    (folder / "small.c").write_text(SOURCE)
    monkeypatch.setattr(build, "SOURCE_DIRECTORY", folder)
    monkeypatch.setattr(structures, "_mirrors", {})
    return folder


@pytest.fixture
def fresh(sources: Path, monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[Path]:
    """The cache directory, not there yet, of a process that has not looked for kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    build._load.cache_clear()
    build._notices.clear()
    yield place / "petsc_dcdm"
    build._load.cache_clear()
    build._notices.clear()


def again() -> str | None:
    """What a process that loads the kernels now is told."""
    build._load.cache_clear()
    assert build.library().dcdm_test
    return build.take_notice()


def test_kept_and_nothing_said(fresh: Path) -> None:
    assert again() is None
    (library,) = fresh.glob("*.so")
    assert fresh.stat().st_mode & 0o777 == 0o700 and library.stat().st_mode & 0o777 == 0o755
    assert sorted(path.suffix for path in fresh.iterdir()) == [".lock", ".so"]


def test_both_formats_of_coefficients_are_kept(fresh: Path) -> None:
    build.library(half=True)
    build.library(half=False)
    assert len(list(fresh.glob("*.so"))) == 2


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_whatever_the_umask_is(fresh: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert again() is None and again() is None
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_write_to_is_not_used(fresh: Path, mode: int) -> None:
    fresh.mkdir()
    fresh.chmod(mode)
    notice = again()
    assert notice and f"others may write to {fresh} (mode {mode:o})" in notice and "XDG_CACHE_HOME" in notice
    assert not list(fresh.iterdir())
    assert build.take_notice() is None  # said once
    fresh.chmod(0o755)
    assert again() is None


def test_a_library_that_others_write_to_is_not_loaded(fresh: Path) -> None:
    assert again() is None
    (library,) = fresh.glob("*.so")
    library.unlink()  # not written over: this process has it loaded, and would end with a bus error
    library.write_text("planted")
    library.chmod(0o775)
    assert f"others may write to {library}" in str(again())


@as_root
def test_what_belongs_to_somebody_else_is_not_loaded(fresh: Path) -> None:
    assert again() is None
    (library,) = fresh.glob("*.so")
    os.chown(library, STRANGER, STRANGER)
    assert f"{library} belongs to user {STRANGER} and not to 0" in str(again())
    os.chown(library, 0, 0)
    os.chown(fresh, STRANGER, STRANGER)
    assert f"{fresh} belongs to user {STRANGER}" in str(again())


def test_a_link_of_ones_own_to_the_cache(fresh: Path, place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    fresh.symlink_to(place / "elsewhere")
    assert again() is None
    assert list((place / "elsewhere").glob("*.so"))


@as_root
def test_a_link_of_somebody_else_to_a_directory_of_ours(fresh: Path, place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    fresh.symlink_to(place / "elsewhere")
    os.chown(fresh, STRANGER, STRANGER, follow_symlinks=False)
    assert f"{fresh} belongs to user {STRANGER}" in str(again())
    assert not list((place / "elsewhere").iterdir())


def test_a_file_system_that_nothing_runs_from(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = build.ctypes.CDLL

    def no_exec(path: str) -> object:
        if path.startswith(str(fresh)):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(build.ctypes, "CDLL", no_exec)
    assert "failed to map segment" in str(again())


def test_a_full_file_system(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build._run

    def full(compiler: object, arguments: object, work: Path, target: Path, family: object) -> None:
        if target.is_relative_to(fresh):
            raise build.KernelsUnavailable("the C kernels could not be compiled: No space left on device")
        run(compiler, arguments, work, target)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_run", full)
    assert "No space left" in str(again())


def test_what_is_not_used_goes(fresh: Path) -> None:
    fresh.mkdir(mode=0o700)
    (fresh / "kernels-old.build").mkdir()
    (fresh / "kernels-old.build" / "small.o").write_text("")
    names = ["kernels-old.so", "kernels-old.lock", "kernels-used.so", "kernels-old.build", "mine.txt"]
    for name in names:
        path, age = fresh / name, 29 if "used" in name else 31
        path.touch()
        os.utime(path, (time.time() - age * cache.DAY,) * 2)
    assert again() is None
    left = {path.name for path in fresh.iterdir()}
    assert left & set(names) == {"kernels-used.so", "mine.txt"} and len(left) == 4
    (library,) = fresh.glob("kernels-*[!d].so")
    os.utime(library, (time.time() - 29 * cache.DAY,) * 2)
    again()
    assert time.time() - library.stat().st_mtime < cache.DAY


def stranger(sources: Path, **env: str) -> str:
    """Standard output of a process of a user who has no entry anywhere, and no HOME unless it is given."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, sources],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
    )
    if "No module named 'petsc_dcdm'" in done.stderr or "Permission denied: '/root" in done.stderr:
        pytest.skip("nobody else can read this checkout")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@as_root
def test_without_a_home(sources: Path, place: Path) -> None:
    shared = place / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    for _ in range(2):
        assert stranger(sources, TMPDIR=str(shared)) == "None"
    (kept,) = shared.iterdir()
    assert kept.name == f"petsc_dcdm-{STRANGER}" and len(list(kept.glob("*.so"))) == 1


@as_root
def test_without_a_home_where_somebody_else_was_first(sources: Path, place: Path) -> None:
    shared = place / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / f"petsc_dcdm-{STRANGER}"
    planted.mkdir()
    os.chown(planted, STRANGER + 1, STRANGER + 1)
    assert f"{planted} belongs to user {STRANGER + 1} and not to {STRANGER}" in stranger(sources, TMPDIR=str(shared))
    assert not list(planted.iterdir()) and list(shared.iterdir()) == [planted]


@as_root
def test_a_home_that_is_read_only(sources: Path, place: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o755)
    said = stranger(sources, HOME=str(home))
    assert f"can not be kept in {home}/.cache/petsc_dcdm" in said and "Permission denied" in said


@as_root
def test_what_an_administrator_has_filled_is_loaded(sources: Path, fresh: Path) -> None:
    assert again() is None
    fresh.chmod(0o755)
    assert stranger(sources, XDG_CACHE_HOME=str(fresh.parent), CC="") == "None"


def test_warmup_and_info_tell_the_truth(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dict(info._kernels())["kernel cache"].endswith("not there yet")
    assert info.warmup(argparse.Namespace(out=None)) == 0
    assert "ready" in capsys.readouterr().out
    assert "1 compiled" in dict(info._kernels())["kernel cache"]
    fresh.chmod(0o777)
    build._load.cache_clear()
    assert info.warmup(argparse.Namespace(out=None)) == 1
    out = capsys.readouterr().out
    assert "can not be kept" in out and "ready" not in out
    assert "not used, as others may write to" in dict(info._kernels())["kernel cache"]


def test_a_solve_says_it_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(build, "_notices", ["kernels can not be kept"])
    A = poisson((6, 7, 8))
    for _ in range(2):
        solve(A, right_hand_side(A))
    assert capfd.readouterr().err.count("petsc_dcdm.PC: kernels can not be kept") == 1
