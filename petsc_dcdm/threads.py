"""How many threads a rank's network may use: the cores of the host shared by the ranks on it, never more.

Oversubscribed OpenMP threads are ten times slower (DESIGN 4), and under mpirun each rank would start one per core.
"""

from __future__ import annotations

import os

from mpi4py import MPI


def threads_per_rank(comm: MPI.Intracomm) -> int:
    """OMP_NUM_THREADS if the user set it, else this rank's cores divided by the ranks that share them. Collective."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = frozenset(os.sched_getaffinity(0))
    everyones = node.allgather(mine)
    node.Free()
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    sharing = sum(bool(mine & other) for other in everyones)
    return max(1, len(mine) // sharing)
