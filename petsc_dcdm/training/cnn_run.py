"""`petsc-dcdm train cnn`: the command around `training.cnn`: progress, logs, checkpoints, weights file."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import torch

from petsc_dcdm.training.cnn import Settings, Trainer, TrainingError
from petsc_dcdm.training.run_log import CsvLog, plot

_DEFAULTS = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `petsc-dcdm train cnn`."""
    add = parser.add_argument
    add("--resolution", type=int, default=64, help="cells along an axis of the training box: 32, 64, 128")
    add(
        "--variant",
        choices=("64", "128"),
        help="the paper's network (default: 128 from resolution 128 on, else 64)",
    )
    add("--steps", type=int, default=0, help="length of the training in steps")
    add(
        "--minutes",
        type=float,
        default=0.0,
        help="length in minutes of wall-clock time (default 60, without --steps)",
    )
    add("--batch", type=int, default=_DEFAULTS.batch, help="residuals a step (default %(default)s)")
    add("--rate", type=float, default=_DEFAULTS.rate, help="Adam's rate at the start (default %(default)s)")
    add(
        "--final-rate",
        type=float,
        default=_DEFAULTS.final_rate,
        help="at the end of the cosine (default %(default)s)",
    )
    add(
        "--ritz",
        type=int,
        default=_DEFAULTS.ritz,
        help="Ritz vectors m (default %(default)s; the paper: 10000)",
    )
    add(
        "--low",
        type=float,
        default=_DEFAULTS.low,
        help="deviation of the low Ritz coefficients (default %(default)s)",
    )
    add("--not-normalised", action="store_true", help="feed residuals of random magnitude, for comparison")
    add("--follow", type=int, default=0, help="solver steps that a residual stays in the batch (the paper: 0)")
    add(
        "--bfloat16-until",
        type=float,
        default=_DEFAULTS.bfloat16_until,
        help="fraction of the schedule in bfloat16",
    )
    add("--seed", type=int, default=0, help="of weights, Lanczos and residuals (default %(default)s)")
    add("--init", default="", help="weights file to start from")
    add("--device", default="auto", help="cpu, cuda or auto")
    add(
        "--run-dir",
        type=Path,
        help="directory of the run; one that exists is resumed (default out/train-cnn-N)",
    )
    add("--output", type=Path, help="weights file to write (default: cnn.safetensors in the run's directory)")
    add("--validate-every", type=int, default=200, help="steps between validations and checkpoints")


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings of parsed options."""
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    minutes = args.minutes if args.minutes or args.steps else 60.0
    return Settings(
        resolution=args.resolution,
        variant=args.variant or ("128" if args.resolution >= 128 else "64"),
        steps=args.steps,
        minutes=minutes,
        batch=args.batch,
        rate=args.rate,
        final_rate=args.final_rate,
        ritz=args.ritz,
        low=args.low,
        normalised=not args.not_normalised,
        follow=args.follow,
        bfloat16_until=args.bfloat16_until,
        seed=args.seed,
        init=args.init,
        device=device,
    )


def run(args: argparse.Namespace) -> int:
    """Train until the schedule ends; returns the exit code. An interruption keeps a checkpoint."""
    directory = args.run_dir or Path("out") / f"train-cnn-{args.resolution}"
    try:
        trainer = Trainer(settings_from(args), directory)
    except (TrainingError, ValueError) as error:
        print(f"petsc-dcdm train cnn: {error}", file=sys.stderr)
        return 2
    output = args.output or directory / "cnn.safetensors"
    command = shlex.join(["petsc-dcdm", "train", "cnn", *_options(args)])
    finished = train(trainer, args.validate_every)
    if not finished:
        print(f"interrupted at step {trainer.step}; the same command goes on from there", file=sys.stderr)
        return 130
    trainer.save_weights(output, command)
    curves = directory / "loss.png"
    plot([directory], curves)
    print(f"{output}: {trainer.step} steps, {trainer.seconds / 60:.1f} min; curves in {curves}")
    return 0


def _options(args: argparse.Namespace) -> list[str]:
    """The options that make the same weights again, as given or by default."""
    s = settings_from(args)
    words = ["--resolution", str(s.resolution), "--variant", s.variant, "--batch", str(s.batch)]
    words += ["--steps", str(s.steps)] if s.steps else ["--minutes", f"{s.minutes:g}"]
    words += [
        "--rate",
        f"{s.rate:g}",
        "--final-rate",
        f"{s.final_rate:g}",
        "--ritz",
        str(s.ritz),
        "--low",
        f"{s.low:g}",
    ]
    words += ["--bfloat16-until", f"{s.bfloat16_until:g}", "--seed", str(s.seed)]
    words += ["--follow", str(s.follow)] if s.follow else []
    words += [] if s.normalised else ["--not-normalised"]
    words += ["--init", Path(s.init).name] if s.init else []
    return words


def train(trainer: Trainer, validate_every: int) -> bool:
    """Run the schedule with a progress bar and logs. False when interrupted by the keyboard."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    loss_log = CsvLog(trainer.directory / "loss.csv")
    validation_log = CsvLog(trainer.directory / "validation.csv")
    for log in (loss_log, validation_log):
        log.rows_after(trainer.step)
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), "{task.percentage:>5.1f}%", TimeElapsedColumn())
    recent: list[float] = []
    shown = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=1.0)
        try:
            while trainer.progress < 1.0:
                loss = trainer.train_step()
                recent = [*recent, loss][-50:]
                loss_log.add({"step": trainer.step, "seconds": round(trainer.seconds, 2), "loss": loss})
                mean = sum(recent) / len(recent)
                line = f"step {trainer.step}  loss {mean:.4f}"
                bar.update(task, completed=trainer.progress, description=line)
                if not console.is_terminal and time.monotonic() - shown > 30.0:
                    console.print(f"{100 * trainer.progress:5.1f}%  {line}")
                    shown = time.monotonic()
                if trainer.step % validate_every == 0 or trainer.progress >= 1.0:
                    result = trainer.validate()
                    validation_log.add({"step": trainer.step, "seconds": round(trainer.seconds, 2), **result})
                    console.print(f"step {trainer.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in result.items()))
                    trainer.save_checkpoint()
        except KeyboardInterrupt:
            trainer.save_checkpoint()
            return False
    return True
