"""`petsc-dcdm train cnn`: the command around `training.cnn`: progress, logs, checkpoints, weights file."""

from __future__ import annotations

import argparse
import ctypes
import shlex
import sys
import time
from pathlib import Path

import torch

from petsc_dcdm.training.cnn import Settings, Trainer
from petsc_dcdm.training.cnn_recipes import RECIPES, parse, recipe
from petsc_dcdm.training.run_log import CsvLog, plot

_SECONDS_BETWEEN_CHECKPOINTS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `petsc-dcdm train cnn`."""
    add = parser.add_argument
    add(
        "--resolution",
        type=int,
        default=32,
        help=f"train with the built-in stages up to a box of so many cells along an axis: "
        f"{', '.join(map(str, RECIPES))}; 32 makes the shipped cnn, 64 cnn-64 (default %(default)s)",
    )
    add(
        "--stage",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="another recipe, a stage each time it is given: steps, resolution, batch, rate, final_rate, "
        "warm_up, ritz, exact, low, follow, log, energy, bfloat16_until",
    )
    add("--variant", choices=("64", "128"), help="the paper's network (default: 128 at resolution 128, else 64)")
    add("--seed", type=int, default=0, help="of weights, Lanczos and residuals (default %(default)s)")
    add("--threads", type=int, default=1, help="torch threads; changes the last digits (default %(default)s)")
    add("--init", default="", help="weights file to start from")
    add("--device", default="auto", help="cpu, cuda or auto")
    add(
        "--run-dir",
        type=Path,
        help="directory of the run; one that exists is resumed (default out/train-cnn-N)",
    )
    add("--out", type=Path, help="weights file to write (default: cnn.safetensors in the run's directory)")
    add("--validate-every", type=int, default=100, help="steps between validations (default %(default)s)")


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings of parsed options; `TrainingError` on stages that make no sense."""
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    stages = tuple(parse(text) for text in args.stage) or recipe(args.resolution)
    variant = args.variant or ("128" if stages[-1].resolution >= 128 else "64")
    return Settings(stages=stages, variant=variant, seed=args.seed, init=args.init, device=device)


def run(args: argparse.Namespace) -> int:
    """Train until the last stage ends; returns the exit code. An interruption keeps a checkpoint."""
    _keep_freed_memory()
    torch.set_num_threads(args.threads)
    try:
        settings = settings_from(args)
        directory = args.run_dir or Path("out") / f"train-cnn-{settings.stages[-1].resolution}"
        trainer = Trainer(settings, directory)
    except ValueError as error:
        print(f"petsc-dcdm train cnn: {error}", file=sys.stderr)
        return 2
    output = args.out or directory / "cnn.safetensors"
    if not train(trainer, args.validate_every):
        print(f"interrupted at step {trainer.step}; the same command goes on from there", file=sys.stderr)
        return 130
    trainer.save_weights(output, _command(args, settings))
    curves = directory / "loss.png"
    plot(directory, settings.stages, curves)
    print(f"{output}: {trainer.step} steps, {trainer.seconds / 60:.1f} min; curves in {curves}")
    return 0


def _command(args: argparse.Namespace, settings: Settings) -> str:
    """The command that makes the same weights again."""
    words = ["petsc-dcdm", "train", "cnn", "--variant", settings.variant, "--seed", str(settings.seed)]
    for text in args.stage:
        words += ["--stage", text]
    words += [] if args.stage else ["--resolution", str(args.resolution)]
    words += ["--threads", str(args.threads)] if args.threads != 1 else []
    words += ["--init", Path(settings.init).name] if settings.init else []
    return shlex.join(words)


def train(trainer: Trainer, validate_every: int) -> bool:
    """Run the stages with a progress bar and logs. False when interrupted by the keyboard."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    loss_log = CsvLog(trainer.directory / "loss.csv")
    validation_log = CsvLog(trainer.directory / "validation.csv")
    for log in (loss_log, validation_log):
        log.rows_after(trainer.step)
    total = trainer.settings.steps
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), "{task.percentage:>5.1f}%", TimeElapsedColumn())
    recent: list[float] = []
    shown = saved = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=total)
        try:
            while trainer.step < total:
                loss = trainer.train_step()
                recent = [*recent, loss][-50:]
                loss_log.add({"step": trainer.step, "seconds": round(trainer.seconds, 2), "loss": loss})
                mean = sum(recent) / len(recent)
                line = f"step {trainer.step} of {total}  {trainer.stage.resolution}^3  loss {mean:.4f}"
                bar.update(task, completed=trainer.step, description=line)
                if not console.is_terminal and time.monotonic() - shown > 30.0:
                    console.print(line)
                    shown = time.monotonic()
                judged = trainer.step % validate_every == 0 or trainer.step == total
                if judged:
                    result = trainer.validate()
                    validation_log.add({"step": trainer.step, "seconds": round(trainer.seconds, 2), **result})
                    console.print(f"step {trainer.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in result.items()))
                if judged or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    trainer.save_checkpoint()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            trainer.save_checkpoint()
            return False
    return True


def _keep_freed_memory() -> None:
    """Tell glibc to keep the blocks that a step frees for the next one.

    Else they go back to the kernel, which hands out zeroed pages: a sixth to a half of a step at 64^3.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)
