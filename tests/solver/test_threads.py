"""Threads of a rank: ranks share the cores of a host also where they solve on communicators of their own."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import mpirun
from mpi4py import MPI

from petsc_dcdm.solver import threads

SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*threads.LOCAL_SIZES, *SLURM, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


class Host:
    """What a rank sees of its host: processes with their parents, children and masks, and control groups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._masks: dict[int, set[int]] = {}
        self._set = monkeypatch.setattr
        self.processes, self.groups = folder / "proc", folder / "cgroup"
        self._set(threads, "PROCESSES", self.processes)
        self._set(threads, "CGROUPS", self.groups)
        self._set(threads, "_seen", (float("-inf"), float("inf")))
        self._set(threads.os, "sched_getaffinity", self._affinity)

    def _affinity(self, process: int) -> set[int]:
        if process not in self._masks:
            raise ProcessLookupError(process)
        return self._masks[process]

    def process(self, number: int, parent: int, children: list[int], mask: set[int]) -> None:
        folder = self.processes / str(number)
        (folder / "task" / str(number)).mkdir(parents=True)
        (folder / "stat").write_text(f"{number} (a) name) S {parent} 1 1 0\n")
        (folder / "task" / str(number) / "children").write_text("".join(f"{child} " for child in children))
        self._masks[number] = mask

    def rank(self, mask: set[int], parent: int) -> None:
        self._masks[0] = mask
        self._set(threads.os, "getppid", lambda: parent)

    def program(self, ranks: int) -> None:
        self._set(threads, "MPI", SimpleNamespace(COMM_WORLD=SimpleNamespace(Get_size=lambda: ranks)))

    def quota(self, group: str, text: str) -> None:
        (self.groups / group).mkdir(parents=True, exist_ok=True)
        (self.groups / group / "cpu.max").write_text(text)

    def in_group(self, group: str) -> None:
        (self.processes / "self").mkdir(parents=True)
        (self.processes / "self" / "cgroup").write_text(f"1:name=x:/y\n0::/{group}\n")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    return Host(monkeypatch, tmp_path)


SELF: Any = SimpleNamespace(Get_size=lambda: 1)
ALL = set(range(8))


def launch(host: Host, masks: list[set[int]], me: int = 0, shells: bool = False) -> None:
    """A launcher (process 10) and its ranks, in shells or not; this process is rank `me` of them."""
    host.process(10, 1, [20 + rank for rank in range(len(masks))], ALL)
    for rank, mask in enumerate(masks):
        host.process(20 + rank, 10, [30 + rank] if shells else [], mask)
    host.rank(masks[me], 20 + me if shells else 10)


@pytest.mark.parametrize("shells", [False, True])
@pytest.mark.parametrize(
    ("masks", "want"),
    [
        ([ALL] * 2, 4),
        ([ALL] * 3, 2),
        ([ALL] * 16, 1),
        ([{0, 1, 2}, {3, 4, 5}], 3),
        ([{0, 1}, {0, 1}, {2, 3}, {2, 3}], 1),
        ([{0, 1, 2, 3}, {0, 1, 2, 3}, {4, 5}], 2),
        ([{0, 1}] * 2, 1),  # not bound by the launcher but with it, to some cores of the host
        ([{0, 1}, {1, 2}, {4, 5}], 1),
    ],
)
def test_cores_are_shared_with_the_ranks_that_may_use_them(
    host: Host, monkeypatch: pytest.MonkeyPatch, masks: list[set[int]], want: int, shells: bool
) -> None:
    host.program(2 * len(masks))  # on two hosts
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(len(masks)))
    launch(host, masks, shells=shells)
    assert threads.threads_per_rank(SELF) == want


def test_processes_out_of_sight_are_taken_to_share(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.program(4)
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    host.rank(ALL, 0)
    assert threads.threads_per_rank(SELF) == 4


def test_without_a_word_of_the_launcher_all_ranks_may_be_here(host: Host) -> None:
    host.program(4)
    launch(host, [{0, 1, 2, 3}, {4, 5, 6, 7}])
    assert threads.threads_per_rank(SELF) == 1


@pytest.mark.parametrize(
    ("world", "variables", "want"),
    [
        (4, {}, None),
        (4, {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        (4, {"MPI_LOCALNRANKS": "3", "PMI_LOCAL_SIZE": "2"}, 3),
        (4, {"MV2_COMM_WORLD_LOCAL_SIZE": "many"}, None),
        (1, {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, 1),  # one process, started by a rank of another program
        (7, {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "2"}, 2),
        (7, {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3"}, 1),
        (7, {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "4"}, None),
        (8, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "0"}, None),
    ],
)
def test_what_launchers_tell(
    monkeypatch: pytest.MonkeyPatch, world: int, variables: dict[str, str], want: int | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert threads.told_ranks(world) == want


@pytest.mark.parametrize(
    ("outer", "inner", "want"),
    [("max 100000", "max 100000", 4), ("max 100000", "300000 100000", 1), ("400000 100000", "max 100000", 2)],
)
def test_no_more_than_the_quota_of_the_control_groups(
    host: Host, monkeypatch: pytest.MonkeyPatch, outer: str, inner: str, want: int
) -> None:
    host.program(2)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    launch(host, [ALL] * 2)
    host.in_group("pods/mine")
    host.quota("pods", outer)
    host.quota("pods/mine", inner)
    assert threads.threads_per_rank(SELF) == want


@pytest.mark.parametrize(("wish", "want"), [("3", 3), ("5,2", 5), ("0", 4), ("some", 4)])
def test_the_user_decides(host: Host, monkeypatch: pytest.MonkeyPatch, wish: str, want: int) -> None:
    host.program(2)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    launch(host, [ALL] * 2)
    assert threads.threads_per_rank(SELF) == want


def test_one_process_uses_its_mask() -> None:
    quota = threads._quota()
    assert threads.threads_per_rank(MPI.COMM_SELF) == max(1, int(min(len(os.sched_getaffinity(0)), quota)))


SCRIPT = """
import os
os.environ.pop("OMP_NUM_THREADS", None)

from mpi4py import MPI
from petsc4py import PETSc
from systems import poisson, right_hand_side

from petsc_dcdm.solver.threads import _quota, threads_per_rank

world, size = MPI.COMM_WORLD, {size}
comm = PETSc.COMM_SELF if size == 1 else PETSc.Comm(world.Split(world.rank // size))
if comm.getSize() == size:  # the others do not come
    A = poisson((9, 11, 12), comm=comm)
    ksp = PETSc.KSP().create(comm)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setOperators(A)
    b = right_hand_side(A)
    ksp.solve(b, b.duplicate())
    threads = threads_per_rank(comm.tompi4py())
    cores = min(len(os.sched_getaffinity(0)), _quota())
    assert threads == max(1, int(cores / world.size)), (threads, cores)
    ksp.destroy()
world.Barrier()
if world.rank == 0:
    print("all have solved")
"""


@pytest.mark.mpi
@pytest.mark.parametrize(("ranks", "size"), [(2, 1), (3, 2), (2, 2)])
def test_ranks_that_solve_on_their_own_share_the_host(ranks: int, size: int) -> None:
    assert "all have solved" in mpirun(ranks, SCRIPT.format(size=size))
