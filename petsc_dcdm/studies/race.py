"""One simulation, two pressure solvers: accumulated time, and an animation where each panel runs at its own speed.

python -m petsc_dcdm.studies.race [--size 64] [--steps 100] [--mesh meshes/fox.obj] [--out out/race]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petsc_dcdm.compare.baselines import BASELINES

ROOT = Path(__file__).resolve().parents[2]
RIVAL = "boomeramg-tuned"
EVERY = 2
"""Steps between pictures."""

FRAMES_PER_SECOND = 20
LONGEST = 12.0
"""Seconds that the slower panel takes in the animation; both are shown that much faster than they ran."""


@dataclass
class Runner:
    """A solver in the race: its steps as `petsc-dcdm flow --json` tells them, and the folder of its pictures."""

    name: str
    steps: list[dict[str, float]]
    frames: Path

    @property
    def pressure(self) -> np.ndarray:
        """Seconds spent on pressure, set-up included, up to the end of each step."""
        return np.cumsum([s["setup_s"] + s["solve_s"] for s in self.steps])

    @property
    def total(self) -> np.ndarray:
        """Seconds of the whole simulation up to the end of each step."""
        return np.cumsum([s["step_s"] for s in self.steps])


def simulate(name: str, solver: str, args: argparse.Namespace, ranks: int) -> Runner:
    """The plume round a swinging body with one solver, in processes of its own; CalledProcessError if it fails."""
    frames = args.out / solver
    command = [sys.executable, "-m", "petsc_dcdm", "flow", "plume", "--moving", f"--mesh={args.mesh}"]
    command += [f"--size={args.size}", f"--steps={args.steps}", f"--every={EVERY}"]
    command += [f"--frames={frames}", f"--json={frames}.json", *BASELINES[solver].on(ranks, 1).split()]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    if ranks > 1:
        command = ["mpirun", "-n", str(ranks), *command]
        env["OMP_NUM_THREADS"] = "1"
    args.out.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, env=env, cwd=ROOT)
    return Runner(name, json.loads(Path(f"{frames}.json").read_text()), frames)


def pictures(runner: Runner) -> list[np.ndarray]:
    """In the order of the steps."""
    from PIL import Image

    return [np.asarray(Image.open(path)) for path in sorted(runner.frames.glob("[0-9]*.png"))]


def animate(runners: list[Runner], path: Path) -> None:
    """Side by side, each with the pictures that it had finished at that moment of its own run."""
    from PIL import Image, ImageDraw

    from petsc_dcdm.flow.picture import write_gif

    end = max(runner.total[-1] for runner in runners)
    shown = [pictures(runner) for runner in runners]
    images = []
    count = int(LONGEST * FRAMES_PER_SECOND)
    for moment in np.linspace(0.0, end, count):
        panels = []
        for runner, own in zip(runners, shown, strict=True):
            finished = int(np.searchsorted(runner.total, moment, side="right"))
            image = Image.fromarray(own[min(max(finished - 1, 0) // EVERY, len(own) - 1)])
            draw = ImageDraw.Draw(image)
            draw.text((8, 6), f"{runner.name}: step {finished}, {min(moment, runner.total[-1]):.1f} s", fill="white")
            panels.append(np.asarray(image))
        images.append(np.concatenate(panels, axis=1))
    write_gif(path, images, LONGEST)


def plot(runners: list[Runner], path: Path, title: str) -> None:
    """A picture of the flow, and the accumulated seconds of pressure and of everything."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4), width_ratios=(1, 1.6), layout="constrained")
    left.imshow(pictures(runners[0])[-1])
    left.axis("off")
    for runner, colour in zip(runners, ("tab:red", "tab:blue"), strict=True):
        steps = np.arange(1, len(runner.steps) + 1)
        right.plot(steps, runner.pressure, color=colour, label=f"{runner.name}: pressure")
        right.plot(steps, runner.total, color=colour, ls=":", lw=1, label=f"{runner.name}: whole step")
    right.set_xlabel("time step, each with a new matrix")
    right.set_ylabel("accumulated seconds")
    right.set_xlim(0)
    right.set_ylim(0)
    right.legend(frameon=False)
    right.spines[["top", "right"]].set_visible(False)
    right.set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Run the race; exit code 1 where a simulation failed."""
    parser = argparse.ArgumentParser(description="One simulation with two pressure solvers.")
    parser.add_argument("--size", default="64", help="cells, N or NX,NY,NZ (default 64)")
    parser.add_argument("--steps", type=int, default=100, help="time steps (default 100)")
    parser.add_argument("--mesh", type=Path, default=ROOT / "meshes" / "fox.obj", help="a closed surface, z up")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "race", help="folder of the results")
    args = parser.parse_args(argv)
    args.out, args.mesh = args.out.resolve(), args.mesh.resolve()
    cores = len(os.sched_getaffinity(0))
    try:
        runners = [
            simulate("DCDM", "dcdm", args, 1),
            simulate("CG + BoomerAMG", RIVAL, args, cores if cores > 1 else 1),
        ]
    except subprocess.CalledProcessError as error:
        print(f"race: {error}", file=sys.stderr)
        return 1
    ours, rival = runners
    title = f"Plume round {args.mesh.name}, {args.size} cells, {cores} cores, divergence left below 1e-6"
    plot(runners, args.out / "race.png", title)
    animate(runners, args.out / "race.gif")
    print(
        f"{len(ours.steps)} steps: pressure {ours.pressure[-1]:.1f} s with {ours.name}, {rival.pressure[-1]:.1f} s "
        f"with {rival.name} ({rival.pressure[-1] / ours.pressure[-1]:.1f} times); "
        f"whole simulation {ours.total[-1]:.1f} and {rival.total[-1]:.1f} s\n"
        f"{args.out / 'race.png'}\n{args.out / 'race.gif'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
