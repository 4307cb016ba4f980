"""Which ranks share a box: those of a node, where they share memory (`petsc_dcdm.native.node_team`)."""

from __future__ import annotations

import ctypes
import functools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.errors import OptionError, raise_together
from petsc_dcdm.grid.reductions import over_all, reduce_by
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.build import library
from petsc_dcdm.native.node_team import ONE_RANK, OWN_BOXES, SharedMemory, Sharing, Team, Workers
from petsc_dcdm.network.multigrid_tensors import steps_of
from petsc_dcdm.network.weights import ModelFile

ATTEMPTS = 8
"""Addresses that are tried: any one is free with hardly an exception."""

LOWEST, HIGHEST = 1 << 44, 1 << 45
"""Between the addresses of programs and those of libraries and stacks, on processors with 47 bits and more of them."""


def split_by_node(comm: MPI.Intracomm) -> MPI.Intracomm:
    """The ranks of ``comm`` that share memory with this one. Collective; to be freed."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    assert isinstance(node, MPI.Intracomm)
    return node


def choose_box(wish: str, comm: MPI.Intracomm, threads: int, possible: Callable[[], bool]) -> Sharing:
    """Which ranks share a box for ``-pc_dcdm_box``. Collective.

    Parameters
    ----------
    comm
        keeps what they share, so that the next solver on it need not take memory anew
    threads
        of this rank
    possible
        whether compiled kernels are to do the work here; where they do not on any rank each has a box of its own, as
        on a processor or a file system where memory can not be shared.

    Raises OptionError on all ranks where ``wish`` is ``node`` and that can not be.
    """
    if wish == "rank" or comm.Get_size() == 1:
        return OWN_BOXES
    kept: Any = comm.Get_attr(_kept())
    lacking = np.array([not possible(), kept is None or kept[0] != threads], float)
    impossible, new = over_all(comm, lacking, op=MPI.MAX).tolist()
    if impossible:
        sharing, problem = OWN_BOXES, "compiled kernels on CPUs are not what does the work"
    else:
        if new:
            kept = threads, *_share(comm, threads)
            comm.Set_attr(_kept(), kept)
            if isinstance(kept[1].team, Team) and kept[1].team.ranks == comm.Get_size():
                reduce_by(comm, kept[1].team)
        _, sharing, problem = kept
    if problem and wish == "node":
        raise_together(comm, OptionError(f"-pc_dcdm_box node: {problem}; use auto or rank"))
    return replace(sharing, why=problem or "")


@functools.cache
def _kept() -> int:
    """The attribute of a communicator that has its teams and their memory, which all that is solved on it uses."""
    return MPI.Comm.Create_keyval()


def _share(comm: MPI.Intracomm, threads: int) -> tuple[Sharing, str | None]:
    """Teams of the nodes, or why there are none. Collective."""
    node = split_by_node(comm)
    problem: Exception | None = None
    team: Workers = ONE_RANK
    try:
        if node.Get_size() > 1:
            team = _make_team(node, threads)
    except OSError as error:
        problem = error
    leaders = comm.allgather(node.Get_rank() == 0)
    problems = [found for found in comm.allgather(problem and str(problem)) if found]
    node.Free()
    if problems or all(leaders):
        return OWN_BOXES, problems[0] if problems else None
    most = comm.allreduce(team.threads or 1, op=MPI.MAX)
    return Sharing(team, tuple(rank for rank, leads in enumerate(leaders) if leads), True, most), None


class NodeBoxes:
    """Which ranks share a box, for the set-ups of one preconditioner."""

    def __init__(self) -> None:
        self.found: Sharing | None = None
        """On whatever grid."""

    def forget(self) -> None:
        """For options that have changed, and at the end."""
        self.found = None

    def on_grid(
        self, wish: str, comm: MPI.Intracomm, threads: int, possible: Callable[[], bool], shape: Shape, file: ModelFile
    ) -> Sharing:
        """See `choose_box`; ``auto`` shares none of a grid (z, y, x) that has too little work for it. Collective."""
        if self.found is None:
            self.found = choose_box(wish, comm, threads, possible)
        if wish == "auto" and self.found.teams and not is_worth_it(self.found, shape, file):
            return replace(OWN_BOXES, why="the grid has few planes for the threads of a node")
        return self.found


def is_worth_it(sharing: Sharing, shape: Shape, file: ModelFile) -> bool:
    """Whether teams have work for at least half of their threads with a network on a grid (z, y, x): each wants some
    planes of a box. Not collective.
    """
    planes = shape[0] if shape[0] > 1 else shape[1]
    return 2 * planes >= (4 * steps_of(file.tensors) + 4) * sharing.threads * len(sharing.holders or ())


def _make_team(node: MPI.Intracomm, threads: int) -> Team:
    """Collective on the node, where all have the compiled kernels; raises OSError on all of its ranks."""
    problem: Exception | None = None
    file, kernels = -1, library()
    try:
        if node.Get_size() > kernels.dcdm_team_most_ranks():
            raise OSError(f"at most {kernels.dcdm_team_most_ranks()} ranks can share a box")
        if node.Get_rank() == 0:
            file = _new_file()
    except (OSError, AttributeError) as error:
        problem = error
    leaders = node.bcast((os.getpid(), file, _size()))
    if problem is None and node.Get_rank() > 0:
        try:
            file = os.open(f"/proc/{leaders[0]}/fd/{leaders[1]}", os.O_RDWR)
        except OSError as error:
            problem = error
    try:
        # The same file, not another process's of the same number, and the same kernels.
        here = None if problem else (os.fstat(file)[1:3], Path(kernels._name).name)
        everywhere = node.allgather((here, problem and str(problem)))
        for _, found in everywhere:
            if found:
                raise OSError(found)
        if any(there != here for there, _ in everywhere):
            raise OSError("the ranks of a node do not have the same kernels or the same files")
        memory = _map(node, kernels, file, leaders[2])
    finally:
        if file >= 0:
            os.close(file)
    team = Team(kernels, memory, node.Get_rank(), node.allgather(threads))
    node.Barrier()
    return team


def _new_file() -> int:
    """One that has no name, so that nothing is left of it however the processes end."""
    file = os.memfd_create("petsc_dcdm")
    try:
        os.ftruncate(file, _size())
    except OSError:
        os.close(file)
        raise
    return file


def _size() -> int:
    """More than there ever is to share: addresses cost nothing."""
    return 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _map(node: MPI.Intracomm, kernels: ctypes.CDLL, file: int, size: int) -> SharedMemory:
    """The file at an address that is free on all ranks. Collective; OSError on all of them."""
    huge, why = 1 << 30, ""
    for _ in range(ATTEMPTS):
        address = node.bcast(random.SystemRandom().randrange(LOWEST // huge, HIGHEST // huge) * huge)
        memory, why = None, ""
        try:
            memory = SharedMemory(kernels, file, size, address)
        except OSError as error:
            why = str(error)
        if node.allreduce(memory is not None, op=MPI.LAND):
            assert memory is not None
            return memory
    raise OSError(why or "memory can not be mapped at the same address on all ranks")
