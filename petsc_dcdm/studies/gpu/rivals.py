"""What one would run on a GPU instead: other weights in the same loop, conjugate gradients, the network in torch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.network.fields import no_exchange
from petsc_dcdm.network.initial import HYPER, initial_tensors
from petsc_dcdm.network.multigrid import TorchHierarchy, cycle
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.studies.gpu.solves import timed


def chebyshev() -> ModelFile:
    """The network before training: a V(4,4) cycle with the weights of Chebyshev, nothing learned."""
    meta = {name: str(value) for name, value in HYPER.items()}
    return ModelFile("multigrid", (2, 3), initial_tensors(4, 16, 0), meta, "Chebyshev")


def damped_jacobi() -> ModelFile:
    """A geometric V(2,2) cycle with damped Jacobi steps, as textbooks have it."""
    tensors = initial_tensors(2, 16, 0)
    tensors["log_c"][:2] = np.log(0.8)
    return ModelFile("multigrid", (2, 3), tensors, {**{k: str(v) for k, v in HYPER.items()}, "steps": "2"}, "Jacobi")


def csr(problem: Problem, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix as torch's CSR on the device, and its diagonal; cells without an unknown get 1 on it."""
    w, s = problem.arrays()
    n = s.size
    number = np.arange(n, dtype=np.int64).reshape(s.shape)
    d = s.astype(np.float64).copy()
    rows, columns, values = [], [], []
    for axis, face in enumerate(w):
        i = 2 - axis
        here, below = np.moveaxis(number, i, 0)[1:], np.moveaxis(number, i, 0)[:-1]
        value = np.moveaxis(face, i, 0)[1:]
        on = value > 0
        np.moveaxis(d, i, 0)[1:] += value
        np.moveaxis(d, i, 0)[:-1] += value
        for a, b in ((here, below), (below, here)):
            rows.append(a[on])
            columns.append(b[on])
            values.append(-value[on])
    d[d == 0] = 1.0
    rows.append(number.ravel())
    columns.append(number.ravel())
    values.append(d.ravel())
    at = torch.from_numpy(np.stack([np.concatenate(rows), np.concatenate(columns)])).to(device)
    entries = torch.from_numpy(np.concatenate(values)).to(device) * problem.scale
    matrix = torch.sparse_coo_tensor(at, entries, (n, n)).coalesce().to_sparse_csr()
    return matrix, torch.from_numpy(d.ravel()).to(device) * problem.scale


def conjugate_gradients(problem: Problem, b: torch.Tensor, rtol: float = 1e-6, most: int = 5000) -> dict[str, Any]:
    """Jacobi-preconditioned, with torch's product of a CSR matrix (cuSPARSE on CUDA)."""
    begin = time.perf_counter()
    matrix, d = csr(problem, b.device)
    made = time.perf_counter() - begin
    right = b.reshape(-1)
    found = [0, 0.0]

    def run() -> None:
        x, r = torch.zeros_like(right), right.clone()
        z = r / d
        p, rho, first = z.clone(), torch.dot(r, z), float(torch.linalg.vector_norm(right))
        for k in range(1, most + 1):
            q = matrix @ p
            alpha = rho / torch.dot(p, q)
            x += alpha * p
            r -= alpha * q
            if k % 10 == 0 and float(torch.linalg.vector_norm(r)) <= rtol * first:
                break
            z = r / d
            rho, before = torch.dot(r, z), rho
            p = z + rho / before * p
        found[:] = k, float(torch.linalg.vector_norm(right - matrix @ x)) / first

    seconds = timed(b.device, run, 2 if b.is_cuda else 1)
    return {"iterations": found[0], "solve_s": seconds, "setup_s": made, "true_relative_residual": found[1]}


def in_torch(file: ModelFile, problem: Problem, device: torch.device, compiled: bool) -> dict[str, Any]:
    """A cycle of the network as it is written, eager or by torch.compile; the coarsest level is left out."""
    w, s = problem.arrays()
    network = TorchHierarchy(file, w, s, problem.layout, str(device))
    r = torch.randn(s.shape, device=device)

    def run(r: torch.Tensor) -> torch.Tensor:
        return cycle(network._smoothers, lambda e: 0.5 * e, r, no_exchange, problem.layout.visits)

    with torch.no_grad():
        begin = time.perf_counter()
        work = torch.compile(run, dynamic=False) if compiled else run
        work(r)
        first = time.perf_counter() - begin
        return {"first_s": first, "cycle_s": timed(device, lambda: work(r), 5 if r.is_cuda else 1)}
