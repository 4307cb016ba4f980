"""Ranks that share a box: the answer of one rank with as many threads, bit for bit, however rows are cut."""

from __future__ import annotations

import gc
import os
import weakref
from contextlib import suppress

import numpy as np
import pytest
from mpi4py import MPI
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, solve

import petsc_dcdm.solver.pc as pc_module
from petsc_dcdm.backends import node
from petsc_dcdm.grid.errors import OptionError, raise_together
from petsc_dcdm.grid.reductions import of_all, over_all
from petsc_dcdm.native.node_team import ONE_RANK, Team
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import read
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.ghosts import Ghosts, SharedFlags
from petsc_dcdm.stencil.local_csr import local_csr

RANKS = (2, 3, 4)
TIMEOUT = 200
BOX = "auto"
SHAPE = (20, 33, 38)
WORLD = MPI.COMM_WORLD


def rough(shape):
    return conductances(shape, None, np.exp(np.random.default_rng(0).normal(size=shape)))


def uneven(n):
    """The rows of this rank where the first rank has most of them and one has none, if there are so many."""
    size = WORLD.size
    shares = [n - (n // 7) * (size - 2) - (n // 9 if size == 2 else 0), *[n // 7] * (size - 2), 0]
    if size == 2:
        shares[1] = n // 9
    return shares[WORLD.rank]


def of_values(A, values):
    v = A.createVecRight()
    first, last = v.getOwnershipRange()
    v.setArray(values[first:last])
    return v


def gathered(x):
    parts = WORLD.allgather(x.getArray().copy())
    return np.concatenate(parts)


def alone(threads, w, s, values, cells=None, history=2, **options):
    """Iterations and solution of one rank with so many threads; the same on every rank."""
    answer = None
    if WORLD.rank == 0:
        original, pc_module.threads_per_rank = pc_module.threads_per_rank, lambda comm: threads
        try:
            answer = shared(w, s, values, cells, PETSc.COMM_SELF, **options)
        finally:
            pc_module.threads_per_rank = original
    return WORLD.bcast(answer)


def shared(w, s, values, cells=None, comm=PETSc.COMM_WORLD, rows=None, da=None, **options):
    """Iterations and solution (of both, of a second matrix with the same pattern, of the preconditioner alone)."""
    A = matrix(w, s, cells=cells, comm=comm, rows=rows)
    first, last = A.getOwnershipRange()
    if cells is not None:
        A.compose("dcdm_cells", PETSc.IS().createGeneral(cells[first:last].astype(PETSc.IntType), comm=comm))
    options["pc_dcdm_grid"] = ",".join(map(str, s.shape[::-1]))
    b = of_values(A, values)
    ksp, x = solve(A, b, ksp_rtol=1e-9, **options)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 2e-9
    found = [ksp.getIterationNumber()]
    solutions = [x.copy()]
    A.scale(-4.0)
    x.set(0.0)
    ksp.solve(b, x)
    found.append(ksp.getIterationNumber())
    solutions.append(x.copy())
    ksp.setInitialGuessNonzero(True)
    x.scale(1.01)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 2e-9
    ksp.setInitialGuessNonzero(False)
    z = A.createVecRight()
    ksp.getPC().apply(b, z)
    context = ksp.getPC().getPythonContext()
    found += [context._backend.description, context._coarse.name]
    solutions.append(z)
    if comm == PETSc.COMM_SELF:
        return found, [v.getArray().copy() for v in solutions]
    return found, [gathered(v) for v in solutions]


def compare(w, s, **options):
    """The name of what solves the coarsest level; the answers of the ranks together are those of one."""
    values = np.random.default_rng(3).normal(size=s.size)
    team, ours = shared(w, s, values, pc_dcdm_box="node", **options)
    options.pop("rows", None)
    one, theirs = alone(WORLD.size, w, s, values, **options)
    assert f"{WORLD.size} ranks of a node" in team[2], team
    assert team[:2] == one[:2], (team, one)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert np.array_equal(a, b), np.abs(a - b).max()
    # The norm that the residual is divided by and the answer is multiplied by is PETSc's.
    assert np.allclose(ours[2], theirs[2], rtol=0, atol=1e-6 * np.abs(theirs[2]).max())
    return team[3]


def test_small_reductions():
    """They are what MPI makes of them, on duplicates as well."""
    comm = WORLD.Dup()
    assert isinstance(node.choose_box("node", comm, 1, lambda: True).team, Team)
    for here in (comm.Dup(), comm):
        rank, size = here.rank, here.size
        assert over_all(here, rank == 1, op=MPI.LOR) is True and over_all(here, rank > size, op=MPI.LOR) is False
        assert over_all(here, rank < size, op=MPI.LAND) is True and over_all(here, rank == 1, op=MPI.LAND) is False
        value = 0.1 * (rank + 1)
        ends = [over_all(here, value, op=op) for op in (MPI.MIN, MPI.MAX)]
        assert ends == [0.1, 0.1 * size] and abs(over_all(here, value) - 0.05 * size * (size + 1)) < 1e-12
        assert over_all(here, float(np.inf if rank else -np.inf), op=MPI.MIN) == -np.inf
        assert over_all(here, 2**63 + rank) == size * 2**63 + size * (size - 1) // 2
        both = np.array([value, -rank])
        assert np.array_equal(over_all(here, both, op=MPI.MAX), [0.1 * size, 0.0])
        assert np.allclose(over_all(here, both), [0.05 * size * (size + 1), -size * (size - 1) / 2])
        assert np.array_equal(over_all(here, np.array([2**60 + rank]), op=MPI.MAX), [2**60 + size - 1])
        assert np.allclose(over_all(here, np.full(1000, value)), 0.05 * size * (size + 1))
        for n in (3, 1000):
            assert np.array_equal(of_all(here, np.full(n, value)), np.tile(0.1 * np.arange(1, size + 1), (n, 1)).T)
        with pytest.raises(OptionError, match="of rank 1"):
            raise_together(here, OptionError(f"of rank {rank}") if rank else None)
        here.Free()


def test_nothing_is_held_by_an_error_of_one_rank():
    """What the frames that it has left behind hold goes on all ranks at once."""
    held = []

    def fail():
        array = np.zeros(1)
        held.append(weakref.ref(array))
        error = OptionError("of rank 0") if WORLD.rank == 0 else None
        raise_together(WORLD, error)

    gc.disable()
    try:
        with suppress(OptionError):
            fail()
        assert held[0]() is None
    finally:
        gc.enable()


def test_flags_of_dirichlet_rows():
    """Those of rows that others couple to are known to these, though they couple to nobody."""
    shape, n = (12, 5, 6), 360
    lone = np.random.default_rng(5).random(n) < 0.4
    lone[n // 2 - 40 : n // 2 + 10] = True
    team = node.choose_box("node", WORLD.Dup(), 1, lambda: True).team
    for share in (None, uneven(n)):
        A = PETSc.Mat().createAIJ(((share, n), (share, n)), nnz=7)
        first, last = A.getOwnershipRange()
        for row in range(first, last):
            A.setValue(row, row, 7.0)
            for other in row + np.array([-30, -6, -1, 1, 6, 30]):
                if not lone[row] and 0 <= other < n:
                    A.setValue(row, other, -1.0)
        A.assemble()
        with local_csr(A) as local:
            rows = read(CsrRows, local, shape, first)
            ghosts = Ghosts(A, rows.ghost_columns(), Grid(shape, None, first, last - first, "test"))
            flags = SharedFlags(rows, ghosts, first, n, team)
            asked, wanted = ghosts.asked_for, np.unique(np.concatenate(WORLD.allgather(ghosts.columns)))
            assert wanted.size
            for how, numbers in zip((ONE_RANK, team), 3 * np.arange(2 * n).reshape(2, n), strict=True):
                numbered = Ghosts(A, ghosts.columns, Grid(shape, numbers[first:last], 0, last - first, "test"), how)
                assert np.array_equal(numbered.cells, numbers[ghosts.columns])
                numbered.destroy()
            for row in wanted[(wanted >= first) & (wanted < last)] - first:
                assert any(begin <= row < end for begin, end in asked)
            for longest in (1, 12, None):
                rows.dirichlet[:] = 1 - lone[first:last]
                flags.find(longest)
                assert np.array_equal(rows.dirichlet, lone[first:last])
                assert np.array_equal(ghosts.flags, lone[ghosts.columns])
                team.meet()
            rows.dirichlet[:] = 1 - rows.dirichlet
            flags.tell()
            assert np.array_equal(ghosts.flags, ~lone[ghosts.columns])
            team.meet()
        ghosts.destroy()


def test_voxels():
    compare(*conductances(SHAPE, random_solids(SHAPE)))


def test_rows_of_no_rank():
    compare(*conductances(SHAPE, random_solids(SHAPE)), rows=uneven(int(np.prod(SHAPE))))


def test_coefficients():
    compare(*rough(SHAPE), rows=uneven(int(np.prod(SHAPE))))


def test_rows_in_any_order():
    cells = np.random.default_rng(1).permutation(int(np.prod(SHAPE)))
    compare(*conductances(SHAPE, random_solids(SHAPE)), cells=cells)


def test_plane():
    shape = (1, 200, 150)
    compare(*rough(shape))


def test_threads_of_ranks():
    """Two threads of each rank are as four ranks."""
    original, pc_module.threads_per_rank = pc_module.threads_per_rank, lambda comm: 2
    try:
        w, s = rough(SHAPE)
        values = np.random.default_rng(3).normal(size=s.size)
        team, ours = shared(w, s, values, pc_dcdm_box="node")
    finally:
        pc_module.threads_per_rank = original
    one, theirs = alone(2 * WORLD.size, w, s, values)
    assert f"with {2 * WORLD.size} threads" in team[2], team
    assert team[:2] == one[:2] and np.array_equal(ours[0], theirs[0])


def compare_nodes(w, s, values, threads):
    """What solves the coarsest level of simulated nodes of two ranks, the last of which may have one; their answer is
    that of one rank of so many threads.
    """
    original = node.split_by_node
    node.split_by_node = lambda comm: comm.Split(comm.Get_rank() // 2, comm.Get_rank())
    try:
        several, ours = shared(w, s, values, comm=PETSc.Comm(WORLD.Dup()), pc_dcdm_box="node")
    finally:
        node.split_by_node = original
    one, theirs = alone(threads, w, s, values)
    assert all(abs(a - b) <= 1 for a, b in zip(several[:2], one[:2], strict=True)), (several, one)
    assert np.allclose(ours[0], theirs[0], rtol=0, atol=1e-6 * np.abs(theirs[0]).max())
    return several[3]


def test_several_nodes():
    """Halos between their boxes."""
    w, s = conductances((40, 33, 38), random_solids((40, 33, 38)))
    compare_nodes(w, s, np.random.default_rng(3).normal(size=s.size), WORLD.size)


def test_nothing_is_left():
    """Set-ups one after the other take memory once, and it goes with the process: its file has no name."""
    w, s = rough(SHAPE)
    A = matrix(w, s)
    ksp, _ = solve(A, A.createVecRight(), pc_dcdm_box="node")
    taken = []
    for _ in range(4):
        A.scale(2.0)
        ksp.setOperators(A)
        ksp.setUp()
        taken.append(ksp.getPC().getPythonContext()._boxes.found.team.memory.taken)
    assert WORLD.rank or taken[-1] == taken[1], taken
    b, taken = of_values(A, np.random.default_rng(1).normal(size=s.size)), []
    gc.disable()  # what a solver leaves behind goes with it, not when Python looks for circles
    try:
        for _ in range(4):
            ksp.destroy()
            ksp, _ = solve(A, b, pc_dcdm_box="node")
            taken.append(ksp.getPC().getPythonContext()._boxes.found.team.memory.taken)
    finally:
        gc.enable()
    assert WORLD.rank or taken[-1] == taken[1], taken
    assert not [name for name in os.listdir("/dev/shm") if "dcdm" in name]


def test_refusals():
    A = matrix(*conductances((6, 7, 8)))
    for options in ({"pc_dcdm_compile": "off"}, {"pc_dcdm_model": "cnn"}):
        try:
            solve(A, A.createVecRight(), pc_dcdm_box="node", **options)
        except (OptionError, PETSc.Error) as problem:
            assert isinstance(problem, PETSc.Error) or "use auto or rank" in str(problem)
        else:
            raise AssertionError("a box was shared without compiled kernels")


def test_memory_can_not_be_shared():
    """Then each rank has a box, unless that was not what was asked for."""
    A = matrix(*conductances(SHAPE), comm=PETSc.Comm(WORLD.Dup()))
    original = node._new_file

    def none():
        raise OSError("no files in memory here")

    node._new_file = none
    try:
        ksp, _ = solve(A, A.createVecRight(), pc_dcdm_box="auto")
        context = ksp.getPC().getPythonContext()
        assert "per rank" in context._backend.description and "no files in memory here" in context.system.why_alone
        try:
            solve(A, A.createVecRight(), pc_dcdm_box="node")
        except (OptionError, PETSc.Error):
            pass
        else:
            raise AssertionError("it was shared all the same")
    finally:
        node._new_file = original
