"""Every command that a page, a docstring or the head of a script shows is run by a test, or it is said why not here.

Above a block of commands or code stands what becomes of it. `test`: tests/test_readme.py runs it as it stands (`test:
NAME`: tests/test_extending.py); `run by FILE`: that test runs it, small; `not run: REASON`. For every program, wherever
it is named, the table below has the same; its options are those it takes, and what a script starts takes what the
script says.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import shown
from harness import ROOT, run_program
from shown import PAGES, PYTHON, SCRIPTS, Block, Command, blocks, prose

RUN_BY = {
    "petsc-dcdm check": "tests/commands/test_check.py",
    "petsc-dcdm compare": "tests/compare/test_compare.py",
    "petsc-dcdm flow": "tests/flow/test_flow.py",
    "petsc-dcdm info": "tests/poisson/test_poisson_io.py",
    "petsc-dcdm solve": "tests/poisson/test_poisson_io.py",
    "petsc-dcdm train": "tests/training/test_training.py",
    "petsc-dcdm warmup": "tests/poisson/test_poisson_io.py",
    "petsc_dcdm.compare.measure": "tests/compare/test_compare.py",
    "petsc_dcdm.compare.tables": "tests/compare/test_compare.py",
    "petsc_dcdm.studies.ablation": "tests/studies/test_ablation.py",
    "petsc_dcdm.studies.cavity": "tests/flow/test_cavity.py",
    "petsc_dcdm.studies.compact": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.demo": "tests/studies/test_demo.py",
    "petsc_dcdm.studies.floor": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.fourier": "tests/studies/test_fourier.py",
    "petsc_dcdm.studies.gpu.kernels": "tests/backends/test_gpu_compiled.py",
    "petsc_dcdm.studies.gpu.roofline": "tests/backends/test_gpu_compiled.py",
    "petsc_dcdm.studies.paper.ablation": "tests/studies/test_paper.py",
    "petsc_dcdm.studies.paper.comparison": "tests/studies/test_paper.py",
    "petsc_dcdm.studies.paper.report": "tests/studies/test_paper.py",
    "petsc_dcdm.studies.media.beside_amg": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.profile": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.race": "tests/studies/test_race.py",
    "petsc_dcdm.studies.reach": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.robustness": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.scaling": "tests/studies/test_journals.py",
    "petsc_dcdm.studies.small": "tests/studies/test_journals.py",
    "docs/figures/make_figures.py": "tests/pages/test_site.py",
    "run_scripts/check_native.sh": "tests/native/test_native_checks.py",
    "run_scripts/gpu_check.py": "tests/backends/test_gpu_petsc.py",
    "run_scripts/setup.sh": "tests/test_scripts.py",
}
RUN_BY |= {
    f"run_scripts/gallery/{path.name}": "tests/gallery/test_gallery.py"
    for path in (ROOT / "run_scripts" / "gallery").glob("*.py")
    if path.name != "picture.py"  # what the others share
}
"""The test that runs a program, small; it names its module, subcommand or file."""

STARTS = {
    "run_scripts/compare_amg.sh",
    "run_scripts/demo.sh",
    "run_scripts/docs.sh",
    "run_scripts/fuzz_truth.sh",
    "run_scripts/mutations.sh",
    "run_scripts/reproduce_paper.sh",
    "run_scripts/robustness.sh",
    "run_scripts/scaling.sh",
    "run_scripts/smoke_demo.sh",
    "run_scripts/train_multigrid.sh",
}
"""Scripts that start programs of ours for minutes to hours. Here they run with a Python that notes what it is given."""

NOT_RUN = {
    "run_scripts/test.sh": "runs these tests",
    "run_scripts/test_64bit.sh": "installs another PETSc, and runs all tests",
    "run_scripts/petsc/test_newest.sh": "builds PETSc for twenty minutes, and runs all tests",
    "run_scripts/petsc/tutorials.py": "ten minutes; tests/hosts/test_tutorials.py runs some tutorials",
    "pip install": "changes the environment; tests/test_distribution.py builds and installs the wheel",
}

HERE = re.compile(r"export|cd|ls|make|mpicc|mpif90|-d|\./\w+|petsc-dcdm")
"""What blocks that a test runs as a whole have beside these; `petsc-dcdm COMMAND --help`."""
NAMED = {"petsc_dcdm.compare.measure": "run_job"}
"""How a test names a program, where that is not the last part of its name."""
VALUES = {
    "nx,ny,nz": "4,4,4",
    "N": "2",
    "NAME": "dcdm",
    "CASES": "3",
    "SEED": "0",
    "NUMBER": "1",
    "FAMILY": "mixed",
    "SIZE": "16",
}
"""For what pages have names for."""
READ_ELSEWHERE = {"petsc_dcdm.compare.measure", "petsc_dcdm.compare.tables"}
READ_ELSEWHERE |= {"petsc_dcdm.studies.gpu.kernels", "petsc_dcdm.studies.gpu.roofline"}
"""Two take files and no options; to import the others declares kernels, whose tests do so under an interpreter."""
LANGUAGES = ("bash", "python", "c")
EVERYTHING = shown.everywhere()


def program(one: Command) -> str:
    return "pip install" if one.program == "pip" else one.program


def test_every_program_is_run_or_it_is_said_why_not() -> None:
    found = {program(one): f"{one.where}: {one.line}" for one in EVERYTHING if not HERE.fullmatch(one.program)}
    known = {*RUN_BY, *STARTS, *NOT_RUN}
    assert len(known) == len(RUN_BY) + len(STARTS) + len(NOT_RUN)
    assert not {name: where for name, where in found.items() if name not in known}
    assert not known - set(found), "named nowhere"


@pytest.mark.parametrize("name", RUN_BY)
def test_the_test_runs_it(name: str) -> None:
    """As far as its text tells: the subcommand, module or script stands in it, as a word."""
    word = NAMED.get(name, Path(name).stem if "/" in name else re.split(r"[ .]", name)[-1])
    text = (ROOT / RUN_BY[name]).read_text(encoding="utf-8")
    assert re.search(rf"\b{word}\b", text), f"{RUN_BY[name]} does not run {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_becomes_of_it(page: Path) -> None:
    assert not re.findall(r"(?<=\n\n) {4}[^ \n-].*", prose(page)), "a block by indentation, without a mark"
    for block in blocks(page):
        if block.language in LANGUAGES or (block.language == "text" and block.text.startswith("-")):
            assert mark_is_true(block), f"{block.mark!r} above\n{block.text}"


def mark_is_true(block: Block) -> bool:
    if by := re.match(r"run by (tests/\S+?\.py)(, |$)", block.mark):
        return (ROOT / by[1]).is_file()
    return bool(re.fullmatch(r"test(: \w+)?", block.mark) or re.match(r"not run: \w+ \w+", block.mark))


def test_marks_name_tests_that_exist() -> None:
    for page in PAGES:
        for block in blocks(page):
            for path in re.findall(r"\b(?:tests|run_scripts|petsc_dcdm)/[\w/.]*\w", block.mark):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


class Parsed(BaseException):
    """The arguments were read, which is all that is wanted."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Sequence[str]], None]:
    """Have a program read its arguments; fails where it does not take them."""
    for module in ("torch", "scipy", "matplotlib", "petsc4py"):
        pytest.importorskip(module)
    read = argparse.ArgumentParser.parse_args

    def stop(*arguments: object, **more: object) -> None:
        read(*arguments, **more)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)

    def run(name: str, words: Sequence[str]) -> None:
        if name.startswith("petsc-dcdm "):
            name, words = "petsc_dcdm.cli", [name.split()[1], *words]
        monkeypatch.setattr(sys, "argv", [name, *words])
        main = importlib.import_module(name).main
        try:
            main(list(words)) if inspect.signature(main).parameters else main()
        except Parsed:
            pass
        except SystemExit as ended:
            assert ended.code == 0, f"{name} {' '.join(words)}"
        else:
            pytest.fail(f"{name} reads no arguments")

    return run


