"""`petsc-dcdm train multigrid --matrix A.bin`: fine-tunes the network on the user's own operators.

Reads the matrices and how a solve coarsens them, trains on random pieces of their conductances, and judges the result
with the real solver on right-hand sides that training has not seen. A model that got no better is not written.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from petsc4py import PETSc

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.shape import Shape, shape_option, size_text
from petsc_dcdm.network import weights
from petsc_dcdm.poisson import io
from petsc_dcdm.stencil.discovery import find_grid
from petsc_dcdm.stencil.system import build_system
from petsc_dcdm.training.domains import System, finish
from petsc_dcdm.training.finetune import fine_tune
from petsc_dcdm.training.multigrid_run import check_output, settings_of
from petsc_dcdm.training.train import Settings

HELD_OUT = 2
"""Random right-hand sides to judge by, and as many rich in low frequencies."""
OF_THE_START = ("smoothing", "hidden", "threshold", "share_2d", "media")
"""Options of a training from scratch that the weights to start from, or the matrices, decide here."""
TOLERANCE = 1e-8
MOST_ITERATIONS = 100


@dataclass(frozen=True)
class Verdict:
    """What weights did on the held-out right-hand sides: mean and most iterations to `TOLERANCE`, mean factor of the
    residual per iteration, and seconds of a solve, the mean.
    """

    mean: float
    most: int
    rate: float
    seconds: float

    def better_than(self, other: Verdict) -> bool:
        """Whether steps gain more, and no more of them are needed; not how long they took on a machine that may have
        had other things to do.
        """
        return self.rate < other.rate and self.mean <= other.mean


def run(args: argparse.Namespace) -> int:
    """Train, compare, write. 1 if the model got no better (nothing is written then); ValueError for bad input."""
    if PETSc.COMM_WORLD.getSize() > 1:
        raise ValueError("Training runs on one rank: start it without mpirun.")
    if args.cells and len(args.cells) != len(args.matrix):
        raise ValueError(f"{len(args.matrix)} matrices need as many --cells, not {len(args.cells)}.")
    for name in OF_THE_START:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is that of the weights to start from; leave it out.")
    check_output(args.out)
    torch.set_num_threads(args.threads)
    start = args.start or "multigrid"
    file = weights.load(start)
    if file.kind != "multigrid":
        raise ValueError(f"{file.source} holds a '{file.kind}' network, where 'multigrid' is needed.")
    shape = shape_option("grid", args.grid) if args.grid else None
    matrices = [io.load_matrix(name) for name in args.matrix]
    for A, name in zip(matrices, args.cells or [], strict=False):
        A.compose("dcdm_cells", io.load_cells(name, A))
    systems, right = [], []
    for number, A in enumerate(matrices):
        system, free = _read(A, shape, file.number("threshold"))
        if system.plan == ():
            raise ValueError(
                f"{args.matrix[number]}: a solve leaves the grid at once, so no level of it is the network's and there "
                "is nothing to train; leave this matrix out, the solver serves it without."
            )
        systems.append(system)
        right.append([_noise(A, free, system.closed, 1000 + 100 * number + n) for n in range(HELD_OUT)])
    settings = settings_of(
        args,
        replace(Settings(), steps=200, learning_rate=Settings().learning_rate / 3, threshold=file.number("threshold")),
    )
    begun = time.perf_counter()
    tensors = fine_tune(file.tensors, systems, settings, _progress(settings.steps))
    took = time.perf_counter() - begun
    with tempfile.TemporaryDirectory(dir=args.out.resolve().parent) as folder:
        new = Path(folder) / args.out.name
        weights.save(
            new,
            "multigrid",
            file.dims,
            tensors,
            training_domain=f"{file.meta['training_domain']}; then {', '.join(Path(m).name for m in args.matrix)}",
            seed=settings.seed,
            command=_command(args, settings),
            hyper={key: value for key, value in file.meta.items() if key not in weights.REQUIRED_META},
        )
        before, after = (_judge(matrices, right, shape, str(model)) for model in (start, new))
        print(
            f"iterations to {TOLERANCE:g} on held-out right-hand sides, mean: {before.mean:.2f} > {after.mean:.2f}, "
            f"most: {before.most} > {after.most}"
        )
        print(f"residual per iteration, mean factor: {before.rate:.4f} > {after.rate:.4f}")
        print(
            f"a solve, mean: {1e3 * before.seconds:.1f} > {1e3 * after.seconds:.1f} ms, after {took:.0f} s of training"
        )
        if not after.better_than(before):
            print(f"petsc-dcdm: the trained model is no better than {start}; not saved.", file=sys.stderr)
            return 1
        new.replace(args.out)
    print(f"wrote {args.out}")
    return 0


def _command(args: argparse.Namespace, settings: Settings) -> str:
    """The command that repeats the training."""
    words = ["petsc-dcdm", "train", "multigrid", "--matrix", *args.matrix]
    words += ["--cells", *args.cells] if args.cells else []
    for name in ("grid", "start"):
        words += [f"--{name}", getattr(args, name)] if getattr(args, name) else []
    for name in ("steps", "seed", "batch", "unroll", "learning_rate"):
        words += [f"--{name.replace('_', '-')}", f"{getattr(settings, name):g}"]
    return shlex.join(words)


def _read(A: PETSc.Mat, shape: Shape | None, threshold: float) -> tuple[System, np.ndarray]:
    """The matrix as a training system, with the plan of a solve, and bool per row: whether it is coupled."""
    pc = PETSc.PC().create()
    comm = PETSc.COMM_WORLD.tompi4py().Dup()
    system = build_system(A, find_grid(pc, A, shape), comm, threshold=threshold, threads=1)
    faces, extra = system.arrays()
    w = [interior(face) for face in faces]
    free = np.ones(A.getSize()[0], bool)
    free[system.fixed.rows] = False
    whole = finish((w[0], w[1], w[2]), interior(extra), system.layout.periodic)
    found = replace(whole, plan=system.layout.plan)
    system.destroy()
    comm.Free()
    pc.destroy()
    return found, free


def _noise(A: PETSc.Mat, free: np.ndarray, closed: bool, seed: int) -> PETSc.Vec:
    """White noise on the coupled rows, consistent where the system is closed."""
    values = np.random.default_rng(seed).standard_normal(free.size) * free
    if closed:
        values -= free * (values.sum() / np.count_nonzero(free))
    b = A.createVecLeft()
    b.setArray(values)
    return b


def _judge(matrices: list[PETSc.Mat], right: list[list[PETSc.Vec]], shape: Shape | None, model: str) -> Verdict:
    """The plugin with these weights.

    Solved are the given right-hand sides and, as ones that are rich in low frequencies, their solutions.
    """
    database = PETSc.Options("finetune_")
    database["pc_dcdm_model"] = model
    database["pc_dcdm_net"] = "none"  # weights are judged, not what would save a solve from them
    if shape is not None:
        database["pc_dcdm_grid"] = size_text(shape, ",")
    counts, rates, seconds = [], [], []
    for A, vectors in zip(matrices, right, strict=True):
        ksp = PETSc.KSP().create()
        ksp.setOptionsPrefix("finetune_")
        ksp.setOperators(A)
        ksp.setType("python")
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=TOLERANCE, atol=0.0, max_it=MOST_ITERATIONS)
        ksp.setFromOptions()
        ksp.setUp()
        for noise in vectors:
            b = noise
            for _ in range(2):
                x = b.duplicate()
                begun = time.perf_counter()
                ksp.solve(b, x)
                seconds.append(time.perf_counter() - begun)
                its = max(ksp.getIterationNumber(), 1)
                counts.append(its)
                rates.append(math.log(max(ksp.getResidualNorm() / b.norm(), 1e-300)) / its)
                b = x
        ksp.destroy()
    for name in ("pc_dcdm_model", "pc_dcdm_net", "pc_dcdm_grid"):
        database.delValue(name)
    return Verdict(float(np.mean(counts)), max(counts), math.exp(float(np.mean(rates))), float(np.mean(seconds)))


def _progress(steps: int) -> Callable[[int, float], None]:
    every = max(steps // 10, 1)

    def report(step: int, loss: float) -> None:
        if step % every == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}", flush=True)

    return report
