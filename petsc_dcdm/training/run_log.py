"""Tables and curves of a training run in its directory: `loss.csv`, `validation.csv`, `loss.png`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from petsc_dcdm.training.cnn_recipes import Stage


class CsvLog:
    """Appends rows to a table of the run; the header comes from the first row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows_after(self, step: int) -> None:
        """Drop rows beyond `step`: an interrupted run logged them after its last checkpoint."""
        if self.path.is_file():
            kept = CsvLog(self.path.with_suffix(".part"))
            kept.path.unlink(missing_ok=True)
            for row in read_csv(self.path):
                if row["step"] <= step:
                    kept.add(row)
            if kept.path.is_file():
                kept.path.replace(self.path)
            else:
                self.path.unlink()

    def add(self, row: dict[str, float]) -> None:
        new = not self.path.is_file()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a table that `CsvLog` wrote; a last one that was cut off by the end of its process is none."""
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def plot(directory: Path, stages: Sequence[Stage], path: Path) -> None:
    """Draw the loss and the validation of a run, with a line between its stages."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    loss, validation = read_csv(directory / "loss.csv"), read_csv(directory / "validation.csv")
    left.semilogy([row["step"] for row in loss], [row["loss"] for row in loss], "C0", lw=0.5, label="training")
    at = [row["step"] for row in validation]
    left.semilogy(at, [row["loss"] for row in validation], "k.-", label="held out")
    for colour, name in enumerate(("random_1e-04", "smooth_1e-04", "random_1e-06", "smooth_1e-06")):
        counts = [row[name] if row[name] >= 0 else np.nan for row in validation]
        right.plot(at, counts, f"C{colour}.-", label=name.replace("_", " right-hand side, to "))
    end = 0
    for stage in stages:
        end += stage.steps
        for panel in (left, right):
            panel.axvline(end, color="grey", lw=0.5)
    left.set(xlabel="step", ylabel=r"$|r - \alpha A f(r)|^2$")
    right.set(xlabel="step", ylabel="DCDM iterations", ylim=(0, 60))
    left.legend()
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
