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


def at_the_moment(runners: list[Runner], shown: list[list[np.ndarray]], moment: float) -> np.ndarray:
    """Side by side, each with the last picture that it had finished so many seconds after its own start."""
    from PIL import Image, ImageDraw

    panels = []
    for runner, own in zip(runners, shown, strict=True):
        finished = int(np.searchsorted(runner.total, moment, side="right"))
        image = Image.fromarray(own[min(max(finished - 1, 0) // EVERY, len(own) - 1)])
        text = f"{runner.name}: step {finished}, {min(moment, runner.total[-1]):.1f} s"
        ImageDraw.Draw(image).text((10, 8), text, fill="white", font_size=20)
        panels.append(np.asarray(image))
    return np.concatenate(panels, axis=1)


def animate(runners: list[Runner], path: Path) -> None:
    """All of both runs, each panel at its own speed."""
    from petsc_dcdm.flow.picture import write_gif

    end = max(runner.total[-1] for runner in runners)
    shown = [pictures(runner) for runner in runners]
    moments = np.linspace(0.0, end, int(LONGEST * FRAMES_PER_SECOND))
    write_gif(path, [at_the_moment(runners, shown, moment) for moment in moments], LONGEST)


def plot(runners: list[Runner], path: Path, title: str) -> None:
    """The moment when the first of them has finished, and the accumulated seconds of pressure and of everything."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6), width_ratios=(2, 1.25), layout="constrained")
    moment = min(runner.total[-1] for runner in runners)
    left.imshow(at_the_moment(runners, [pictures(runner) for runner in runners], moment))
    left.axis("off")
    for runner, colour in zip(runners, ("tab:red", "tab:blue"), strict=True):
        steps = np.arange(1, len(runner.steps) + 1)
        right.plot(steps, runner.pressure, color=colour, label=f"{runner.name}: pressure")
        right.plot(steps, runner.total, color=colour, ls=":", lw=1, label=f"{runner.name}: whole step")
    right.set_xlabel("time step, each with a new matrix")
    right.set_ylabel("accumulated seconds")
    right.set_xlim(0)
    right.set_ylim(0)
    right.legend(frameon=False, fontsize=8)
    right.spines[["top", "right"]].set_visible(False)
    right.set_title(title, fontsize=8, loc="left")
    figure.savefig(path, dpi=100)


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
        runners = [simulate("DCDM", "dcdm", args, cores), simulate("CG + BoomerAMG", RIVAL, args, cores)]
    except subprocess.CalledProcessError as error:
        print(f"race: {error}", file=sys.stderr)
        return 1
    ours, rival = runners
    title = f"Smoke round {args.mesh.name}, {args.size} cells a side, {cores} ranks"
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
