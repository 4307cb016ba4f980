"""The pages as a site: Sphinx builds them without a warning, guides open with their result, manual pages are whole."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from harness import ROOT, run_program

DOCS = ROOT / "docs"
OPENING = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
OPENING = [path for path in OPENING if path.stem not in ("changelog", "contributing")]  # which include others


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo", "numpydoc", "petsc4py"):
        pytest.importorskip(module)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees", DOCS]
    run_program([*command, tmp_path / "html"], env={"PYTHONPATH": str(ROOT)}, timeout=300)
    for page in OPENING:
        assert (tmp_path / "html" / page.relative_to(DOCS).with_suffix(".html")).is_file()


@pytest.mark.parametrize("page", OPENING, ids=lambda page: page.stem)
def test_a_page_opens_with_its_result(page: Path) -> None:
    """In one or two sentences, right below its title."""
    title, empty, *lines = page.read_text(encoding="utf-8").splitlines()
    opening = " ".join(lines[: lines.index("")])
    opening = opening.removeprefix("**Result.** ").replace("J. Comput. Phys.", "")
    assert title.startswith("# ") and not empty and opening[-1] in ".:"
    assert len(re.findall(r"[.?!](?= [A-Z`]|$)", opening)) <= 2, opening


def test_times_are_those_of_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In README's table and in the bars of the guide: who measures anew runs docs/figures/make_figures.py."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("make_figures", DOCS / "figures" / "make_figures.py")
    assert spec is not None and spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    monkeypatch.setattr(figures, "save", lambda figure, name: figure.savefig(tmp_path / name))
    figures.performance()
    drawn, kept = (
        re.findall(r"> ?([\d.]+ s)<", (at / "performance.svg").read_text()) for at in (tmp_path, DOCS / "figures")
    )
    assert drawn == kept and len(drawn) == 12
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, row in (("fox", "flow past the fox"), ("mixed", "mixed domain")):
        (cells,) = re.findall(
            rf"^\| {row}, .*? \| \*\*(.*?) s\*\*.*? \| (.*?) s, .*? \| (.*?) s, ", readme, re.MULTILINE
        )
        times = figures.totals()[name]
        assert cells == (f"{times['dcdm']:.2f}", f"{times['ml']:.1f}", f"{times['boomeramg-tuned']:.1f}"), row


def test_no_page_is_of_one_machine() -> None:
    """The only absolute paths are in directories that every machine has."""
    absolute = r"(?<![\w.~/*])/(?!(usr|etc|dev|proc|tmp|opt)/)\w+/"
    for page in DOCS.rglob("*.md"):
        assert not re.search(rf"{absolute}|/home/\w|/root/", page.read_text(encoding="utf-8")), page


def test_the_view_is_what_is_shown() -> None:
    """Each line of the page's example that is ours, and each beginning that its table explains."""
    pytest.importorskip("scipy")
    page = (DOCS / "guide" / "view.md").read_text(encoding="utf-8")
    script = ROOT / "run_scripts" / "gallery" / "periodic_channel.py"
    output = run_program([sys.executable, script, "-n", "64", "-ksp_view"], env={"PYTHONPATH": str(ROOT)})
    (example,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    example = example.replace("gcc 12, AVX-512 with bf16", "...").replace("0.6 MB", "... MB")  # of one machine
    shown = [re.escape(line.strip()).replace(r"\.\.\.", ".*") for line in example.splitlines()]
    assert len(shown) > 10 and not [line for line in shown if not re.search(line, output)], output
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "petsc_dcdm").rglob("*.py"))
    for line in re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE):
        words = max(re.split(r"\.\.\.|:", line), key=len).strip(" ,")
        assert words in " ".join(sources.split()), line


@pytest.mark.parametrize("name", ["ksp", "pc"])
def test_manual_pages_have_every_option(name: str) -> None:
    options = pytest.importorskip("petsc_dcdm.solver.options")
    page = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    heads = ["Synopsis", "Options Database Keys", "Notes", "References", "Level", "See Also"]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == heads
    rows = dict(re.findall(r"^- `-(\w+_dcdm_\w+[a-z]) <(.*?)>`", page, re.MULTILINE))
    declared = options.KSP_OPTIONS if name == "ksp" else options.PC_OPTIONS
    assert set(rows) == {option.name for option in declared}
    assert all(rows[option.name] == str(option.default) for option in declared if option.default is not None)
