"""What the parts of the method are worth: the history m, the normalisation, the bias of the training data.

    python -m petsc_dcdm.studies.paper.ablation --model cnn --size 32 --json out/paper-ablation.json

History and normalisation are varied with trained weights; what the network is trained on needs trainings of
its own, short ones with everything else equal.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from petsc_dcdm.network import weights
from petsc_dcdm.network.cnn import DcdmNet, from_file, inferred
from petsc_dcdm.training.cnn import Settings, Trainer
from petsc_dcdm.training.cnn_recipes import Stage
from petsc_dcdm.training.dcdm import dcdm_history, random_rhs, smooth_rhs, unit_rms
from petsc_dcdm.training.ritz import box_operator

HISTORIES = (0, 1, 2, 4)
MOST = 100
RHS_SEED = 11

Counts = dict[str, list[int | None]]


def counts(direction: Callable[[Tensor], Tensor], size: int, history: int = 2) -> Counts:
    """Iterations to 1e-4 and to 1e-6 on the box, per right-hand side; None where MOST do not suffice."""
    result: Counts = {}
    for name, b in (("random", random_rhs(size, RHS_SEED)), ("smooth", smooth_rhs(size, RHS_SEED))):
        norms = dcdm_history(box_operator, direction, b, tolerance=1e-6, most=MOST, history=history)
        result[name] = [next((k for k, v in enumerate(norms) if v <= t), None) for t in (1e-4, 1e-6)]
    return result


def normalised(net: DcdmNet) -> Callable[[Tensor], Tensor]:
    """r -> f(r / |r|)."""

    def direction(r: Tensor) -> Tensor:
        with torch.no_grad():
            return net(unit_rms(r[None, None].float()), inferred)[0, 0].double()

    return direction


def as_it_comes(net: DcdmNet) -> Callable[[Tensor], Tensor]:
    """r -> f(c r), with the constant c that makes the first residual of a solve a normalised one."""
    scale: list[float] = []

    def direction(r: Tensor) -> Tensor:
        if not scale or float(r.square().mean().sqrt()) * scale[0] > 1.0 + 1e-9:
            scale[:] = [float(1.0 / r.square().mean().sqrt())]
        with torch.no_grad():
            return net((scale[0] * r[None, None]).float(), inferred)[0, 0].double()

    return direction


def history_and_normalisation(net: DcdmNet, size: int) -> dict[str, Counts]:
    """Counts for each m, and without normalisation."""
    result = {f"m = {m}": counts(normalised(net), size, m) for m in HISTORIES}
    result["m = 2, r not normalised"] = counts(as_it_comes(net), size)
    return result


def short_trainings(steps: int, resolution: int) -> dict[str, Counts]:
    """Counts after short trainings of equal length that differ in their residuals."""

    def halves(second: dict[str, Any], **first: Any) -> tuple[Stage, Stage]:
        shared: dict[str, Any] = {"resolution": resolution, "ritz": min(2000, resolution**3 // 2)}
        return (
            Stage(steps // 2, bfloat16_until=1.0, **shared, **first),
            Stage(steps // 2, rate=5e-4, **shared, **second),
        )

    three, one = {"low": 3.0}, {"low": 1.0}
    choices = {
        "low Ritz vectors at 9 : 1, normalised (the paper)": Settings(halves({})),
        "low Ritz vectors at 3 : 1": Settings(halves(three, **three)),
        "low Ritz vectors at 1 : 1": Settings(halves(one, **one)),
        "trained on residuals of any magnitude, not normalised": Settings(halves({}), normalised=False),
        "the paper's, then followed through 8 solver steps": Settings(halves({"follow": 8})),
        "followed through 8 solver steps from the start": Settings(halves({"follow": 8}, follow=8)),
    }
    result = {}
    with tempfile.TemporaryDirectory() as name:
        for number, (label, settings) in enumerate(choices.items()):
            trainer = Trainer(settings, Path(name) / str(number))
            while trainer.step < settings.steps:
                trainer.train_step()
            direction = normalised(trainer.net) if settings.normalised else as_it_comes(trainer.net)
            result[label] = counts(direction, resolution)
            print(f"{label}: {result[label]}", flush=True)
    return result


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.paper.ablation", description=__doc__)
    parser.add_argument("--model", default="cnn", help="weights of the network")
    parser.add_argument("--size", type=int, default=32, help="cells along an axis")
    parser.add_argument("--steps", type=int, default=400, help="length of the short trainings; 0 for none")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(arguments)
    table = history_and_normalisation(from_file(weights.load(args.model)), args.size)
    print(table)
    trainings = short_trainings(args.steps, args.size) if args.steps else {}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(
        json.dumps({"size": args.size, "steps": args.steps, "solver": table, "training": trainings}, indent=1)
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
