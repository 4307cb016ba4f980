"""Makes the figures of the guide, beside this file: a step of the method, the networks, residuals, times.

python docs/figures/make_figures.py

Times are those of docs/measurements/performance.md; the residuals are computed here.
"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).resolve().parent
BLUE, ORANGE, GREY = "#2f6fb0", "#d9822b", "#777777"
SYSTEMS = {
    "mixed": "mixed domain",
    "fox": "flow past a mesh",
    "dam_break, fluid cells only": "dam break",
    "drops": "stiff drops",
}
pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "petsc_dcdm", "font.size": 10})


def save(figure: pyplot.Figure, name: str) -> None:
    figure.savefig(HERE / name, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def canvas(width: float, height: float) -> tuple[pyplot.Figure, pyplot.Axes]:
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.set(xlim=(0, 10), ylim=(0, 10 * height / width))
    axes.axis("off")
    return figure, axes


def box(axes: pyplot.Axes, x: float, y: float, w: float, h: float, text: str, colour: str = BLUE) -> None:
    style = FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.05", facecolor=colour, alpha=0.16, edgecolor=colour)
    axes.add_patch(style)
    axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9)


def arrow(axes: pyplot.Axes, x0: float, y0: float, x1: float, y1: float) -> None:
    axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": GREY})


def method() -> None:
    figure, axes = canvas(7.5, 2.2)
    parts = [
        ("residual\nr / |r|", GREY),
        ("network\nsingle precision", ORANGE),
        ("A-orthogonal to\nlast directions", BLUE),
        ("line search\nr·d / d·A d", BLUE),
        ("x += α d\nr −= α A d", BLUE),
    ]
    for n, (text, colour) in enumerate(parts):
        box(axes, 0.1 + 2.0 * n, 1.2, 1.6, 0.9, text, colour)
        if n:
            arrow(axes, 2.0 * n - 0.25, 1.65, 2.0 * n + 0.05, 1.65)
    axes.plot([8.9, 8.9, 0.9], [1.1, 0.55, 0.55], color=GREY, lw=1)
    arrow(axes, 0.9, 0.55, 0.9, 1.12)
    axes.text(5, 0.25, "until b − A x, taken with the matrix, meets the test", ha="center", color=GREY, fontsize=9)
    save(figure, "method.svg")


def networks() -> None:
    figure, axes = canvas(7.5, 3.4)
    axes.text(2.2, 4.3, "multigrid: made from the matrix", ha="center", weight="bold")
    path = [(0.2, 3.7), (0.9, 2.7), (1.6, 1.7), (2.2, 2.7), (2.8, 1.7), (3.5, 2.7), (4.2, 3.7)]
    axes.plot(*zip(*path, strict=True), "-", color=ORANGE)
    for x, y in path:
        axes.plot(x, y, "o", ms=8, color=BLUE if y < 2 else ORANGE)
    for y, text in ((3.7, "4 learned sweeps"), (2.7, "visited twice"), (1.7, "coarse solve")):
        axes.text(2.2, y + {3.7: 0.0, 2.7: 0.22, 1.7: -0.4}[y], text, ha="center", fontsize=8, color=GREY)
    box(
        axes,
        0.2,
        0.2,
        4.0,
        0.8,
        "8 features around a cell → weights\nand conductances of the next level",
        ORANGE,
    )
    axes.text(7.4, 4.3, "cnn: sees the residual only (the paper)", ha="center", weight="bold")
    heights = (2.6, 2.6, 1.3, 2.6, 2.6)
    layers = ("3³\nconv\n16\nwide", "residual\npairs", "half\nresolu-\ntion", "residual\npairs", "1³")
    for n, (height, text) in enumerate(zip(heights, layers, strict=True)):
        box(axes, 5.2 + 0.95 * n, 2.3 - height / 2, 0.75, height, text)
    axes.plot([6.55, 6.55, 8.4, 8.4], [3.7, 3.85, 3.85, 3.7], color=GREY, lw=1)
    axes.text(7.5, 3.92, "skip", ha="center", fontsize=8, color=GREY)
    save(figure, "networks.svg")


def convergence() -> None:
    """The residual of DCDM with each network and of CG, on one system of 32^3 cells."""
    from petsc4py import PETSc

    from petsc_dcdm.poisson import dmda, families, rhs
    from petsc_dcdm.poisson.assemble import assemble

    dm = dmda.create((32, 32, 32))
    system = assemble(families.make("mixed", (32, 32, 32), 0, dmda.box_of(dm)), dm)
    b = rhs.make("random", system)
    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    plugin = "-ksp_type python -ksp_python_type petsc_dcdm.KSP"
    cg = "-ksp_type cg -ksp_norm_type unpreconditioned"
    solvers = {
        "DCDM, multigrid": plugin,
        "DCDM, cnn": f"{plugin} -pc_dcdm_model cnn",
        "CG, GAMG": f"{cg} -pc_type gamg",
        "CG, incomplete Cholesky": f"{cg} -pc_type icc",
        "CG": f"{cg} -pc_type none",
    }
    for number, (name, text) in enumerate(solvers.items()):
        prefix = f"figure{number}_"
        PETSc.Options().prefixPush(prefix)
        PETSc.Options().insertString(text)
        PETSc.Options().prefixPop()
        ksp = PETSc.KSP().create()
        ksp.setOptionsPrefix(prefix)
        system.attach(ksp)
        ksp.setTolerances(rtol=1e-8)
        ksp.setConvergenceHistory()
        ksp.setFromOptions()
        ksp.solve(b, b.duplicate())
        history = ksp.getConvergenceHistory()
        axes.semilogy(history / history[0], label=name, lw=1.6, color=f"C{number}")
        ksp.destroy()
    axes.set(xlabel="iterations", ylabel="|b − A x| / |b|", xscale="symlog", xlim=(0, 200), title="mixed domain, 32³")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save(figure, "convergence.svg")


def totals() -> dict[str, dict[str, float]]:
    """Total times at 128^3 in the tables of the journal, in seconds: system -> solver -> time."""
    text = (HERE.parent / "measurements" / "performance.md").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = {}
    system = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 10 or not re.match(r"\d", cells[2]):
            continue
        system = cells[0] or system
        name = next((name for name in SYSTEMS if system.startswith(f"{name} 128x128x128 (")), "")
        solver = cells[1].strip("*")
        if name and solver not in found.setdefault(name, {}):  # the first line: our single rank, with two threads
            found[name][solver] = float(cells[6].strip("*")) / 1000
    assert set(found) == set(SYSTEMS), found
    return found


def performance() -> None:
    """The total times as bars."""
    found = totals()
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for row, name in enumerate(SYSTEMS):
        for n, (solver, colour) in enumerate((("dcdm", ORANGE), ("ml", BLUE), ("boomeramg-tuned", "#7fa8d0"))):
            time = found[name][solver]
            axes.barh(row + 0.27 * (n - 1), time, 0.25, color=colour, label=None if row else solver)
            axes.text(time, row + 0.27 * (n - 1), f" {time:.2f} s", va="center", fontsize=8)
    axes.set(yticks=range(len(SYSTEMS)), yticklabels=list(SYSTEMS.values()), xlabel="s at 128³, set-up included")
    axes.invert_yaxis()
    axes.set_xlim(right=1.15 * axes.get_xlim()[1])
    axes.legend(fontsize=8)
    save(figure, "performance.svg")


if __name__ == "__main__":
    for draw in (method, networks, performance, convergence):
        draw()
