"""`petsc-dcdm train multigrid --matrix A.bin`: fine-tunes the network on the user's own operators.

Reads the matrices, trains on random pieces of their conductances, and judges the result with the real solver on
right-hand sides that training has not seen. A model that got worse is not written.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from petsc_dcdm.training.domains import Rng, System, finish
from petsc_dcdm.training.multigrid_run import check_output, settings_of
from petsc_dcdm.training.train import COARSE_LIMITS, Settings, train_multigrid

HELD_OUT = 2
"""Random right-hand sides to judge by, and as many rich in low frequencies."""
OF_THE_START = ("smoothing", "hidden", "threshold", "share_2d")
"""Options of a training from scratch that the weights to start from, or the matrices, decide here."""
TOLERANCE = 1e-8
MOST_ITERATIONS = 100
PIECE_3D, PIECE_2D = 24, 96
"""Cells along the edges of a piece: dense solves of its coarse system take milliseconds."""


def run(args: argparse.Namespace) -> int:
    """Train, compare, write. 1 if the model got worse (nothing is written then); ValueError for bad input."""
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
        system, free = _read(A, shape)
        systems.append(system)
        right.append([_noise(A, free, system.closed, 1000 + 100 * number + n) for n in range(HELD_OUT)])
    settings = settings_of(
        args,
        replace(Settings(), steps=200, learning_rate=Settings().learning_rate / 3, threshold=file.number("threshold")),
    )
    tensors = fine_tune(file.tensors, systems, settings, _progress(settings.steps))
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
        print(f"iterations to {TOLERANCE:g} on held-out right-hand sides, mean: {before[0]:.2f} > {after[0]:.2f}")
        print(f"residual per iteration, mean factor: {before[1]:.4f} > {after[1]:.4f}")
        if not after[1] < before[1]:
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


def _read(A: PETSc.Mat, shape: Shape | None) -> tuple[System, np.ndarray]:
    """The matrix as a training system, and bool per row: whether it is coupled."""
    pc = PETSc.PC().create()
    comm = PETSc.COMM_WORLD.tompi4py().Dup()
    system = build_system(A, find_grid(pc, A, shape), comm, threshold=None, threads=1)
    faces, extra = system.arrays()
    w = [interior(face) for face in faces]
    free = np.ones(A.getSize()[0], bool)
    free[system.fixed.rows] = False
    found = finish((w[0], w[1], w[2]), interior(extra), system.layout.periodic)
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


def _judge(
    matrices: list[PETSc.Mat], right: list[list[PETSc.Vec]], shape: Shape | None, model: str
) -> tuple[float, float]:
    """Mean iterations and mean factor of the residual per iteration of the plugin with these weights.

    Solved are the given right-hand sides and, as ones that are rich in low frequencies, their solutions.
    """
    database = PETSc.Options("finetune_")
    database["pc_dcdm_model"] = model
    database["pc_dcdm_net"] = "none"  # weights are judged, not what would save a solve from them
    if shape is not None:
        database["pc_dcdm_grid"] = size_text(shape, ",")
    counts, rates = [], []
    for A, vectors in zip(matrices, right, strict=True):
        ksp = PETSc.KSP().create()
        ksp.setOptionsPrefix("finetune_")
        ksp.setOperators(A)
        ksp.setType("python")
        ksp.setPythonType("petsc_dcdm.KSP")
        ksp.setTolerances(rtol=TOLERANCE, atol=0.0, max_it=MOST_ITERATIONS)
        ksp.setFromOptions()
        for noise in vectors:
            b = noise
            for _ in range(2):
                x = b.duplicate()
                ksp.solve(b, x)
                its = max(ksp.getIterationNumber(), 1)
                counts.append(its)
                rates.append(math.log(max(ksp.getResidualNorm() / b.norm(), 1e-300)) / its)
                b = x
        ksp.destroy()
    for name in ("pc_dcdm_model", "pc_dcdm_net", "pc_dcdm_grid"):
        database.delValue(name)
    return float(np.mean(counts)), math.exp(float(np.mean(rates)))


def _progress(steps: int) -> Callable[[int, float], None]:
    every = max(steps // 10, 1)

    def report(step: int, loss: float) -> None:
        if step % every == 0:
            print(f"step {step} of {steps}, loss {loss:.3f}", flush=True)

    return report


def piece(system: System, offset: Shape, shape: Shape) -> System:
    """A box of a system. Where it is cut off the outside is held at zero pressure: its faces count into s. A ring
    that it has all of stays one.
    """
    box = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
    z, y, x = (ring and n == m for ring, n, m in zip(system.periodic, shape, system.shape, strict=True))
    w, s = [], system.s[box].astype(float)
    for axis, face in enumerate(system.w):
        inner = face[box].astype(float)
        low: list[slice | int] = [slice(None)] * 3
        high, beyond = low.copy(), list[slice | int](box)
        end, n = offset[2 - axis] + shape[2 - axis], face.shape[2 - axis]
        low[2 - axis], high[2 - axis], beyond[2 - axis] = 0, -1, end % n
        w.append(inner)
        if (x, y, z)[axis]:
            continue
        s[tuple(low)] += inner[tuple(low)]
        if end < n or system.periodic[2 - axis]:
            s[tuple(high)] += face[tuple(beyond)]
        inner[tuple(low)] = 0.0
    return finish((w[0], w[1], w[2]), s, (z, y, x))


def pieces(systems: Sequence[System]) -> Callable[[Rng], System]:
    """A source of training systems: random pieces, or the whole where it is small. Pieces of under 50 unknowns, and
    those that are solved exactly at once, are drawn again.
    """

    def draw(rng: Rng) -> System:
        for _ in range(100):
            system = systems[int(rng.integers(len(systems)))]
            edge = PIECE_2D if 1 in system.shape else PIECE_3D
            n = tuple(min(size, edge) for size in system.shape)
            z, y, x = (int(rng.integers(size - m + 1)) for size, m in zip(system.shape, n, strict=True))
            found = piece(system, (z, y, x), (n[0], n[1], n[2]))
            if np.count_nonzero(found.active) >= 50 and found.active.size > max(COARSE_LIMITS):
                return found
        raise ValueError(
            "The matrices have too few coupled cells to train on: no piece of them has 50, and more than "
            f"{max(COARSE_LIMITS)} cells in all, without which there is no level for the network."
        )

    return draw


def fine_tune(
    start: dict[str, np.ndarray],
    systems: Sequence[System],
    settings: Settings,
    report: Callable[[int, float], None] | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of a weights file after training on pieces of ``systems``, from ``start`` on."""
    fitted = replace(settings, smoothing=start["log_c"].size - 4, hidden=start["hidden.bias"].size)
    return train_multigrid(fitted, report, start, pieces(systems))
