"""Tables of a comparison in the terminal, and from how many solves on one solver beats another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from petsc_dcdm.compare.driver import Result


def fastest_rival(results: Sequence[Result], what: str = "total_s") -> Result | None:
    """The converged result of the lowest ``what`` in which this package takes no part."""
    rivals = [r for r in results if r.converged and not r.solver.ours]
    return min(rivals, key=lambda r: getattr(r, what), default=None)


def print_tables(results: Sequence[Result], console: Console) -> None:
    """One table per system, all solvers and numbers of ranks in it, and below it ours against the fastest rival."""
    for (system, _, _), group in groupby(results, key=lambda r: (r.system, r.solves, r.moving)):
        rows = list(group)
        unknowns = max(r.unknowns for r in rows)
        name = f"{system.label} {system.size}".strip()
        cold = ", kernels not compiled yet" if rows[0].cold else ""
        title = f"{name}: {unknowns:,} unknowns{_sequence(rows[0])}{cold}"
        table = Table(title=title, title_justify="left", caption_justify="left", caption=_caption(rows))
        table.add_column("solver")
        for heading in ("ranks", "iterations", "set-up s", "solve s", "total s", "spread s", "MatMults"):
            table.add_column(heading, justify="right")
        table.add_column("true residual", justify="right")
        table.add_column("memory MB", justify="right")
        unit = min((r.matmult_s for r in rows if not r.problem), default=math.nan)
        for row in rows:
            table.add_row(*_cells(row, unit), style="bold" if row.solver.ours else None)
        console.print(table)
        for row in rows:
            if row.problem:
                text = f"  {row.solver.name}, ranks {row.ranks}: {row.problem}"
                console.print(text, style="yellow", highlight=False)
        for line in verdict(rows):
            console.print(f"  {line}", highlight=False)
        console.print()


def _sequence(row: Result) -> str:
    if row.solves == 1:
        return ""
    return f", {row.solves} solves " + ("with changing geometry" if row.moving else "with the same matrix")


def _caption(rows: Sequence[Result]) -> str:
    times = [r.import_s for r in rows if r.solver.ours and r.import_s == r.import_s]
    notes = "MatMults: total in AIJ MatMults, the fastest measured here. "
    notes += "Memory: peak above the imports, all ranks, the system included."
    return notes + (f" Importing the plugin, not counted: {max(times):.2f} s." if times else "")


def _cells(row: Result, unit: float) -> list[str]:
    """``unit``: seconds of a MatMult."""
    if row.problem:
        return [row.solver.name, str(row.ranks), "-", "-", "-", "-", "-", "-", "-", "-"]
    its = str(row.iterations) if row.converged else f"{row.iterations}, did not converge ({row.converged_reason})"
    low, high = row.spread
    return [
        row.solver.name,
        str(row.ranks),
        its,
        f"{row.setup_s:.3f}",
        f"{row.solve_s:.3f}",
        f"{row.total_s:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{row.total_s / unit:.0f}",
        f"{row.true_relative_residual:.1e}",
        f"{row.peak_rss_mb - row.import_rss_mb:.0f}",
    ]


def verdict(rows: Sequence[Result]) -> list[str]:
    """How ours compares with the fastest rival, each at its best number of ranks, and the break-even solve counts."""
    ours = min((r for r in rows if r.converged and r.solver.ours), key=lambda r: r.total_s, default=None)
    rival = fastest_rival(rows)
    if ours is None or rival is None:
        return []
    lines = [
        f"{ours.solver.name} (ranks {ours.ranks}) against the fastest other, {rival.solver.name} (ranks "
        f"{rival.ranks}): total {_times(rival.total_s / ours.total_s)}"
    ]
    quickest = fastest_rival(rows, "solve_s")
    if quickest is not None:
        ratio = quickest.solve_s / ours.solve_s
        lines.append(f"solve alone, against {quickest.solver.name} (ranks {quickest.ranks}): {_times(ratio)}")
    if ours.solves == 1:
        best: dict[str, Result] = {}
        for row in rows:
            if row.converged and not row.solver.ours:
                name = row.solver.name
                best[name] = min(best.get(name, row), row, key=lambda r: r.total_s)
        lines += [f"same matrix again and again: {break_even(ours, other)}" for other in best.values()]
    return lines


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"


def break_even(a: Result, b: Result) -> str:
    """From which number of solves with the same matrix on ``a`` takes less time than ``b``, set-up counted once."""
    names = f"{a.solver.name} against {b.solver.name}"
    setup, solve = a.setup_s - b.setup_s, a.solve_s - b.solve_s
    if setup + solve < 0 and solve <= 0:
        return f"{names}: faster from the first solve on"
    if setup + solve >= 0 and solve >= 0:
        return f"{names}: slower however many solves"
    count = math.floor(-setup / solve) + 1
    return f"{names}: faster from solve {count} on" if solve < 0 else f"{names}: faster up to solve {count - 1} only"
