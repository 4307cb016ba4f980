"""A solve on a device by the loop of the GPU backend, and the same in double precision on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.backends.gpu.backend import GpuBackend
from petsc_dcdm.backends.gpu.coarse import DenseInverse
from petsc_dcdm.backends.gpu.loop import GpuLoop
from petsc_dcdm.network.fields import no_exchange
from petsc_dcdm.network.multigrid import TorchHierarchy, apply_operator, operator_from_arrays
from petsc_dcdm.network.weights import ModelFile


class OnDevice:
    """An array of the device, as the loop takes one; see `petsc_dcdm.backends.base.DeviceArray`."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.address = tensor, id(self)

    def reading(self) -> torch.Tensor:
        return self.tensor

    writing = reading


@dataclass
class Solve:
    """Iterations to the tolerance, |r| after each of them over the first, and seconds."""

    iterations: int
    history: list[float]
    seconds: float
    x: torch.Tensor


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, work: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - begin)
    return best


def made_ready(file: ModelFile, problem: Problem, device: torch.device, history: int = 2) -> tuple[GpuBackend, GpuLoop]:
    """Set-up, all of it: fields, levels, the coarse inverse, the graphs."""
    backend = GpuBackend(file, problem, str(device))
    operator = backend.operator(problem)
    assert operator is not None, "the grid has one level only"
    return backend, operator.loop(history)


def solve(loop: GpuLoop, b: torch.Tensor, rtol: float = 1e-6, most: int = 60) -> Solve:
    """From x = 0, with b and x on the device."""
    x, right = torch.zeros_like(b), OnDevice(b)
    wait(b.device)
    begin = time.perf_counter()
    first = norm = float(torch.linalg.vector_norm(b))
    out = OnDevice(x)
    loop.start(out, out, right, guess=False)
    history: list[float] = []
    while len(history) < most:
        norm = loop.step(norm).norm
        history.append(norm / first)
        if norm <= rtol * first:
            norm = loop.residual(right)
            if norm <= rtol * first:
                break
    loop.store()
    wait(b.device)
    return Solve(len(history), history, time.perf_counter() - begin, x)


class Reference:
    """The network as it is written, in torch on the CPU, and the matrix in double precision."""

    def __init__(self, file: ModelFile, problem: Problem) -> None:
        w, s = problem.arrays()
        layout = problem.layout
        self.network = TorchHierarchy(file, w, s, layout, "cpu")
        inverse = DenseInverse(self.network.coarse, layout.periodic, torch.device("cpu"))
        cell, n = inverse.cell.numpy(), inverse.cell.numel()
        matrix = inverse.matrix[:n, :n].numpy()

        def solve_coarse(r: np.ndarray) -> np.ndarray:
            out = np.zeros(r.size, np.float32)
            out[cell] = matrix @ r.reshape(-1)[cell]
            return out.reshape(r.shape)

        self.network.coarse_solve = solve_coarse
        self._operator = operator_from_arrays(w, s, layout.global_shape, dtype=torch.float64)
        self._scale = problem.scale

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """The matrix times x."""
        return self._scale * apply_operator(self._operator, x, no_exchange)

    def solve(self, b: torch.Tensor, rtol: float = 1e-6, most: int = 60, history: int = 2) -> Solve:
        """The method in double precision."""
        x, r = torch.zeros_like(b), b.clone()
        begin, first = time.perf_counter(), float(torch.linalg.vector_norm(b))
        before: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        norms: list[float] = []
        while len(norms) < most:
            d = torch.empty_like(b)
            self.network.apply(r.numpy(), d.numpy(), 1.0 / float(torch.linalg.vector_norm(r)), 1.0)
            for p, product, energy in before:
                d = d - float((d * product).sum()) / energy * p
            product = self.multiply(d)
            energy = float((d * product).sum())
            alpha = float((r * d).sum()) / energy
            x, r = x + alpha * d, r - alpha * product
            before = [*before, (d, product, energy)][-history:]
            norms.append(float(torch.linalg.vector_norm(r)) / first)
            if norms[-1] <= rtol:
                break
        return Solve(len(norms), norms, time.perf_counter() - begin, x)
