"""Plots of a comparison: time against size, residual against time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from petsc_dcdm.compare.driver import Result


def plot(results: Sequence[Result], path: Path, rtol: float, how: str) -> None:
    """A PNG, or what the name's suffix says: time against unknowns where there are several sizes, and the
    residual against time on the largest system. Needs matplotlib (the extra ``plot``).

    Bars reach from the quickest to the slowest of the runs. rtol: the relative residual asked for, drawn as a line.
    how: the machine and its threads, for the title.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    done = [r for r in results if r.converged]
    if not done:
        return
    several = len({r.unknowns for r in done}) > 1
    figure, axes = pyplot.subplots(1, 1 + several, figsize=(6.5 * (1 + several), 4.5), squeeze=False)
    if several:
        _time_against_size(axes[0, 0], done)
    _residual_against_time(axes[0, -1], done, rtol)
    names = list(dict.fromkeys(r.system.label for r in done))
    figure.suptitle(f"{', '.join(names)}, to {rtol:g}\n{how}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)


def _name(result: Result, ranks: bool) -> str:
    return f"{result.solver.name}, {result.ranks} rank{'s' * (result.ranks > 1)}" if ranks else result.solver.name


def _styles(done: Sequence[Result]) -> dict[tuple[str, int], dict[str, object]]:
    """A colour per solver, ours thick; a line style per number of ranks."""
    names = list(dict.fromkeys(r.solver.name for r in done))
    ranks = sorted({r.ranks for r in done})
    ours = {r.solver.name for r in done if r.solver.ours}
    return {
        (name, n): {
            "color": f"C{names.index(name) % 10}",
            "linestyle": ("-", "--", ":", "-.")[ranks.index(n) % 4],
            "linewidth": 2.5 if name in ours else 1.2,
        }
        for name in names
        for n in ranks
    }


def _time_against_size(axes, done: Sequence[Result]) -> None:  # type: ignore[no-untyped-def]
    styles, several = _styles(done), len({r.ranks for r in done}) > 1
    for key, style in styles.items():
        rows = sorted((r for r in done if (r.solver.name, r.ranks) == key), key=lambda r: r.unknowns)
        if rows:
            x = [r.unknowns for r in rows]
            bars = [
                [max(0.0, (r.total_s - r.spread[0])) for r in rows],
                [max(0.0, r.spread[1] - r.total_s) for r in rows],
            ]
            axes.errorbar(
                x, [r.total_s for r in rows], bars, marker="o", capsize=2, label=_name(rows[0], several), **style
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("unknowns")
    axes.set_ylabel("set-up + solve (s)")
    axes.grid(True, which="both", alpha=0.3)
    _legend(axes)


def _legend(axes) -> None:  # type: ignore[no-untyped-def]
    """Below the axes, where no curve is."""
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def _residual_against_time(axes, done: Sequence[Result], rtol: float) -> None:  # type: ignore[no-untyped-def]
    largest = max(r.unknowns for r in done)
    rows = [r for r in done if r.unknowns == largest and r.history]
    styles, several = _styles(done), len({r.ranks for r in rows}) > 1
    for row in rows:
        setup = row.setup_s / row.solves if row.moving else row.setup_s
        times = [setup + t for t, _ in row.history]
        label = _name(row, several)
        style = styles[row.solver.name, row.ranks]
        residuals = [row.history[0][1], *(r for _, r in row.history)]
        axes.semilogy([0.0, *times], residuals, marker=".", label=label, **style)
        if row.solves == 1:  # the history is that of one run, the bar of all
            axes.hlines(residuals[-1], *row.spread, color=style["color"], linewidth=1, alpha=0.6)
    axes.axhline(rtol, color="0.4", linestyle=":", linewidth=1)
    axes.annotate(f"{rtol:g}", (1, rtol), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
    axes.set_xlabel("time, set-up included (s)")
    axes.set_ylabel("residual / |b|")
    axes.set_title(f"{largest:,} unknowns", fontsize=10)
    axes.grid(True, which="both", alpha=0.3)
    _legend(axes)
