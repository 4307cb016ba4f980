"""Which device a rank's network runs on, which ranks hold boxes (one per GPU, however many share it), MPI's part."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence

from mpi4py import MPI

from petsc_dcdm.grid.errors import OptionError, raise_together
from petsc_dcdm.grid.reductions import over_all

INTERPRETER = "interpreter"
"""Stands for a GPU under ``TRITON_INTERPRET=1``: the kernels of GPUs, run slowly on the CPU, for tests."""


def torch_device(device: str) -> str:
    """The name that torch has for a device."""
    return "cpu" if device == INTERPRETER else device


def choose_device(wish: str, comm: MPI.Intracomm) -> tuple[str, tuple[int, ...] | None]:
    """The device of ``-pc_dcdm_device`` on this rank, and the ranks that hold boxes where a GPU is used; else None, as
    all do. Collective.

    torch is only imported where a GPU may be used. A rank whose GPU is worked by another one gets "cpu" for its empty
    box. With ``TRITON_INTERPRET=1`` every rank that is to have a GPU gets the `INTERPRETER`. Raises OptionError on all
    ranks alike.
    """
    if wish.startswith("cuda") and os.environ.get("TRITON_INTERPRET") == "1":
        return INTERPRETER, tuple(range(comm.Get_size()))
    if wish == "cpu" or (wish == "auto" and not over_all(comm, _has_gpu(), op=MPI.LAND)):
        return "cpu", None
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = int(wish.partition(":")[2] or 0)
    found = count > wanted
    if wish != "auto":
        missing = OptionError(f"-pc_dcdm_device {wish}: torch finds no CUDA device {wanted} here; use cpu or auto")
        raise_together(comm, None if found else missing)
    elif not over_all(comm, found, op=MPI.LAND):
        return "cpu", None
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    host = node.bcast(comm.Get_rank())
    number = wanted if ":" in wish else node.Get_rank() * count // node.Get_size()
    node.Free()
    holders = first_of_each(comm.allgather((host, number)))
    return (f"cuda:{number}" if comm.Get_rank() in holders else "cpu"), holders


def mpi_reads_gpus() -> bool:
    """Whether MPI may be given buffers in the memory of a GPU. Open MPI is asked; MVAPICH2 and Cray's MPICH can do it
    where these variables switch it on.
    """
    if "1" in (os.environ.get("MV2_USE_CUDA"), os.environ.get("MPICH_GPU_SUPPORT_ENABLED")):
        return True
    query = getattr(_mpi_library(), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())


def _mpi_library() -> ctypes.CDLL:
    """mpi4py's own, through which the symbols of the MPI it was built with are found."""
    return ctypes.CDLL(MPI.__file__)


def first_of_each(places: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The lowest rank on every (host, GPU)."""
    holders = {place: rank for rank, place in reversed(list(enumerate(places)))}
    return tuple(sorted(holders.values()))


@functools.cache
def _has_gpu() -> bool:
    """Whether a CUDA device may be there, told without importing torch (which takes a second)."""
    return os.path.exists("/dev/nvidia0") or os.path.exists("/dev/dxg")
