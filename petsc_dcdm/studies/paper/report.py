"""Tables (markdown) and plots of the paper's comparison from the JSON files of `paper` and `paper_ablation`.

python -m petsc_dcdm.studies.paper.report out/paper-*.json --ablation out/ablation.json --output out/reproduction
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from petsc_dcdm.compare.cli import machine

Rows = list[dict[str, Any]]


def _group(rows: Rows) -> dict[tuple[str, str], dict[str, Rows]]:
    """(scene, right-hand side) -> solver -> its rows, one for each frame; all in the order of the file."""
    groups: dict[tuple[str, str], dict[str, Rows]] = {}
    for row in rows:
        groups.setdefault((row["scene"], row["rhs"]), {}).setdefault(row["solver"], []).append(row)
    return groups


def _range(values: list[int | None]) -> str:
    if any(v is None for v in values):
        return "no"
    low, high = min(values), max(values)  # type: ignore[type-var]
    return str(low) if low == high else f"{low}-{high}"


def _seconds(values: list[float | None]) -> str:
    if any(v is None for v in values):
        return "-"
    return f"{statistics.median(values):.3g}"  # type: ignore[type-var]


def _counts(frames: Rows) -> str:
    return " / ".join(_range([row["iterations"][t] for row in frames]) for t in (0, 1))


def iterations_table(rows: Rows) -> str:
    """A line per scene, right-hand side and size, a column per solver: iterations to 1e-4 / 1e-6."""
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    lines = [
        f"| operator | right-hand side | size | {' | '.join(solvers)} |",
        "|---" * (3 + len(solvers)) + "|",
    ]
    sizes: dict[tuple[str, str], dict[int, Rows]] = {}
    for row in rows:
        sizes.setdefault((row["scene"], row["rhs"]), {}).setdefault(row["size"], []).append(row)
    for (scene, rhs), by_size in sizes.items():
        for size, some in by_size.items():
            cells = [_counts([row for row in some if row["solver"] == solver]) for solver in solvers]
            lines.append(f"| {scene} | {rhs} | {size}^3 | {' | '.join(cells)} |")
    return "\n".join(lines)


def times_table(rows: Rows) -> str:
    """A line per scene, right-hand side and solver; frames give ranges of iterations, medians of times."""
    lines = [
        "| operator | right-hand side | solver | iterations to 1e-4 / 1e-6 | s per iteration "
        "| in MatMults | set-up s | total s to 1e-4 | to 1e-6 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (scene, rhs), by_solver in _group(rows).items():
        for solver, frames in by_solver.items():
            each = statistics.median(row["seconds_per_iteration"] for row in frames)
            unit = statistics.median(row["matmult_s"] for row in frames)
            totals = [
                [None if row["solve_s"][t] is None else row["setup_s"] + row["solve_s"][t] for row in frames]
                for t in (0, 1)
            ]
            setup = statistics.median(row["setup_s"] for row in frames)
            lines.append(
                f"| {scene} | {rhs} | {solver} | {_counts(frames)} | {each:.2g} | {each / unit:.0f} "
                f"| {setup:.2g} | {_seconds(totals[0])} | {_seconds(totals[1])} |"
            )
    return "\n".join(lines)


def ablation_table(part: dict[str, dict[str, list[int | None]]]) -> str:
    """A line per choice: iterations to 1e-4 / 1e-6."""
    lines = ["| | random, 1e-4 / 1e-6 | smooth, 1e-4 / 1e-6 |", "|---|---|---|"]
    for name, count in part.items():
        cells = [" / ".join("> 100" if v is None else str(v) for v in count[rhs]) for rhs in ("random", "smooth")]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def plot_histories(rows: Rows, path: Path) -> None:
    """Relative residual against iterations, a panel for each operator and right-hand side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = _group(rows)
    names = list(dict.fromkeys(scene for scene, _ in groups))
    sides = list(dict.fromkeys(rhs for _, rhs in groups))
    size = (3.2 * len(names), 2.8 * len(sides))
    figure, panels = plt.subplots(len(sides), len(names), figsize=size, sharey=True, squeeze=False)
    for (scene, rhs), by_solver in groups.items():
        panel = panels[sides.index(rhs)][names.index(scene)]
        for solver, frames in by_solver.items():
            panel.semilogy(frames[0]["residuals"], label=solver, lw=1.2)
        panel.set_title(f"{scene}, {rhs}", fontsize=9)
        panel.set_xlim(0, 110)
        panel.axhline(1e-4, color="grey", lw=0.5)
    for panel in panels[-1]:
        panel.set_xlabel("iterations")
    panels[0][0].legend(fontsize=7)
    figure.supylabel("|r| / |b|", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.paper.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of paper.comparison, one for each size")
    parser.add_argument("--ablation", type=Path, help="JSON file of paper.ablation")
    parser.add_argument("--output", type=Path, required=True, help="directory for tables.md and the plots")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    runs = [(file, json.loads(file.read_text())) for file in args.files]
    everything = [row for _, rows in runs for row in rows]
    text = [
        "# DCDM reproduced: the tables",
        "",
        f"Written by `run_scripts/reproduce_paper.sh` on: {machine()}; one rank.",
        "Of two numbers of iterations the first is to a residual of 1e-4, the second to 1e-6; ranges are over the",
        "positions of the moving obstacle.",
        "",
        "## Iterations",
        "",
        iterations_table(everything),
        "",
    ]
    for file, rows in runs:
        text += [f"## Times, {rows[0]['size']}^3", "", times_table(rows), "", f"![histories]({file.stem}.png)", ""]
        plot_histories(rows, args.output / f"{file.stem}.png")
    if args.ablation:
        ablation = json.loads(args.ablation.read_text())
        size = ablation["size"]
        text += [f"## What the solver does with the residuals, {size}^3", "", ablation_table(ablation["solver"]), ""]
        if ablation["training"]:
            title = f"## What the network is trained on, {size}^3, {ablation['steps']} steps"
            text += [title, "", ablation_table(ablation["training"]), ""]
    (args.output / "tables.md").write_text("\n".join(text))
    print(f"{args.output / 'tables.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
