"""Tables and curves of a training run in its directory: `loss.csv`, `validation.csv`, `loss.png`."""

from __future__ import annotations

import csv
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


def plot(directory: Path) -> Path:
    """Draw the loss curve and the validation of a run to `loss.png` in its directory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    loss = read_csv(directory / "loss.csv")
    validation = read_csv(directory / "validation.csv")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    steps = [row["step"] for row in loss]
    left.semilogy(steps, [row["loss"] for row in loss], lw=0.5, alpha=0.4, label="training")
    left.semilogy([row["step"] for row in validation], [row["loss"] for row in validation], "k.-", label="held out")
    left.set(xlabel="step", ylabel=r"$|r - \alpha A f(r)|^2$")
    left.legend()
    for name in ("random_1e-04", "smooth_1e-04", "random_1e-06", "smooth_1e-06"):
        counts = [row[name] if row[name] >= 0 else np.nan for row in validation]
        right.plot(
            [row["step"] for row in validation],
            counts,
            ".-",
            label=name.replace("_", " right-hand side, to "),
        )
    right.set(xlabel="step", ylabel="DCDM iterations", ylim=(0, 60))
    right.legend()
    figure.tight_layout()
    path = directory / "loss.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
