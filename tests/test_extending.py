"""The examples of docs/extending.md run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from harness import ROOT, run_program

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"^<!-- test: (\w+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
KINDS = ("network", "backend", "rival", "family", "stencil")


def test_every_kind_has_an_example() -> None:
    assert tuple(EXAMPLES) == KINDS and len(EXAMPLES) == PAGE.count("```python")


@pytest.mark.parametrize("kind", KINDS)
def test_example(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(EXAMPLES[kind])
    path = {"PYTHONPATH": str(ROOT)}
    assert run_program([sys.executable, script], cwd=tmp_path, env=path).strip(), "an example prints what it found"


def test_files_that_are_named_exist() -> None:
    """In the tables; NAME stands for what is new, and a star for several files."""
    for name in re.findall(r"^\| `([\w/.*]+)`", PAGE, re.MULTILINE):
        if "NAME" not in name:
            assert list(ROOT.glob(name)), name
