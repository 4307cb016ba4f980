"""The tables of docs/measurements/performance.md from the JSON files of comparisons:
``python -m petsc_dcdm.compare.tables out/compare``.

Times in ms. A MatMult is y = A x with PETSc's AIJ in double precision on the number of ranks where it is fastest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""An object of the JSON contract, see :meth:`petsc_dcdm.compare.driver.Result.to_json`."""


def is_ours(row: Row) -> bool:
    return "petsc_dcdm." in row["options"]


def converged(row: Row) -> bool:
    return str(row["converged_reason"]).startswith("CONVERGED")


def name_of(row: Row) -> str:
    """The system and what is done with it."""
    name = f"{row['system']} {row['grid']}"
    if row["solves"] > 1:
        name += f", {row['solves']} solves, " + ("moving" if row["moving"] else "one matrix")
    return name + ", nothing compiled" * row["cold"]


def systems(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(name, rows) of each system, in the order of the file."""
    for name, group in groupby(rows, key=name_of):
        yield name, list(group)


def matmult(rows: Sequence[Row]) -> float:
    """Seconds of a MatMult of the system of these rows."""
    return float(min(r["matmult_s"] for r in rows if r["matmult_s"]))


def memory(row: Row) -> float:
    """MB above what the imports take, all ranks."""
    return float(row["peak_rss_mb"] - row["import_rss_mb"])


def best(rows: Iterable[Row], what: Callable[[Row], float], ours: bool) -> Row | None:
    """The converged row of the lowest figure."""
    return min((r for r in rows if converged(r) and is_ours(r) == ours), key=what, default=None)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rule = ["---" if n < 2 else "---:" for n in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines)) + "\n"


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}"


def results(rows: Sequence[Row]) -> str:
    """Every solver on every system of a file."""
    lines = []
    for name, of_system in systems(rows):
        shown = f"{name} ({max(r['unknowns'] for r in of_system):,} unknowns)"
        for row in of_system:
            solver = f"**{row['name']}**" if is_ours(row) else row["name"]
            if converged(row):
                spread = f"{ms(row['total_s_min'])} - {ms(row['total_s_max'])}"
                times = [ms(row[key]) for key in ("setup_s", "solve_s")]
                cost = f"{row['total_s'] / matmult(of_system):.0f}"
                cells = [
                    str(row["iterations"]),
                    *times,
                    f"**{ms(row['total_s'])}**",
                    spread,
                    cost,
                    f"{memory(row):.0f}",
                ]
            else:
                cells = [str(row["converged_reason"]).replace("|", "/"), *[""] * 6]
            lines.append([shown, solver, str(row["ranks"]), *cells])
            shown = ""
    heads = "system|solver|ranks|iterations|set-up|solve|total|from - to|MatMults|memory MB"
    return table(heads.split("|"), lines)


def ratios(rows: Sequence[Row]) -> str:
    """Ours at its best number of ranks against the fastest rival at its best."""
    lines = []
    for name, of_system in systems(rows):
        ours, rival = (best(of_system, lambda r: r["total_s"], mine) for mine in (True, False))
        if ours is None or rival is None:
            continue
        solve = [best(of_system, lambda r: r["solve_s"], mine) for mine in (True, False)]
        lean = [best(of_system, memory, mine) for mine in (True, False)]
        unit = matmult(of_system)
        lines.append(
            [
                name,
                f"{rival['name']}, {rival['ranks']}",
                f"**{rival['total_s'] / ours['total_s']:.1f}**",
                f"{solve[1]['solve_s'] / solve[0]['solve_s']:.1f}" if solve[0] and solve[1] else "",
                f"{ours['setup_s'] / unit:.1f}" if ours["solves"] == 1 else "",
                f"{min(r['apply_s'] for r in of_system if converged(r) and is_ours(r)) / unit:.2f}",
                f"{memory(lean[0]):.0f} / {memory(lean[1]):.0f}" if lean[0] and lean[1] else "",
            ]
        )
    heads = "system|fastest rival, ranks|total: times faster|solve alone|set-up in MatMults|cycle in MatMults"
    heads += "|memory MB, ours / leanest"
    return table(heads.split("|"), lines)


def growth(rows: Sequence[Row]) -> str:
    """Nanoseconds per unknown on growing grids, ours at its best."""
    lines = []
    for name, of_system in systems(rows):
        ours = best(of_system, lambda r: r["total_s"], True)
        if ours is None:
            continue
        unknowns = ours["unknowns"]
        per = [f"{1e9 * ours[key] / unknowns:.0f}" for key in ("setup_s", "solve_s", "total_s")]
        per.append(f"{1e9 * ours['solve_s'] / ours['iterations'] / unknowns:.1f}")
        lines.append(
            [
                name,
                f"{unknowns:,}",
                *per,
                f"{1e9 * matmult(of_system) / unknowns:.1f}",
                f"{memory(ours) * 1e6 / unknowns:.0f}",
            ]
        )
    heads = "system|unknowns|set-up ns|solve ns|total ns|of it a step ns|MatMult ns|memory bytes"
    return table(heads.split("|"), lines)


def main(argv: list[str]) -> None:
    """``folder``: prints all tables of the JSON files in it."""
    files = sorted(Path(argv[0]).glob("*.json"))
    everything = []
    for file in files:
        rows = json.loads(file.read_text())
        everything += rows
        print(f"### {file.stem}\n\n{results(rows)}")
        if len(list(systems(rows))) > 2:
            print(f"Per unknown:\n\n{growth(rows)}")
    print(f"### Ours at its best against the fastest rival\n\n{ratios(everything)}")


if __name__ == "__main__":
    main(sys.argv[1:])
