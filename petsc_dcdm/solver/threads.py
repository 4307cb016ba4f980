"""How many threads a rank's network may use: the cores of the host shared by the ranks on it, never more.

Oversubscribed OpenMP threads are ten times slower, and under mpirun each rank would start one per core.

The ranks to share with are those of the program on this host, not only those of the solver's communicator: others may
be solving at the same time on theirs. They can not be asked, as they need not come here. So unless the communicator
has all ranks, what the launcher left behind is read: its variables say how many ranks it started on this host, and the
affinity masks of its child processes which of these share cores. Where the children are out of sight (hidden in /proc,
each rank in a container of its own) all ranks of the host are taken to share this rank's mask, and where no variable is
there all ranks of the program to be on this host. Both are upper bounds: threads can be too few then, not too many.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from mpi4py import MPI

from petsc_dcdm.grid.reductions import over_all

#: How many ranks are on this host, as launchers tell: Open MPI, MPICH and Intel MPI, MVAPICH, Cray PALS, IBM JSM.
LOCAL_SIZES = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "PMI_LOCAL_SIZE",
    "PALS_LOCAL_SIZE",
    "JSM_NAMESPACE_LOCAL_SIZE",
)
PROCESSES = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def threads_per_rank(comm: MPI.Intracomm) -> int:
    """OMP_NUM_THREADS if the user set it, else this rank's cores divided by the ranks that share them.

    Collective on ``comm``; ranks that are not in it neither take part nor wait. Cores are those of the affinity mask,
    and no more than the CPU quota of the control group allows.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    told_threads = int(wish) if wish.isdigit() else 0
    if told_threads > 0 if comm.Get_size() == 1 else over_all(comm, told_threads > 0, op=MPI.LAND):
        return told_threads
    mine = frozenset(os.sched_getaffinity(0))
    if MPI.COMM_WORLD.Get_size() == 1:
        ranks, masks = 1, [mine]
    elif comm.Get_size() == MPI.COMM_WORLD.Get_size():
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        masks = node.allgather(mine)
        node.Free()
        ranks = len(masks)
    else:
        world = MPI.COMM_WORLD.Get_size()
        told = told_ranks(world)
        ranks = told or world
        masks = (_masks_of_ranks(told) if told else []) or [mine] * ranks
    if told_threads > 0:
        return told_threads
    sharing = min(ranks, sum(bool(mine & other) for other in masks))
    return max(1, int(min(len(mine) // max(sharing, 1), _quota_of_late() / ranks)))


def told_ranks(world: int) -> int | None:
    """Ranks of a program of ``world`` ranks on this host, if its launcher says so. Not collective."""
    told = [int(size) for size in map(os.environ.get, LOCAL_SIZES) if size and size.isdigit()]
    # What a job script was given is there for a program that another launcher starts, too: only the step's own count.
    if not told and os.environ.get("SLURM_STEP_NUM_TASKS") == str(world):
        told = _slurm_tasks(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""), os.environ.get("SLURM_NODEID", ""))
    return max(1, min(world, max(told))) if told else None


def _slurm_tasks(per_node: str, node: str) -> list[int]:
    """The tasks of one node, of a list such as ``4(x2),3``; nothing where it does not say."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node):
        counts += [int(count)] * int(times or 1)
    return counts[int(node) :][:1] if node.isdigit() else []


def _masks_of_ranks(ranks: int) -> list[frozenset[int]]:
    """The affinity masks of the launcher's children on this host: the ranks, or shells around them, from which these
    have their masks. The launcher is the nearest ancestor with so many children; none are returned where none has.
    """
    for ancestor in _ancestors():
        masks = []
        for child in _children(ancestor):
            try:
                masks.append(frozenset(os.sched_getaffinity(child)))
            except OSError:  # it has ended
                continue
        if len(masks) >= ranks:
            return masks
    return []


def _ancestors() -> Iterator[int]:
    process = os.getppid()
    while process > 0:
        yield process
        try:
            # the name before the state may hold anything, closing brackets too
            fields = (PROCESSES / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return
        process = int(fields[1])


def _children(process: int) -> list[int]:
    try:
        lists = [path.read_text() for path in (PROCESSES / str(process) / "task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for text in lists for child in text.split()]


def _quota_of_late() -> float:
    """:func:`_quota` as it was within the last second: a small system is solved in little more time than that takes."""
    global _seen
    now = monotonic()
    if not 0.0 <= now - _seen[0] < 1.0:
        _seen = now, _quota()
    return _seen[1]


_seen = float("-inf"), float("inf")
"""When the quota was looked at, and what it was."""


def _quota() -> float:
    """Cores' worth of time that the control group of this process and those above it allow; inf where none limits."""
    try:
        name = re.search(r"^0::/(.*)$", (PROCESSES / "self" / "cgroup").read_text(), re.MULTILINE)
    except OSError:
        return float("inf")
    least, folder = float("inf"), CGROUPS / (name.group(1) if name else "")
    for group in (folder, *folder.parents):
        try:
            allowed, period = (group / "cpu.max").read_text().split()
            least = min(least, float(allowed) / float(period))
        except (OSError, ValueError):  # "max", or this group is not one with limits
            continue
    return least
