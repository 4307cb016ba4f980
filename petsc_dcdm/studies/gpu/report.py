"""What run_scripts/gpu_check.py has found, as a page and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def page(found: dict[str, Any], wrong: list[str]) -> str:
    """Markdown."""
    parts = found["parts"]
    lines = ["# gpu_check", ""]
    lines += [f"- {name}: {value}" for name, value in parts.get("environment", {}).items()]
    if "copies, GB/s" in parts:
        lines.append(f"- copies on the device: {parts['copies, GB/s']:.0f} GB/s")
    if "cold start" in parts:
        lines.append("- cold start: " + ", ".join(f"{k} {v:.2f}" for k, v in parts["cold start"].items()))
    lines += [f"- {name}: {value:.1e}" for name, value in parts.get("correctness", {}).items()]
    lines += [
        "",
        "| n | iterations | set-up, ms | cycle, ms | of copies | a step, ms | solve, ms | from host, ms | GB |",
    ]
    lines.append("|" + "---|" * 9)
    for name, row in parts.items():
        if not name.startswith("size "):
            continue
        share = row["cycle_share_of_copies"]
        lines.append(
            f"| {name[5:]} | {row['iterations']} | {1e3 * row['setup_s']:.1f} | {1e3 * row['cycle_s']:.3f} | "
            f"{'-' if share is None else f'{100 * share:.0f} %'} | {1e3 * row['solve_per_iteration_s']:.3f} | "
            f"{1e3 * row['solve_s']:.2f} | {1e3 * row['solve_from_host_s']:.2f} | {row['peak_gb']:.2f} |"
        )
    lines += ["", "| family | random here / CPU | smooth here / CPU | agrees |", "|---|---|---|---|"]
    for name, row in parts.get("families", {}).items():
        pairs = [f"{row[k]['iterations']} / {row[k]['cpu_iterations']}" for k in ("random", "smooth")]
        lines.append(f"| {name} | {pairs[0]} | {pairs[1]} | {'yes' if row['agrees'] else 'NO'} |")
    lines += ["", "| rival | iterations | solve, ms |", "|---|---|---|"]
    for name, row in parts.get("rivals", {}).items():
        lines.append(f"| {name} | {row['iterations']} | {1e3 * row['solve_s']:.2f} |")
    for name in ("eager torch", "torch.compile"):
        if name in parts:
            row = parts[name]
            lines.append(f"| a cycle in {name} | - | {1e3 * row['cycle_s']:.2f} (first {row['first_s']:.1f} s) |")
    lines += ["", f"Left out for want of time: {', '.join(found['left_out']) or 'nothing'}."]
    lines += [f"WRONG: {text}" for text in wrong] or ["All that was checked is right."]
    return "\n".join(lines) + "\n"


def picture(found: dict[str, Any], to: Path) -> str:
    """Times by size; returns where it is, or why there is none."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(int(name[5:]), row) for name, row in found["parts"].items() if name.startswith("size ")]
    if not rows:
        return "no picture: no size was measured"
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for key, label in (
        ("setup_s", "set-up"),
        ("solve_s", "solve"),
        ("solve_per_iteration_s", "a step"),
        ("cycle_s", "a cycle"),
    ):
        axes.loglog([n for n, _ in rows], [1e3 * row[key] for _, row in rows], "o-", label=label)
    axes.set_xlabel("n of n x n x n cells")
    axes.set_ylabel("ms")
    axes.set_title(found["parts"].get("environment", {}).get("device", ""))
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(to)
    return str(to)
