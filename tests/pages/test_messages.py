"""docs/guide/messages.md lists every sentence that the package can say to those who solve with it, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

PACKAGE = ROOT / "petsc_dcdm"
PAGE = (ROOT / "docs" / "guide" / "messages.md").read_text(encoding="utf-8")
VIEW = (ROOT / "docs" / "guide" / "view.md").read_text(encoding="utf-8")
ROOMS = ("__init__.py", "backends", "native", "network", "solver", "stencil")
INTERNAL = {"ValueError", "RuntimeError", "AssertionError", "ArgumentTypeError", "StencilError"}
INTERNAL |= {"Option", "printfASCII", "inform", "print_help", "on_host"}
"""What is raised as one of these is a fault of the caller's code in this package, or is put into another sentence."""
VIEWS = {"view", "view_text", "text_without_network", "description", "print_help"}
"""Functions whose text belongs to -ksp_view and -help."""
FEWEST_WORDS = 4


class Sentences(ast.NodeVisitor):
    """The texts of a module that people may read, each as its pieces between what is filled in."""

    def __init__(self, everything: bool = False) -> None:
        self._everything = everything
        self.found: list[list[str]] = []

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if self._everything or node.name not in VIEWS:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if self._everything or name not in INTERNAL:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append([node.value])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pieces = [""]
        for part in node.values:
            if isinstance(part, ast.Constant):
                pieces[-1] += str(part.value)
            else:
                pieces.append("")
        self.found.append(pieces)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").replace("\\|", "|").split())


def sentences() -> Iterator[tuple[Path, str]]:
    """Every file with the longest piece of each of its sentences, which tells it from others."""
    for room in ROOMS:
        place = PACKAGE / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            visitor = Sentences()
            visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
            for pieces in visitor.found:
                longest = plain(max(pieces, key=len))
                words = "x".join(pieces).split()
                if len(words) >= FEWEST_WORDS and not any("\n" in piece for piece in pieces):
                    yield path.relative_to(PACKAGE), longest.strip(" :;,.'()-")


FOUND = sorted(set(sentences()))


@pytest.mark.parametrize("path", sorted({path for path, _ in FOUND}), ids=str)
def test_every_sentence_is_on_the_page(path: Path) -> None:
    page = plain(PAGE + VIEW)
    missing = [text for where, text in FOUND if where == path and text not in page]
    assert not missing, "\n".join(missing)


def test_nothing_on_the_page_is_said_no_more() -> None:
    """Each message of the tables has a piece of two words or more that is in the sources."""
    visitor = Sentences(everything=True)
    for path in sorted(PACKAGE.rglob("*.py")):
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    said = {plain(piece) for pieces in visitor.found for piece in pieces if len(piece.split()) > 1}
    shown = re.findall(r"^\| (`.*?`)[^|`]* \|", PAGE, re.MULTILINE)
    messages = [plain(message) for message in shown]
    assert len(messages) > 80
    assert not [message for message in messages if not any(len(text) > 8 and text in message for text in said)]
