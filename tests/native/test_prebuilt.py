"""Kernels compiled ahead: found without a compiler, right for the processor, not from where others can write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from harness import ROOT, run_program

from petsc_dcdm.native import build, prebuilt

SOLVE = """
import sys
sys.path.insert(0, "tests")
from systems import poisson, right_hand_side, solve
A = poisson((8, 8, 8))
ksp, _ = solve(A, right_hand_side(A), pc_dcdm_grid="8,8,8", pc_dcdm_compile="on")
print("iterations", ksp.getIterationNumber())
print([line.split()[-1] for line in open("/proc/self/maps") if "kernels-" in line][0])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("kernels")
    libraries = build.compile_for_all(directory)
    assert len(libraries) == len(prebuilt.targets()) > 0
    assert sorted(directory.iterdir()) == sorted(libraries)
    return directory


def without_compiler(directory: Path, home: Path) -> str:
    env = {"CC": "no-such-compiler", "XDG_CACHE_HOME": str(home), prebuilt.DIRECTORY_VARIABLE: str(directory)}
    return run_program([sys.executable, "-c", SOLVE], env=env, cwd=ROOT, expect=None)


def test_a_solve_without_a_compiler(made, tmp_path):
    said = without_compiler(made, tmp_path)
    best = next(t for t in prebuilt.targets() if t.needs <= prebuilt.processor_features())
    assert f"-{best.name}.so" in said and "iterations" in said
    assert not list(tmp_path.iterdir())


def test_an_older_processor_takes_what_it_can_run(made, monkeypatch):
    files = build._all_files()
    for target in prebuilt.targets():
        monkeypatch.setattr(prebuilt, "processor_features", lambda target=target: target.needs)
        assert prebuilt.find(made, files, True) == made / prebuilt.library_name(files, True, target)
    monkeypatch.setattr(prebuilt, "processor_features", frozenset)
    assert prebuilt.find(made, files, True) is None
    assert prebuilt.find(made, files[1:], True) is None, "other sources are another library"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_directory_that_others_write_to_is_not_used(made, tmp_path):
    made.chmod(0o777)
    try:
        said = without_compiler(made, tmp_path)
    finally:
        made.chmod(0o755)
    assert "others may write to" in said and "-pc_dcdm_compile on" in said
