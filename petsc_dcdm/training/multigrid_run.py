"""`petsc-dcdm train multigrid`: the command around `training.train`: progress, table of iterations, weights
file.
"""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from petsc_dcdm.grid.shape import size_text
from petsc_dcdm.network import weights
from petsc_dcdm.network.initial import HYPER, initial_tensors
from petsc_dcdm.training import validation
from petsc_dcdm.training.domains import FAMILIES
from petsc_dcdm.training.media import MEDIA
from petsc_dcdm.training.train import COARSE_LIMITS, Settings, prepare, solve_plan, train_multigrid

#: Sizes of the validation systems: small, so that their coarse systems are solved densely in seconds.
VALIDATION_SHAPES = ((48, 48, 48), (1, 192, 192))
_DEFAULTS = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `petsc-dcdm train multigrid`."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("multigrid.safetensors"), help="file to write (default %(default)s)")
    add("--steps", type=int, help=f"optimiser steps (default {_DEFAULTS.steps}, fine-tuning 200)")
    add(
        "--seed",
        type=int,
        default=_DEFAULTS.seed,
        help="of the weights and of all systems (default %(default)s)",
    )
    add(
        "--learning-rate",
        type=float,
        help=f"Adam's peak (default {_DEFAULTS.learning_rate}, fine-tuning a third of it)",
    )
    add("--batch", type=int, default=_DEFAULTS.batch, help="systems a step (default %(default)s)")
    add("--share-2d", type=float, help=f"part of the systems in 2D (default {_DEFAULTS.share_2d})")
    add("--media", type=float, help=f"part of the steps with a medium of high contrast (default {_DEFAULTS.media})")
    add("--unroll", type=int, default=_DEFAULTS.unroll, help="DCDM steps in the loss (default %(default)s)")
    add("--smoothing", type=int, help=f"p of the cycle V(p,p) (default {_DEFAULTS.smoothing})")
    add("--hidden", type=int, help=f"channels of the convolution (default {_DEFAULTS.hidden})")
    add("--threshold", type=float, help=f"coarsen axes within it (default {_DEFAULTS.threshold})")
    add("--threads", type=int, default=1, help="torch threads; changes the last digits (default %(default)s)")
    own = parser.add_argument_group("fine-tuning on your own operators")
    own.add_argument("--matrix", nargs="+", help="PETSc binary files, as -ksp_view_mat binary:FILE writes them")
    own.add_argument("--cells", nargs="+", help="for each an index set with the cell of every row")
    own.add_argument("--grid", help="nx,ny[,nz], if the rows are not all cells in order")
    own.add_argument("--start", help="weights to start from (default: the shipped ones)")
    add("--no-validation", action="store_true", help="skip the table of iterations before and after")


def settings_of(args: argparse.Namespace, default: Settings) -> Settings:
    """What the command line says, ``default`` where it is silent."""
    given = {f.name: getattr(args, f.name) for f in fields(Settings)}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def check_output(path: Path) -> None:
    """ValueError where `path` cannot be written, before hours are spent on what is to go there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise ValueError(
            f"--out {path} cannot be written ({error.strerror}); name a file where you may write."
        ) from None


def run(args: argparse.Namespace) -> int:
    """Train, show the loss while it goes, print iterations before and after, write the file.

    Returns the exit code. ValueError for bad options.
    """
    for name in ("cells", "grid", "start"):
        if getattr(args, name):
            raise ValueError(f"--{name} belongs to fine-tuning; give --matrix with it.")
    check_output(args.out)
    torch.set_num_threads(args.threads)
    console = Console()
    settings = settings_of(args, _DEFAULTS)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    begun = time.perf_counter()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("training", total=settings.steps, loss=float("nan"))
        mean = float("nan")

        def report(step: int, loss: float) -> None:
            nonlocal mean
            mean = loss if step == 1 else 0.98 * mean + 0.02 * loss  # single steps jump with the systems they drew
            progress.update(task, completed=step, loss=mean)

        tensors = train_multigrid(settings, report)
    console.print(f"trained in {time.perf_counter() - begun:.0f} s")
    if not args.no_validation:
        untrained = initial_tensors(settings.smoothing, settings.hidden, settings.seed)
        console.print(validation_table(untrained, tensors, settings.threshold, media=settings.media > 0))
    weights.save(
        args.out,
        "multigrid",
        (2, 3),
        tensors,
        training_domain=training_domain(settings),
        seed=settings.seed,
        command=command(settings),
        hyper={
            **HYPER,
            "steps": settings.smoothing,
            "hidden": settings.hidden,
            "threshold": settings.threshold,
        },
    )
    console.print(f"wrote {args.out}")
    return 0


def command(settings: Settings) -> str:
    """The command that repeats a training: only what differs from the defaults."""
    default = Settings()
    words = [
        f"--{f.name.replace('_', '-')} {getattr(settings, f.name)}"
        for f in fields(Settings)
        if f.name in ("steps", "seed") or getattr(settings, f.name) != getattr(default, f.name)
    ]
    return "petsc-dcdm train multigrid " + " ".join(words)


def training_domain(settings: Settings) -> str:
    """One line on what the network saw."""
    return (
        f"random systems of 2D ({settings.share_2d:.0%}) and 3D, up to 20000 cells in 2D and 39000 in 3D: "
        f"{', '.join(FAMILIES)}; {_media(settings)}right-hand sides random, smooth and rich in low frequencies"
    )


def _media(settings: Settings) -> str:
    return (
        f"media of high contrast in {settings.media:.0%} of the steps: {', '.join(MEDIA)}; " if settings.media else ""
    )


def count(tensors: dict[str, np.ndarray], threshold: float, system: validation.System, kind: str) -> int:
    """Iterations to 1e-6 on a validation system."""
    import_tensors = {name: torch.from_numpy(a) for name, a in tensors.items()}
    with torch.no_grad():
        _, precondition = prepare(import_tensors, system, threshold, COARSE_LIMITS[-1])
        op = validation.double_operator(system)
        b = torch.from_numpy(validation.right_hand_side(system, kind, 0))
        return validation.iterations(op, lambda r: precondition(r.float()[None])[0].double(), b, closed=system.closed)[
            0
        ]


def validation_table(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], threshold: float, media: bool = False
) -> Table:
    """Iterations to 1e-6 of two sets of weights on systems kept apart from training; with `media` on media as well."""
    table = Table(title="iterations to 1e-6, untrained > trained, random / smooth right-hand side")
    table.add_column("system")
    for shape in VALIDATION_SHAPES:
        table.add_column(size_text(shape, "x"), justify="right")
    for name, make in {**validation.FAMILIES, **(validation.MEDIA if media else {})}.items():
        cells = []
        for shape in VALIDATION_SHAPES:
            system = make(shape, 0)
            if name in validation.MEDIA:
                system = replace(system, plan=solve_plan(system, threshold))
            pairs = [[count(t, threshold, system, kind) for t in (before, after)] for kind in ("random", "smooth")]
            cells.append(" / ".join(f"{old} > {new}" for old, new in pairs))
        table.add_row(name, *cells)
    return table
