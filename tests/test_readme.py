"""README and the pages of docs are right: commands run or say why not, options are those of options.py, links lead on.

Above a block of commands stands what becomes of it: `<!-- test -->`, it is run here; `<!-- run by FILE -->`, that test
runs it, small; `<!-- not run: REASON -->`.
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


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_command_is_run_or_says_why_not(page: Path) -> None:
    for language in ("bash", "python"):
        for mark, text in blocks(page, language):
            if by := re.fullmatch(r"run by (\S+)", mark):
                assert (ROOT / by[1]).is_file(), by[1]
            else:
                assert mark == "test" or re.match(r"not run: \w+ \w+", mark), f"{page.name}: {text}"
            for script in re.findall(r"\brun_scripts/[\w/]+\.\w+", text):
                assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    """Also those of journals, which were run by hand."""
    cli = (ROOT / "petsc_dcdm" / "cli.py").read_text(encoding="utf-8")
    for line in re.findall(
        r"^(?: {4}|\$ )?(?:\w+=\S+ )*((?:bash|petsc-dcdm|python) .*)$", page.read_text(), re.MULTILINE
    ):
        words = line.split()
        if words[0] == "petsc-dcdm":
            assert not words[1].islower() or f"{words[1]}" in cli, line
        elif words[1].endswith((".sh", ".py")) and "/" in words[1]:
            assert (ROOT / words[1]).is_file(), line
        elif words[1] == "-m" and words[2].startswith("petsc_dcdm."):
            module = ROOT.joinpath(*words[2].split("."))
            assert module.with_suffix(".py").is_file() or module.is_dir(), line


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
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "run_scripts").symlink_to(ROOT / "run_scripts")
    env = {"PYTHONPATH": str(ROOT), **pkg_config_path()}
    output = run_program(["bash", "-euc", text], cwd=tmp_path, env=env)
    if "ksp_converged_reason" in text:
        assert output.count("Linear solve converged") == 2 and iterations(output) <= 8, output


@pytest.mark.hosts
def test_c(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """The lines of the C example, put into PETSc's tutorial 2, choose the plugin without any option."""
    ((_, fragment),) = blocks(PROGRAMS, "c")
    source = find_tutorial("ex2.c").read_text()
    place = "  PetscCall(KSPSetFromOptions(ksp));"
    assert source.count(place) == 1
    changed = tmp_path / "ex2_changed.c"
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


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "measurements"], ids=lambda page: page.name)
def test_measurements_begin_with_their_result(page: Path) -> None:
    title, empty, result = page.read_text().splitlines()[:3]
    assert title.startswith("# ") and not empty and result.startswith("**Result.** ")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
