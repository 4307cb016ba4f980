"""The README is right: its examples run, its table of options is that of options.py; and no page links to nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, RUNNER, iterations, run_program
from petsc_sources import find_tutorial, pkg_config_path
from test_architecture import BELOW

README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(number: int, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(blocks("python")[number])
    output = run_program([sys.executable, script], cwd=tmp_path)
    steps = re.search(r"(\d+) iterations", output)
    assert steps and 1 <= int(steps[1]) <= 15, output
    assert run_program([sys.executable, RUNNER, script], cwd=tmp_path)  # and when PETSc ends before Python


@pytest.mark.hosts
@pytest.mark.parametrize("number", range(len(blocks("bash"))))
def test_bash(number: int, tmp_path: Path, tutorial: Callable[[str], Path]) -> None:
    tutorial("ex45.c")  # skips where PETSc's tutorials or mpicc are not
    (tmp_path / ".venv").symlink_to(sys.prefix)
    output = run_program(["bash", "-euc", blocks("bash")[number]], cwd=tmp_path, env=pkg_config_path())
    assert output.count("Linear solve converged") == 2 and iterations(output) <= 8, output


@pytest.mark.hosts
def test_c(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """The lines of the C example, put into PETSc's tutorial 2, choose the plugin without any option."""
    (fragment,) = blocks("c")
    source = find_tutorial("ex2.c").read_text()
    place = "  PetscCall(KSPSetFromOptions(ksp));"
    assert source.count(place) == 1
    changed = tmp_path / "ex2_changed.c"
    changed.write_text(source.replace(place, fragment + place))
    output = run_program([build(changed), "-m", "40", "-n", "30", "-ksp_converged_reason", "-ksp_view"])
    assert iterations(output) <= 8 and "petsc_dcdm.KSP" in output, output


def test_options_table() -> None:
    options = pytest.importorskip("petsc_dcdm.solver.options")
    rows = dict(re.findall(r"^\| `-(\w+)` \| (?:`(.*?)` )?\|", README, re.MULTILINE))
    declared = (*options.KSP_OPTIONS, *options.PC_OPTIONS)
    assert rows == {option.name: "" if option.default is None else str(option.default) for option in declared}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_that_are_named_exist() -> None:
    """In sources and scripts too: a page that has moved leaves no reference behind."""
    named = [*PAGES, *(ROOT / "run_scripts").glob("*.sh")]
    named += [path for folder in ("petsc_dcdm", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in named:
        for target in re.findall(r"\bdocs/[\w/.-]*\w", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{path.relative_to(ROOT)} names {target}"


def test_docstrings_name_no_page_that_readers_do_not_have() -> None:
    """Comments and docstrings refer to this repository or to papers."""
    sources = [path for kind in ("*.py", "*.c", "*.h") for path in (ROOT / "petsc_dcdm").rglob(kind)]
    assert not [path.name for path in sources if re.search(r"\bDESIGN\b", path.read_text(encoding="utf-8"))]


def test_table_of_folders() -> None:
    """docs/architecture.md says of every folder what it may import, as tests/test_architecture.py holds it to."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| .* \|(.*) \|$", page, re.MULTILINE)
    assert {folder: set(re.findall(r"\w+", below)) for folder, below in rows} == BELOW


def test_lines_of_prose_are_short() -> None:
    for page in PAGES:
        prose = (line for line in page.read_text().splitlines() if not line.lstrip().startswith("|"))
        assert not [line for line in prose if len(line) > 120], page.name


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "measurements"], ids=lambda page: page.name)
def test_measurements_begin_with_their_result(page: Path) -> None:
    title, empty, result = page.read_text().splitlines()[:3]
    assert title.startswith("# ") and not empty and result.startswith("**Result.** ")
