"""Which tensors a weights file of the `multigrid` network holds. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from petsc_dcdm.network.weights import ModelFile, WeightsError


def shapes(steps: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Of every tensor by its name: `steps` smoothing steps, `hidden` channels of the convolution."""
    fields = steps + 4
    return {
        "conv.weight": (hidden, 8, 3, 3, 3),
        "conv.bias": (hidden,),
        "conv.flags": (3, hidden),
        "hidden.weight": (16, hidden),
        "hidden.bias": (16,),
        "out.weight": (fields, 16),
        "out.bias": (fields,),
        "log_c": (fields,),
    }


def steps_of(tensors: Mapping[str, Any]) -> int:
    """Smoothing steps of a leg, from the tensors of a file."""
    return int(tensors["log_c"].shape[0]) - 4


def check(file: ModelFile) -> None:
    """Raise `WeightsError` unless the hyper-parameters make sense and all tensors are there, float32, in their
    shapes.
    """
    steps, hidden = int(file.number("steps")), int(file.number("hidden"))
    if file.number("threshold") < 1 or steps < 1:
        raise WeightsError(f"{file.source}: steps and threshold must be at least 1; train it again")
    for name, shape in shapes(steps, hidden).items():
        got = file.tensors.get(name)
        if got is None or got.shape != shape or got.dtype != np.float32:
            what = "missing" if got is None else f"{got.dtype} of shape {got.shape}"
            raise WeightsError(
                f"{file.source}: tensor '{name}' is {what}, expected float32 of shape {shape} "
                f"(steps {steps}, hidden {hidden})"
            )
