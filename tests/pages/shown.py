"""Every command that a page, a docstring or the head of a script shows."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)])
PYTHON = sorted(
    [
        *(ROOT / "petsc_dcdm").rglob("*.py"),
        *(ROOT / "run_scripts").rglob("*.py"),
        ROOT / "tests/mutations.py",
        ROOT / "docs/figures/make_figures.py",
    ]
)
SCRIPTS = sorted((ROOT / "run_scripts").rglob("*.sh"))
STARTS = r"(?:(?:[A-Z_]+=\S+|mpirun -n \w+) )*(?:(?:bash|python|python -m|petsc-dcdm|pip|make) [a-z]|\./[a-z]\w* -)"
"""How a command begins, in prose and in docstrings; in blocks of commands every line is one."""
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """``mark``: what stands above it, in a comment."""

    page: Path
    mark: str
    language: str
    text: str


class Command(NamedTuple):
    """``program``: what is started, without interpreter and launcher, such as ``petsc-dcdm solve``; ``words``: its
    arguments.
    """

    where: str
    line: str
    program: str
    words: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    return [Block(page, *found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command(where: str, line: str) -> Command:
    """Of a line of a shell."""
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.|…", "", line), comments=True)
    while words and (re.match(r"[A-Za-z_]+=", words[0]) or words[0] in ("$", "time", "exec")):
        words = words[1:]
    if words[:2] == ["mpirun", "-n"]:
        words = words[3:]
    if words[:1] in (["bash"], ["python"]) and len(words) > 1:
        words = words[2:] if words[1] == "-m" else words[1:]
        if words[:1] == ["petsc_dcdm"]:
            words[0] = "petsc-dcdm"
    if words[:1] == ["petsc-dcdm"] and len(words) > 1 and words[1] != "COMMAND":
        words = [f"petsc-dcdm {words[1]}", *words[2:]]
    program, *arguments = words or [""]
    return Command(where, line.strip(), program, tuple(arguments))


def of_block(block: Block) -> Iterator[Command]:
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            for part in re.split(r" (?:&&|\|) (?![^(]*\))", line):
                yield command(block.page.name, part)


def of_prose(page: Path) -> Iterator[Command]:
    for span in re.findall(r"`([^`]+)`", prose(page)):
        line = " ".join(span.split())
        if re.match(STARTS, line):
            yield command(page.name, line)


def of_docstrings(path: Path) -> Iterator[Command]:
    """In texts of several lines that stand by themselves: a line, or what is between two back quotes on each side."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value):
            continue
        lines = [line.strip() for line in node.value.splitlines()]
        lines += [" ".join(span.split()) for span in re.findall(r"``([^`]+)``", node.value)]
        for line in lines:
            if re.match(STARTS, line):
                yield command(str(path.relative_to(ROOT)), re.split(r"\s{2,}", line)[0])


def of_head(path: Path) -> Iterator[Command]:
    """The comments before the first command of a script."""
    head = path.read_text(encoding="utf-8").partition("\nset -")[0]
    for line in re.findall(r"(?:^#|: ) +((?:bash|python) run_scripts/.*)$", head, re.MULTILINE):
        yield command(str(path.relative_to(ROOT)), re.split(r"\s{2,}", line)[0])


def everywhere() -> list[Command]:
    found: list[Command] = []
    for page in PAGES:
        for block in blocks(page):
            if block.language == "bash":
                found += of_block(block)
        found += of_prose(page)
    for path in PYTHON:
        found += of_docstrings(path)
    for path in SCRIPTS:
        found += of_head(path)
    return found
