"""The shell scripts: they parse, and what they cannot do they say in a sentence, before they touch anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

SCRIPTS = sorted([*(ROOT / "run_scripts").rglob("*.sh"), ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_syntax(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


def setup(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "run_scripts" / "setup.sh"), *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd="/")


@pytest.mark.parametrize("args", [("--nonsense",), ("--petsc", "homebrew")])
def test_setup_names_a_wrong_option(args: tuple[str, ...]) -> None:
    done = setup(*args)
    assert done.returncode == 2 and args[-1] in done.stderr and "existing" in done.stderr


def test_setup_help() -> None:
    assert "--petsc existing" in setup("--help").stdout


def test_existing_petsc_without_petsc4py(tmp_path: Path) -> None:
    """A Python that cannot import petsc4py is refused with the reason and what to set."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n')
    python.chmod(0o755)
    done = setup("--petsc", "existing", PYTHON=str(python))
    assert done.returncode == 1 and "No module named" in done.stderr and "PETSC_DIR" in done.stderr
    assert "Traceback" not in done.stderr
