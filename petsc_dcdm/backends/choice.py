"""Which backend runs a network on a problem: compiled kernels where they serve, in C on CPUs and in Triton on GPUs;
else the network as it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.backends.base import Backend, Problem
from petsc_dcdm.backends.devices import torch_device
from petsc_dcdm.grid.errors import OptionError, raise_together
from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.network import weights
from petsc_dcdm.network.weights import ModelFile

COMPILED = ("multigrid",)
"""Kinds of network that there are compiled kernels for."""


def load_weights(name: str, comm: MPI.Intracomm) -> ModelFile:
    """The weights of ``-pc_dcdm_model``: rank 0 reads, all get them, or its `WeightsError`. Collective.

    A file that has been read stays in memory until it changes or another one is asked for.
    """
    key, error = None, None
    if comm.Get_rank() == 0:
        try:
            key = weights.stamp(name)
            if _read.get(key) is None:
                _keep(key, weights.load(name))
        except weights.WeightsError as problem:
            error = problem
    if comm.Get_size() > 1:
        here = key if comm.Get_rank() == 0 else next(iter(_read), None)
        told = _told(here) if error is None else np.inf
        ends = over_all(comm, np.array([told, -told]), op=MPI.MAX).tolist()
        if ends[0] == -ends[1]:
            return _read[here]
    raise_together(comm, error)
    if comm.Get_size() > 1:
        key = comm.bcast(key)
        if over_all(comm, key not in _read, op=MPI.LOR):
            _keep(key, comm.bcast(_read.get(key)))
    return _read[key]


_read: dict[Any, ModelFile] = {}
"""The file that was read last, by its `weights.stamp` on rank 0."""


@lru_cache(maxsize=4)
def _told(key: Any) -> float:
    """What a key is told by in a reduction."""
    return float(int.from_bytes(blake2b(repr(key).encode(), digest_size=6).digest(), "big"))


def _keep(key: Any, file: ModelFile) -> None:
    _read.clear()
    _read[key] = file


def kernels_serve(file: ModelFile, compiled: str) -> bool:
    """Whether there are compiled kernels for this network on this rank, and ``-pc_dcdm_compile`` lets them work. Not
    collective.
    """
    return compiled != "off" and file.kind in COMPILED and _missing_kernels(file) is None


def make_backend(
    file: ModelFile,
    problem: Problem,
    comm: MPI.Intracomm,
    *,
    device: str,
    on_gpu: bool,
    threads: int,
    compiled: str,
    say: Callable[[str], None],
) -> Backend:
    """The network on the device that was asked for, ready for the problem. Collective.

    Parameters
    ----------
    device
        of this rank, as `petsc_dcdm.backends.devices.choose_device` says.
    on_gpu
        whether any rank works on a GPU; others have empty boxes.
    threads
        of this rank.
    compiled
        ``-pc_dcdm_compile``.
    say
        gets a sentence for the user where kernels that are wanted cannot be had.

    Raises OptionError on all ranks where they must be had, and what the network raises.
    """
    if file.kind in COMPILED and compiled != "off":
        missing = _missing_triton(problem) if on_gpu else _missing_kernels(file, problem)
        if not over_all(comm, missing is not None, op=MPI.LOR):
            if on_gpu:
                from petsc_dcdm.backends.gpu.backend import GpuBackend

                return GpuBackend(file, problem, torch_device(device))
            from petsc_dcdm.backends.cpu.backend import CpuBackend

            return CpuBackend(file, problem, threads)
        if compiled == "on":
            raise_together(comm, OptionError(f"-pc_dcdm_compile on: {missing}") if missing else None)
        why = missing or "kernels unavailable on another rank"
        _require_torch(comm, f"{why}; ")
        say(f"{why}; running the network in plain torch, which is slower")
    else:
        _require_torch(comm)
    from petsc_dcdm.backends.reference import ReferenceBackend

    return ReferenceBackend(file, problem, torch_device(device), threads)


def _require_torch(comm: MPI.Intracomm, before: str = "") -> None:
    """OptionError on all ranks, its sentence with ``before`` it, where one has no torch. Collective."""
    error = None
    if find_spec("torch") is None:
        error = OptionError(f"{before}the network runs in torch, which is not installed here: pip install torch")
    raise_together(comm, error)


def _missing_triton(problem: Problem) -> Exception | None:
    """Why the Triton kernels do not serve on this rank."""
    from petsc_dcdm.backends.gpu.limits import why_not

    sentence = why_not(problem.layout)
    return None if sentence is None else RuntimeError(sentence)


def _missing_kernels(file: ModelFile, problem: Problem | None = None) -> Exception | None:
    """Why the compiled kernels do not serve on this rank."""
    from petsc_dcdm.backends.cpu.setup import kernels_for
    from petsc_dcdm.native.build import KernelsUnavailable

    try:
        kernels_for(file, layout=problem.layout if problem is not None else None)
    except KernelsUnavailable as problem_here:
        return problem_here
    return None
