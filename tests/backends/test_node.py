"""Ranks that share a box: their memory, how they talk, and what becomes of the others when one is lost."""

from __future__ import annotations

import gc
import os
import threading
import time

import numpy as np
import pytest
from harness import mpirun
from systems import conductances, matrix

from petsc_dcdm.backends.parts import solver as parts
from petsc_dcdm.backends.parts.solver import PartsSolver, finest_level
from petsc_dcdm.native import pages
from petsc_dcdm.native.binding import kernels
from petsc_dcdm.native.build import library
from petsc_dcdm.native.memory import LARGE
from petsc_dcdm.native.node_team import ONE_RANK, SharedMemory, Team

ADDRESS = 3 << 43


def parts_solver(w, s, threads, team=ONE_RANK):
    return PartsSolver(finest_level(w, s, threads, team), threads, team)


@pytest.fixture
def memory():
    file = os.memfd_create("test")
    os.ftruncate(file, 1 << 26)
    found = SharedMemory(library(), file, 1 << 26, ADDRESS)
    os.close(file)
    yield found
    del found
    gc.collect()


def test_memory_is_used_again_and_zero(memory):
    small = [memory.zeros(100, np.float64) for _ in range(5)]
    large = memory.zeros(LARGE // 8, np.float64)
    for a in (*small, large):
        assert memory.address <= a.ctypes.data < memory.address + memory.size and a.ctypes.data % 64 == 0
        assert not a.any()
        a[:] = 7.0
    places = sorted(a.ctypes.data for a in small)
    assert all(b - a >= 800 for a, b in zip(places, places[1:], strict=False))
    end = memory.taken
    kept = small.pop(2)
    del small, a
    again = [memory.zeros(90, np.float64) for _ in range(4)]
    assert memory.taken == end and not any(a.any() for a in again)
    assert (kept == 7.0).all()
    del large
    assert not memory.zeros(LARGE // 8, np.float64).any() and memory.taken == end


def test_memory_ends(memory):
    a = memory.zeros(1 << 24, np.uint8)
    with pytest.raises(MemoryError, match="no room for"):
        memory.zeros((1 << 24) + 1, np.uint8)
    assert a.size == 1 << 24 and memory.room(1 << 25, np.uint8).size == 1 << 25
    with pytest.raises(MemoryError, match="no room for"):
        memory.room((1 << 25) + 1, np.uint8)


def test_pages_are_huge_where_that_can_be(memory, monkeypatch):
    """And what they hold stays."""
    monkeypatch.setattr(pages, "SLOW", 10.0)

    def huge():
        with open("/proc/self/smaps") as file:
            lines = file.read()
        return int(lines[lines.index(f"{ADDRESS:x}-") :].split("ShmemPmdMapped:")[1].split()[0]) >> 11

    arrays = [memory.room(LARGE, np.uint8) for _ in range(3)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert not huge(), "memory that nobody has had before"
    places = [array.ctypes.data for array in arrays]
    del arrays, array
    dense, sparse = memory.room(LARGE, np.uint8), memory.room(LARGE, np.uint8, sparse=True)
    assert [dense.ctypes.data, sparse.ctypes.data] == places[:2] and (dense == 0).all() and (sparse == 1).all()
    if not huge():
        pytest.skip("Linux makes no huge pages of shared memory when it is asked to")
    assert huge() == LARGE // (1 << 21)
    small = memory.room(1000, np.uint8)
    assert small.ctypes.data == places[2] and (small == 2).all() and huge() == LARGE // (1 << 21) + 1


def test_address_that_is_taken(memory):
    file = os.memfd_create("other")
    os.ftruncate(file, 1 << 21)
    with pytest.raises(OSError, match="can not be mapped"):
        SharedMemory(library(), file, 1 << 21, ADDRESS)
    os.close(file)


def test_array_elsewhere_is_refused(memory):
    with pytest.raises(ValueError, match="not in the memory"):
        memory.at(np.zeros(3).ctypes.data, 3, np.dtype(float))


def in_threads(memory, threads, work):
    """What ``work(team)`` returns on every rank; ranks are threads of this process."""
    found = [None] * len(threads)
    first = threading.Barrier(len(threads))
    block = []

    def run(rank):
        if rank == 0:
            block.append(Team(library(), memory, 0, threads))
        first.wait()
        team = block[0] if rank == 0 else Team(library(), memory, rank, threads)
        first.wait()
        found[rank] = work(team, rank)

    ranks = [threading.Thread(target=run, args=(rank,)) for rank in range(len(threads))]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
        assert not rank.is_alive()
    return found


def test_talk(memory):
    def work(team, rank):
        told = [team.share(10 * n + rank) for n in range(200)]
        rows = [team.gather(np.array([1.0 + rank, 0.1 * n])) for n in range(200)]
        sums = [team.reduce(0.1 * n + rank, False) for n in range(200)]
        assert (team.reduce(1.0 + rank, False), team.reduce(-1.0 - rank, True)) == (6.0, -1.0)
        assert np.isnan(team.reduce(np.nan if rank == 1 else 0.0, True))
        return told, rows, sums, team.gather(np.zeros(1000))

    for told, rows, sums, many in in_threads(memory, [1, 1, 1], work):
        assert told == [10 * n for n in range(200)]
        assert all(np.array_equal(row, [[1.0, 0.1 * n], [2.0, 0.1 * n], [3.0, 0.1 * n]]) for n, row in enumerate(rows))
        assert sums == [0.1 * n + (0.1 * n + 1) + (0.1 * n + 2) for n in range(200)] and many is None


def test_nobody_waits_for_a_rank_that_is_late(memory):
    """What it does not come to is done without it, for as many sections as what they leave is kept."""
    array = memory.zeros(1 << 20, np.uint8)
    over = []

    def work(team, rank):
        sections = 3 * team.ahead
        if rank == 1:
            deadline = time.monotonic() + 30
            while len(over) < team.ahead - 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            waits = len(over) == team.ahead - 1
            for _ in range(sections):
                team.do(None)
            return waits
        for _ in range(sections):
            array[:] = 7
            team.do(kernels().dcdm_clear, array.ctypes.data, array.size, team.threads)
            assert not array.any()
            over.append(1)
        return True

    assert in_threads(memory, [1, 2], work) == [True, True] and len(over) > 3


def test_all_work_for_the_leader(memory):
    """The first of the faces that are not alike: parts on more threads than ranks, section after section."""
    shape = (9, 10, 11)
    cells = memory.zeros(int(np.prod(shape)), np.uint8)
    cells[:] = np.random.default_rng(0).integers(0, 64, cells.size)

    asymmetry = kernels().dcdm_packed_asymmetry

    def work(team, rank):
        return [team.do(asymmetry, cells.ctypes.data, 9, 8, 7, parts) for parts in (1, 2, 3, 5, 8)] + [team.do(None)]

    alone = asymmetry(cells.ctypes.data, 9, 8, 7, 1)
    leader, *others = in_threads(memory, [1, 2, 1], work)
    assert leader == [alone] * 5 + [None] and alone > 0
    assert all(found == [None] * 6 for found in others)


def several_cycles(solver, A, r):
    """`PartsSolver.solve_well` in double precision, and how many cycles that takes."""
    x, left, before = np.zeros(r.size), r.ravel().astype(float), []
    d, image = A.createVecs()
    while len(before) < parts.MOST_CYCLES:
        found = np.empty_like(r)
        solver.solve(left.reshape(r.shape).astype(np.float32), found)
        d.setArray(found.ravel())
        A.mult(d, image)
        here, there = d.getArray().copy(), image.getArray().copy()
        for other, its_image in before:
            share = (here @ its_image) / (other @ its_image)
            here, there = here - share * other, there - share * its_image
        step = (here @ left) / (here @ there)
        x, left = x + step * here, left - step * there
        before.append((here, there))
        if np.linalg.norm(left) <= parts.WELL * np.linalg.norm(r):
            break
    return x, len(before)


@pytest.mark.parametrize("enough, cycles", [(1e-3, (4, 7)), (1e-9, (8, 8))])
def test_parts_of_cells_are_the_work_of_all(memory, enough, cycles, monkeypatch):
    """One cycle, and several: to the last bit those of one rank with as many threads; these are those of numpy."""
    monkeypatch.setattr(parts, "WELL", enough)
    shape = (20, 22, 26)
    rng = np.random.default_rng(2)
    w, s = conductances(shape, coefficient=np.exp(3.0 * rng.standard_normal(shape)))
    w, s = [bfloat16(face) for face in w], bfloat16(s)
    r = rng.standard_normal(shape).astype(np.float32)

    def work(team, rank):
        solver = team.do(parts_solver, w, s, team.threads, team)
        here, cycle, well = (team.room(r.size, np.float32).reshape(shape) for _ in range(3))
        here[...] = r
        team.do(solver and solver.solve, here, cycle)
        team.do(solver and solver.solve_well, here, well)
        return cycle.copy(), well.copy()

    (cycle, well), *_ = in_threads(memory, [1, 2, 1], work)
    alone = parts_solver(w, s, 4)
    x = np.empty_like(r)
    alone.solve(r, x)
    assert np.array_equal(x, cycle) and np.isfinite(x).all()
    alone.solve_well(r, x)
    assert np.array_equal(x, well)
    expected, count = several_cycles(alone, matrix(w, s), r)
    assert cycles[0] <= count <= cycles[1], count
    assert np.linalg.norm(x.ravel() - expected) <= 2e-6 * np.linalg.norm(expected)


def bfloat16(a):
    """Numbers that the solver keeps as they are."""
    return (a.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(float)


SOLVE = """
import os, signal, threading
from mpi4py import MPI
from systems import *
import petsc_dcdm.solver.together as together
from petsc_dcdm.backends.cpu.setup import CpuLevels
together.PATIENCE = 1.0
rank, shape = MPI.COMM_WORLD.rank, (12, 13, 14)
A = matrix(*conductances(shape, random_solids(shape)))
b = right_hand_side(A)
"""


@pytest.mark.mpi
@pytest.mark.parametrize("victim, noise", [(0, 0.0), (3, 0.0), (1, 3.0)])
def test_killed_rank(victim, noise):
    """Nobody waits for one of four, and no memory is left; with noise all the work is on parts of cells."""
    before = {name for name in os.listdir("/dev/shm") if "dcdm" in name}
    out = mpirun(
        4,
        SOLVE
        + f"""
if {noise}:
    shape = (24, 24, 24)
    A = matrix(*conductances(shape, coefficient=np.exp({noise} * np.random.default_rng(2).normal(size=shape))))
    b = right_hand_side(A)
ksp, x = solve(A, b, pc_dcdm_box="node")
if rank == {victim}:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
while True:
    x.set(0.0)
    ksp.solve(b, x)
""",
        timeout=30,
        expect=None,
    )
    assert "signal 9" in out or "has ended, and so does this one" in out
    assert {name for name in os.listdir("/dev/shm") if "dcdm" in name} == before


@pytest.mark.mpi
@pytest.mark.parametrize("victim", [0, 1])
def test_error_on_one_rank(victim):
    out = mpirun(
        2,
        SOLVE
        + f"""
def broken(self, active):
    raise MemoryError("none left")
if rank == {victim}:
    CpuLevels._of_all_ranks = broken
solve(A, b, pc_dcdm_box="node")
""",
        timeout=30,
        expect=None,
    )
    assert f"rank {victim} of 2 has failed and the others have not" in out and "none left" in out


@pytest.mark.mpi
def test_dirichlet_values_leave_the_right_hand_side_once():
    """Where other rows couple to Dirichlet rows, the matrix is asked for no product before the first step, and what
    leaves b does so in the order of the cells, however the rows are cut.
    """
    mpirun(
        2,
        """
from systems import *
from petsc_dcdm.compare import systems
from petsc_dcdm.compare.job import SystemSpec
from petsc_dcdm.poisson import dmda
from petsc_dcdm.solver.loop.steps import GridSteps
def never(steps):
    raise AssertionError("a product with the matrix")
GridSteps._residual, create = never, dmda.create
def solved(shape, ranges, guess):
    systems.dmda.create = lambda shape, periodic: create(shape, periodic=periodic, ranges=ranges)
    problem = systems.build(SystemSpec("vertex", "", shape, 1, False, "random"))
    with problem.b as values, problem.guess as given:
        index = dmda.box_of(problem.dm).indices()
        wave = sum((n + 1.3) * i for n, i in enumerate(index))
        values *= 1 + np.sin(wave).ravel()  # of Dirichlet rows as well
        given[:] = np.cos(wave).ravel()
    x = problem.A.createVecRight()
    x.set(0.0)
    ksp, _ = solve(problem.A, problem.b, dm=problem.dm, pc_dcdm_box="node", ksp_rtol=1e-10)
    if guess:
        ksp.setInitialGuessNonzero(True)
        problem.guess.copy(x)
    ksp.solve(problem.b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(problem.A, x, problem.b) < 1e-9
    return dmda.gather(problem.dm, x.getArray())
for guess in (False, True):
    ways = [None, [[12], [12], [3, 8]], [[5, 7], [12], [11]], [[12], [4, 8], [11]]]
    first, *others = [solved((11, 12, 12), ways_cut, guess) for ways_cut in ways]
    assert first is None or all(np.array_equal(first, other) for other in others)
""",
        timeout=60,
    )
