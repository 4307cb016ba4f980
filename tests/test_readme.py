"""README and the pages of docs are right: blocks marked `<!-- test -->` run, options are those of options.py, links
lead on. What becomes of all other commands: pages/test_commands.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, RUNNER, iterations, run_program
from petsc_sources import DEBIAN, find_tutorial, pkg_config_path
from test_architecture import BELOW

PAGES = sorted([*ROOT.glob("*.md"), *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)])
PROGRAMS = ROOT / "docs" / "guide" / "programs.md"
OWN_TESTS = {"extending.md"}  # test_extending.py
GUIDES = [page for page in PAGES if page.parent.name != "measurements" and page.name not in OWN_TESTS]


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(the comment above it, its text) of every block of code."""
    pattern = rf"(?:^<!-- ([^\n]*) -->\n)?^```{language}\n(.*?)^```$"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def marked(language: str) -> list[tuple[Path, str]]:
    """The blocks of all pages that are run here."""
    return [(page, text) for page in GUIDES for mark, text in blocks(page, language) if mark == "test"]


def named(found: object) -> str:
    return found.stem if isinstance(found, Path) else ""


@pytest.mark.parametrize("page, text", marked("python"), ids=named)
def test_python(page: Path, text: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(text)
    output = run_program([sys.executable, script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    if "ksp.solve" in text:
        steps = re.search(r"(\d+) iterations", output)
        assert steps and 1 <= int(steps[1]) <= 15, output
    # and when PETSc ends before Python
    run_program([sys.executable, RUNNER, script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.hosts
@pytest.mark.parametrize("page, text", marked("bash"), ids=named)
def test_bash(page: Path, text: str, tmp_path: Path, tutorial: Callable[[str], Path]) -> None:
    if "mpicc" in text:
        tutorial("ex45.c")  # skips where PETSc's tutorials or mpicc are not
        if str(DEBIAN) in text and DEBIAN not in find_tutorial("ex45.c").parents:
            pytest.skip("the page's commands are for Debian's PETSc")
    if "./my_petsc_code" in text:
        (tmp_path / "my_petsc_code").symlink_to(tutorial("ex45.c"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "run_scripts").symlink_to(ROOT / "run_scripts")
    env = {"PYTHONPATH": str(ROOT), **pkg_config_path()}
    output = run_program(["bash", "-euc", text], cwd=tmp_path, env=env)
    if "ksp_converged_reason" in text:
        assert output.count("Linear solve converged") == 2 and iterations(output) <= 8, output


def synopsis(name: str) -> str:
    ((_, text),) = blocks(ROOT / "docs" / "reference" / f"{name}.md", "c")
    return text


@pytest.mark.hosts
@pytest.mark.parametrize("page", ["programs", "manual"])
def test_c(page: str, tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """The lines of the C example, and those of both manual pages, in PETSc's tutorial 2 choose the plugin."""
    ((_, fragment),) = blocks(PROGRAMS, "c")
    if page == "manual":
        fragment = f"PC pc;\n{synopsis('ksp')}KSPGetPC(ksp, &pc);\n{synopsis('pc')}"
    source = find_tutorial("ex2.c").read_text()
    place = "  PetscCall(KSPSetFromOptions(ksp));"
    assert source.count(place) == 1
    changed = tmp_path / f"ex2_{page}.c"
    changed.write_text(source.replace(place, fragment + place))
    output = run_program([build(changed), "-m", "40", "-n", "30", "-ksp_converged_reason", "-ksp_view"])
    assert iterations(output) <= 8 and "petsc_dcdm.KSP" in output, output


def test_options_table() -> None:
    options = pytest.importorskip("petsc_dcdm.solver.options")
    page = (ROOT / "docs" / "guide" / "options.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `-(\w+)` \| (?:`(.*?)` )?\|", page, re.MULTILINE))
    declared = (*options.KSP_OPTIONS, *options.PC_OPTIONS)
    assert rows == {option.name: "" if option.default is None else str(option.default) for option in declared}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_that_are_named_exist() -> None:
    """In sources and scripts too: a page that has moved leaves no reference behind."""
    sources = [*PAGES, *(ROOT / "run_scripts").glob("*.sh")]
    sources += [path for folder in ("petsc_dcdm", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in sources:
        for target in re.findall(r"\bdocs/(?!_build)[\w/.-]*\w", path.read_text(encoding="utf-8")):
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
        text = re.sub(r"^```text\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)  # what was printed
        prose = (line for line in text.splitlines() if not line.lstrip().startswith("|"))
        assert not [line for line in prose if len(line) > 120], page.name


def test_lines_of_comments_are_short() -> None:
    """In the sources that ruff does not see."""
    kinds = ("*.sh", "*.c", "*.h", "*.F90", "*.toml", "*.yml", "*.cff", "makefile")
    folders = [ROOT / folder for folder in ("petsc_dcdm", "tests", "run_scripts", "docs", "meshes")]
    paths = [path for folder in folders if folder.exists() for kind in kinds for path in folder.rglob(kind)]
    for path in [*paths, ROOT / ".ci" / "run", ROOT / "pyproject.toml", ROOT / "CITATION.cff"]:
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = (line for line in lines if re.match(r"\s*(#|!|//|/\*|\* )", line))
        assert not [line for line in comments if len(line) > 120], path.relative_to(ROOT)


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "measurements"], ids=lambda page: page.name)
def test_measurements_begin_with_their_result(page: Path) -> None:
    title, empty, result = page.read_text().splitlines()[:3]
    assert title.startswith("# ") and not empty and result.startswith("**Result.** ")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