def given(name: str) -> set[tuple[str, ...]]:
    """The arguments that a program has somewhere; where there are only names of some, prose names the program."""
    all_words = {one.words for one in EVERYTHING if one.program == name}
    return {
        tuple(VALUES.get(word, word) for word in words)
        for words in all_words
        if words[:1] not in (("NAME",), ("KIND",))
    }


OURS = {name for name in RUN_BY if name.startswith("petsc")} - READ_ELSEWHERE


@pytest.mark.parametrize("name", sorted(OURS))
def test_it_takes_these_options(name: str, parse: Callable[[str, Sequence[str]], None]) -> None:
    for words in given(name):
        if words and words != ("--out",) and ("--size" in words or "--matrix" in words or name != "petsc-dcdm compare"):
            parse(name, words)


NOTES = """#!/bin/bash
printf '%s\\037' "${0##*/}" "$@" >> "$NOTES"
printf '\\n' >> "$NOTES"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts in a place of their own, where Python and its programs note their arguments and do nothing."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "run_scripts", root / "run_scripts", ignore=shutil.ignore_patterns("*.py", "gallery"))
    (root / "run_scripts" / "setup.sh").write_text("exit 0\n")
    (root / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "petsc-dcdm"):
        (root / ".venv" / "bin" / name).write_text(NOTES)
    (root / "bin").mkdir()
    (root / "bin" / "mpirun").write_text('while [ "${1#.venv}" = "$1" ]; do shift || exit; done\nexec "$@"\n')
    for path in [*root.glob("bin/*"), *root.glob(".venv/bin/*")]:
        path.chmod(0o755)
    return root


def started(tree: Path, script: str, words: Sequence[str]) -> list[list[str]]:
    """What a script starts: program and arguments of each."""
    notes = tree / "notes"
    notes.write_text("")
    env = {"NOTES": str(notes), "PATH": f"{tree / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run_program(["bash", tree / script, *words], cwd=tree, env=env)
    return [line.split("\037")[:-1] for line in notes.read_text().splitlines()]


@pytest.mark.parametrize("script", sorted(STARTS))
def test_a_script_starts_what_takes_its_arguments(
    script: str, tree: Path, parse: Callable[[str, Sequence[str]], None]
) -> None:
    for words in given(script):
        programs = started(tree, script, words)
        assert programs, f"{script} {words} starts nothing"
        for name, *arguments in programs:
            if name == "python":
                arguments = arguments[2:] if arguments[:2] == ["-m", "mpi4py"] else arguments
                if arguments[0] != "-m":
                    assert (ROOT / arguments[0]).is_file(), arguments[0]
                    continue
                name, *arguments = arguments[1:]
            elif name == "petsc-dcdm":
                name, *arguments = f"petsc-dcdm {arguments[0]}", *arguments[1:]
            assert name in RUN_BY or name == "sphinx", name
            if name in OURS:
                parse(name, arguments)


def test_options_of_ours_exist_wherever_they_are_named() -> None:
    """In pages, docstrings, comments and scripts."""
    options = pytest.importorskip("petsc_dcdm.solver.options")
    declared = {option.name for option in (*options.KSP_OPTIONS, *options.PC_OPTIONS)}
    inner = re.compile(r"pc_dcdm_(coarse|fallback|net)_")
    for path in [*PAGES, *PYTHON, *SCRIPTS, *(ROOT / "petsc_dcdm").rglob("*.[ch]")]:
        for name in re.findall(r"(?<![\w-])-((?:ksp|pc)_dcdm_\w+)", path.read_text(encoding="utf-8")):
            assert name in declared or inner.match(name), f"{path.relative_to(ROOT)}: -{name}"
