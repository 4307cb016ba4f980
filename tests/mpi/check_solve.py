"""The same answer on any number of ranks: against the one-rank solve that rank 0 does for itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

from petsc_dcdm.backends import devices
from petsc_dcdm.grid.boxes import partition
from petsc_dcdm.grid.shape import NOT_PERIODIC
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.vec_map import boxes_of

RANKS = (3, 5)
TIMEOUT = 240
COMM = PETSc.COMM_WORLD
SHAPE = (17, 24, 35)


def uneven(n):
    """Rows of this rank: the first rank has most, the last but one has none."""
    size, rank = COMM.getSize(), COMM.getRank()
    if size == 1:
        return n
    share = [n // (2 * size)] * size
    share[-2 if size > 2 else -1] = 0
    share[0] += n - sum(share)
    return share[rank]


def compare(w, s, *, cells=None, rows=None, null_space=False, dirichlet=None):
    """Iterations within one, solutions to 1e-9 at rtol 1e-10."""
    results = []
    # The one-rank solve is done last: the others wait for its verdict.
    for comm, own in ((COMM, rows), (PETSc.COMM_SELF, None)):
        if comm == PETSc.COMM_SELF and COMM.getRank():
            break
        A = matrix(w, s, cells=cells, comm=comm, rows=own)
        if dirichlet is not None:
            A.zeroRows(dirichlet if COMM.getRank() == 0 or comm == PETSc.COMM_SELF else [], diag=2.0)
        if null_space:
            A.setNullSpace(PETSc.NullSpace().create(constant=True, comm=comm))
        if cells is not None:
            first, last = A.getOwnershipRange()
            A.compose("dcdm_cells", PETSc.IS().createGeneral(np.asarray(cells[first:last], PETSc.IntType), comm=comm))
        b = right_hand_side(A)
        if null_space or not s.any():
            A.mult(right_hand_side(A, 5), b)
        options = {} if cells is None else {"pc_dcdm_grid": "{2},{1},{0}".format(*s.shape)}
        ksp, x = solve(A, b, ksp_rtol=1e-10, ksp_max_it=40, **options)
        assert ksp.getConvergedReason() > 0, ksp.getConvergedReason()
        assert relative_residual(A, x, b) <= 1e-10
        values = comm.tompi4py().gather(x.getArray().copy())
        values = np.concatenate(values) if values else None
        results.append((ksp.getIterationNumber(), values))
    if COMM.getRank() == 0:
        agree(*results, s, null_space)
    COMM.barrier()


def agree(parallel, alone, s, null_space):
    (many, y), (one, x) = parallel, alone
    assert abs(one - many) <= 1, (one, many)
    if not s.any() and not null_space:
        y = y + (x - y).mean()
    assert np.linalg.norm(x - y) <= 1e-9 * np.linalg.norm(x), np.linalg.norm(x - y) / np.linalg.norm(x)


def test_inferred_grid():
    compare(*conductances(SHAPE, random_solids(SHAPE, fraction=0.1)))


def test_fluid_cells_only_in_any_order_and_uneven_parts():
    active = random_solids(SHAPE, fraction=0.3)
    cells = np.random.default_rng(0).permutation(np.flatnonzero(active.ravel()))
    compare(*conductances(SHAPE, active), cells=cells, rows=uneven(cells.size))


def test_boxes_of_active_cells_have_as_many_rows_as_each_other():
    """A shallow pool, and a column that fills a corner of it up to the top."""
    shape, plan = (64, 24, 24), ((0, 1, 2),)
    active = np.zeros(shape, bool)
    active[:20], active[:, :8, :8] = True, True
    cells = np.flatnonzero(active)
    first, last = (cells.size * (COMM.getRank() + i) // COMM.getSize() for i in (0, 1))
    grid = Grid(shape, cells[first:last], first, last - first, "test")
    boxes = boxes_of(grid, MPI.COMM_WORLD, plan, None, NOT_PERIODIC)
    most = [np.bincount(b.locate(cells)[0]).max() for b in (boxes, partition(shape, COMM.getSize(), plan))]
    assert COMM.getSize() == 1 or most[0] <= min(1.25 * cells.size / COMM.getSize(), 0.8 * most[1]), most


def test_uneven_rows_and_jumps():
    k = np.where(np.random.default_rng(0).random((5, 6, 9)) > 0.5, 1.0, 100.0)
    k = np.kron(k, np.ones((4, 4, 4)))[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    compare(*conductances(SHAPE, coefficient=k), rows=uneven(int(np.prod(SHAPE))))


def test_pure_neumann_with_and_without_its_null_space():
    w, s = conductances(SHAPE, walls=0.0)
    compare(w, s, null_space=True)
    compare(w, s)


def test_solids_on_one_rank_of_a_closed_box():
    """Norms that PETSc keeps are the same on all ranks: where some have fixed rows and others have none, too."""
    active = np.ones((6, 8, 10), bool)
    active[0, 2:4, 3:6] = False
    A = matrix(*conductances(active.shape, active, walls=0.0))
    b = right_hand_side(A)
    A.mult(right_hand_side(A, 5), b)
    for options in ({"ksp_norm_type": "natural"}, {"ksp_dcdm_operator": "mat"}):
        ksp, x = solve(A, b, ksp_rtol=1e-9, ksp_max_it=40, **options)
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-7, options
        ksp.destroy()


def test_anisotropic_2d_with_one_sided_dirichlet_rows():
    w, s = conductances((1, 90, 101), ratio=(1.0, 30.0, 1.0))
    compare(w, s, dirichlet=np.arange(0, 404, dtype=PETSc.IntType))


def test_fewer_cells_than_ranks():
    compare(*conductances((1, 1, 3)))


def test_dmda_with_uneven_ownership():
    da = PETSc.DMDA().create(SHAPE[::-1], stencil_width=1, comm=COMM)
    A = da.createMat()
    first, last = A.getOwnershipRange()
    to_petsc = da.getAO()
    natural = np.arange(int(np.prod(SHAPE)), dtype=PETSc.IntType)
    w, s = conductances(SHAPE, random_solids(SHAPE, fraction=0.1))
    serial = matrix(w, s, comm=PETSc.COMM_SELF)
    where = to_petsc.app2petsc(natural.copy())
    for cell in natural[(where >= first) & (where < last)]:
        columns, values = serial.getRow(int(cell))
        A.setValues(int(where[cell]), where[columns], values)
    A.assemble()
    full = np.random.default_rng(1).standard_normal(natural.size)
    b = A.createVecLeft()
    mine = natural[(where >= first) & (where < last)]
    b.setValues(where[mine], full[mine])
    b.assemble()
    ksp, x = solve(A, b, dm=da, ksp_rtol=1e-10)
    assert ksp.getPC().getPythonContext()._system.grid.source == "DMDA"
    reference = right_hand_side(serial)
    reference.setArray(full)
    one, y = solve(serial, reference, ksp_rtol=1e-10)
    assert abs(ksp.getIterationNumber() - one.getIterationNumber()) <= 1
    local = y.getArray()[mine]
    got = x.getArray()[where[mine] - first]
    assert MPI.COMM_WORLD.allreduce(np.linalg.norm(local - got)) <= 1e-9 * y.norm()


def said_by_all(A, **options):
    """The one sentence that all ranks end with."""
    said = "nothing"
    try:
        solve(A, right_hand_side(A), **options)
    except Exception as error:
        said = str(error.__cause__ or error)
    everyone = COMM.tompi4py().allgather(said)
    assert len(set(everyone)) == 1, everyone
    return said


def test_an_error_on_one_rank_ends_all_with_the_same_sentence():
    shape = (5, 9, 12)
    n = int(np.prod(shape))
    for row, column, value, sentence in (
        (n - 2, n - 2, np.nan, f"nan in row {n - 2}"),
        (n - 2, n - 1, 3.0, f"not symmetric: the entry in row {n - 2}, column {n - 1} is 3 and that in row {n - 1}"),
        (n - 1, n - 1, 0.1, f"row {n - 1} (cell (11, 8, 4) of the 12 x 9 x 5 grid from -pc_dcdm_grid) has row sum"),
        (n - 1, 0, -1.0, f"row {n - 1} (cell (11, 8, 4) of the 12 x 9 x 5 grid from -pc_dcdm_grid) is coupled to"),
    ):
        A = matrix(*conductances(shape))
        A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
        if A.getOwnershipRange()[0] <= row < A.getOwnershipRange()[1]:
            A.setValue(row, column, value)
        A.assemble()
        assert sentence in (said := said_by_all(A, pc_dcdm_grid="12,9,5")), said
    good = matrix(*conductances(shape))
    assert "nowhere.safetensors" in said_by_all(good, pc_dcdm_model="/nowhere.safetensors")
    b = right_hand_side(good)
    if COMM.getRank() == COMM.getSize() - 1:
        b.setValue(good.getSize()[0] - 1, np.nan)
    b.assemble()
    ksp, _ = solve(good, b)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF


def test_weights_are_read_on_rank_0_only():
    """Nodes without the file system that the weights are on get them from rank 0."""
    from petsc_dcdm.network import weights

    def missing(name):
        raise weights.WeightsError(f"{name}: not on this node")

    load = weights.load
    try:
        if COMM.getRank():
            weights.load = missing
        A = matrix(*conductances((3, 4, 5)))
        ksp, _ = solve(A, right_hand_side(A))
        assert ksp.getConvergedReason() > 0
    finally:
        weights.load = load


def test_ranks_that_share_gpus():
    """Two GPUs on this host: one rank for each of them holds a box, one rank in all if a GPU is named."""
    comm = COMM.tompi4py()
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    seen, torch = devices._has_gpu, sys.modules.get("torch")
    try:
        devices._has_gpu, sys.modules["torch"] = (lambda: True), SimpleNamespace(cuda=cuda)
        second = -(-comm.size // 2)
        device, holders = devices.choose_device("auto", comm)
        assert holders == (0, second)
        assert device == {0: "cuda:0", second: "cuda:1"}.get(comm.rank, "cpu")
        assert devices.choose_device("cuda:1", comm) == ("cpu" if comm.rank else "cuda:1", (0,))
        said = "nothing"
        try:
            devices.choose_device("cuda:2", comm)
        except devices.OptionError as error:
            said = str(error)
        assert comm.allgather(said) == comm.size * [
            "-pc_dcdm_device cuda:2: torch finds no CUDA device 2 here; use cpu or auto"
        ]
        devices._has_gpu = lambda: comm.rank > 0
        assert devices.choose_device("auto", comm) == ("cpu", None)
    finally:
        devices._has_gpu = seen
        sys.modules.pop("torch")
        if torch is not None:
            sys.modules["torch"] = torch


def test_boxes_on_some_ranks_only():
    """As where several ranks share a GPU and one of them has the box of all."""
    from petsc_dcdm.solver import pc

    def every_second(wish, comm):
        return "cpu", tuple(range(0, comm.Get_size(), 2))

    choose = pc.choose_device
    try:
        pc.choose_device = every_second
        w, s = conductances((5, 9, 40), random_solids((5, 9, 40), fraction=0.1))
        A = matrix(w, s)
        b = right_hand_side(A)
        ksp, x = solve(A, b, ksp_rtol=1e-10, pc_dcdm_compile="off")  # plain torch, Triton or not
        system = ksp.getPC().getPythonContext()._system
        assert (0 in system.layout.shape) == bool(COMM.getRank() % 2)
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-10
    finally:
        pc.choose_device = choose
    other, y = solve(A, b, ksp_rtol=1e-10)
    assert abs(ksp.getIterationNumber() - other.getIterationNumber()) <= 1
    y.axpy(-1.0, x)
    assert y.norm() <= 1e-9 * x.norm()
