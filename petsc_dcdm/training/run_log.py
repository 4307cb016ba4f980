"""Tables and curves of a training run in its directory: `loss.csv`, `validation.csv`, `loss.png`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class CsvLog:
    """Appends rows to a table of the run; the header comes from the first row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows_after(self, step: int) -> None:
        """Drop rows beyond `step`: an interrupted run logged them after its last checkpoint."""
        if self.path.is_file():
            rows = read_csv(self.path)
            kept = [row for row in rows if row["step"] <= step]
            self.path.unlink()
            for row in kept:
                self.add(row)

    def add(self, row: dict[str, float]) -> None:
        new = not self.path.is_file()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a table that `CsvLog` wrote."""
    with path.open(newline="") as f:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(f)]


def plot(directories: Sequence[Path], path: Path) -> None:
    """Draw loss curves and validation of runs that continue each other, one after the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    start = 0.0
    for number, directory in enumerate(directories):
        loss = read_csv(directory / "loss.csv")
        validation = read_csv(directory / "validation.csv")
        first = number == 0
        steps = [start + row["step"] for row in loss]
        left.semilogy(steps, [row["loss"] for row in loss], "C0", lw=0.5, label="training" if first else None)
        at = [start + row["step"] for row in validation]
        left.semilogy(at, [row["loss"] for row in validation], "k.-", label="held out" if first else None)
        for colour, name in enumerate(("random_1e-04", "smooth_1e-04", "random_1e-06", "smooth_1e-06")):
            counts = [row[name] if row[name] >= 0 else np.nan for row in validation]
            label = name.replace("_", " right-hand side, to ") if first else None
            right.plot(at, counts, f"C{colour}.-", label=label)
        start = steps[-1]
        if number + 1 < len(directories):
            for panel in (left, right):
                panel.axvline(start, color="grey", lw=0.5)
    left.set(xlabel="step", ylabel=r"$|r - \alpha A f(r)|^2$")
    right.set(xlabel="step", ylabel="DCDM iterations", ylim=(0, 60))
    left.legend()
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
