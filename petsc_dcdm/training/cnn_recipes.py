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
        warm_up: steps at the start in which the rate rises from zero: a new Adam moves every weight by the whole
            rate until it has seen how the gradients differ.
        ritz: number m of Ritz vectors (10,000 in the paper).
        exact: 1 for the exact modes of the box in the shares that m Ritz vectors hold of them (`modes.ModeSampler`)
            in place of a Lanczos basis, which takes gigabytes and an hour where m is large; else 0.
        low: standard deviation of the low Ritz coefficients (9 in the paper), 1 for the others.
        follow: number of solver steps for which a residual stays in the batch: after a step of Adam the DCDM
            step of the network replaces it. So the network also sees what it leaves behind, which is what the
            later steps of a solve are made of. 0 in the paper.
        log: 1 for the mean of the logarithms of the samples' losses in place of the mean of the losses: a step of a
            solve then counts by the factor that it takes off the residual, which is what iterations are made of; in
            the mean the steps that are hard for the network drown the others. Else 0, as in the paper.
        energy: 1 for half of that and half the logarithm of what the step leaves of the error's A-norm, which is
            exact here, by sine transforms. The residual alone is short-sighted: a smooth error hardly shows in it until
            the rest is gone, and the steps after that have to do what the first ones left. Needs log=1; else 0.
        bfloat16_until: fraction of the steps whose convolutions run in bfloat16: twice as fast on CPUs that
            have it, and too coarse for the end.
    """

    steps: int
    resolution: int = 32
    batch: int = 4
    rate: float = 1e-3
    final_rate: float = 1e-5
    warm_up: int = 20
    ritz: int = 1000
    exact: int = 0
    low: float = 9.0
    follow: int = 0
    log: int = 0
    energy: int = 0
    bfloat16_until: float = 0.0

    def check(self) -> None:
        """Raise `TrainingError` on a stage that cannot be run."""
        if self.steps < 1:
            raise TrainingError(f"a stage has {self.steps} steps; give at least 1")
        if self.warm_up < 1:
            raise TrainingError(f"a stage has a warm-up of {self.warm_up} steps; give at least 1")
        if self.energy and not self.log:
            raise TrainingError("energy=1 of a stage is a part of log=1; give both")
        if min(self.resolution, self.batch, self.ritz) < 2:
            raise TrainingError(
                f"resolution {self.resolution}, batch {self.batch}, ritz {self.ritz} of a stage: all must be at least 2"
            )


#: The paper's residuals, then also what a solve leaves of them; both on a small box, where a step costs little.
_AT_16 = (
    Stage(500, resolution=16, bfloat16_until=1.0),
    Stage(600, resolution=16, rate=5e-4, low=3.0, follow=8, log=1, bfloat16_until=0.6),
)
_AT_32 = (*_AT_16, Stage(400, rate=5e-4, exact=1, ritz=10000, low=3.0, follow=8, log=1, energy=1, bfloat16_until=0.6))


def _fine(resolution: int) -> Stage:
    """160 careful steps on a box for which the network is already nearly right."""
    schedule = {"rate": 5e-5, "final_rate": 2e-6, "bfloat16_until": 0.7}
    residuals = {"ritz": 10000, "low": 3.0}
    return Stage(160, resolution, 2, exact=1, follow=8, log=1, energy=1, **schedule, **residuals)  # type: ignore[arg-type]


_AT_64 = (*_AT_32, _fine(64))
# Not run yet: a step at 128^3 is one for a GPU.
_AT_128 = (*_AT_64, _fine(128))
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
