"""The stages in which `petsc-dcdm train cnn` trains the published network, and those of the shipped weights."""

from __future__ import annotations

from dataclasses import dataclass, fields


class TrainingError(ValueError):
    """Settings that do not fit each other or the directory of the run; the message says what to do."""


@dataclass(frozen=True)
class Stage:
    """A part of a training with one kind of residuals and one schedule of the rate.

    Attributes:
        steps: steps of Adam.
        resolution: cells along an axis of the box.
        batch: residuals a step.
        rate: Adam's rate at the start of the cosine.
        final_rate: at its end.
        ritz: number m of Ritz vectors (10,000 in the paper).
        low: standard deviation of the low Ritz coefficients (9 in the paper), 1 for the others.
        follow: number of solver steps for which a residual stays in the batch: after a step of Adam the DCDM
            step of the network replaces it. So the network also sees what it leaves behind, which is what the
            later steps of a solve are made of. 0 in the paper.
        bfloat16_until: fraction of the steps whose convolutions run in bfloat16: twice as fast on CPUs that
            have it, and too coarse for the end.
    """

    steps: int
    resolution: int = 32
    batch: int = 4
    rate: float = 1e-3
    final_rate: float = 1e-5
    ritz: int = 1000
    low: float = 9.0
    follow: int = 0
    bfloat16_until: float = 0.0

    def check(self) -> None:
        """Raise `TrainingError` on a stage that cannot be run."""
        if self.steps < 1:
            raise TrainingError(f"a stage has {self.steps} steps; give at least 1")
        if min(self.resolution, self.batch, self.ritz) < 2:
            raise TrainingError(
                f"resolution {self.resolution}, batch {self.batch}, ritz {self.ritz} of a stage: all must be at least 2"
            )


#: The paper's residuals, then also what a solve leaves of them; both on a small box, where a step costs little.
_AT_16 = (
    Stage(500, resolution=16, bfloat16_until=1.0),
    Stage(600, resolution=16, rate=5e-4, low=3.0, follow=8, bfloat16_until=0.6),
)
_AT_32 = (*_AT_16, Stage(400, rate=5e-4, low=3.0, follow=8, bfloat16_until=0.6))
# Where a longer training on a GPU would go on. As it stands, the stage at 64^3 takes one iteration off smooth right-
# hand sides and adds five to random ones (docs/reproduction.md): 700 Ritz vectors are few, the paper has 10,000.
_FINE = {"rate": 2e-5, "final_rate": 1e-6, "ritz": 700, "low": 3.0, "follow": 8, "bfloat16_until": 0.6}
_AT_64 = (*_AT_32, Stage(80, resolution=64, **_FINE))  # type: ignore[arg-type]
_AT_128 = (*_AT_64, Stage(80, resolution=128, **_FINE))  # type: ignore[arg-type]
#: Stages by the resolution of the last one.
RECIPES: dict[int, tuple[Stage, ...]] = {32: _AT_32, 64: _AT_64, 128: _AT_128}


def recipe(resolution: int) -> tuple[Stage, ...]:
    """The stages for a resolution; `TrainingError` where there are none."""
    if resolution not in RECIPES:
        raise TrainingError(
            f"no recipe for a resolution of {resolution}; there are {', '.join(map(str, RECIPES))}. "
            f"Describe another training with --stage"
        )
    return RECIPES[resolution]


def parse(text: str) -> Stage:
    """A stage from ``steps=600,rate=5e-4,follow=8``: names and values of `Stage`.

    Raises:
        TrainingError: an unknown name, a value that is no number, or no steps.
    """
    types = {f.name: int if f.type == "int" else float for f in fields(Stage)}
    values: dict[str, float] = {}
    for word in text.split(","):
        name, _, value = word.partition("=")
        if name not in types:
            raise TrainingError(f"--stage {text}: '{word}' is not NAME=VALUE with a name of {', '.join(types)}")
        try:
            values[name] = types[name](value)
        except ValueError:
            raise TrainingError(f"--stage {text}: {name} is '{value}', expected {types[name].__name__}") from None
    if "steps" not in values:
        raise TrainingError(f"--stage {text}: give its length as steps=NUMBER")
    return Stage(**values)  # type: ignore[arg-type]
