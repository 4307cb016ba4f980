"""Rows in any order, spread over the ranks in any way, and nothing said about the grid."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc
from ring_systems import ocean, to_petsc
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve
from systems import conductances, matrix, poisson, refused, solve, triangles

from petsc_dcdm.stencil.lattice.search import embed

RANKS = (1, 2, 3)

comm = MPI.COMM_WORLD
SHAPE = (1, 30, 36)
BALL = sum((i - m) ** 2 for i, m in zip(np.indices(SHAPE), (0, 14.5, 17.5), strict=True)) < 260
SOLID = (10, 12, 14)
BORED = sum((i - 5.5) ** 2 for i in np.indices(SOLID)[1:]) > 9


def check(active: np.ndarray, order: np.ndarray, rows: int | None = None, dm: PETSc.DMDA | None = None) -> int:
    """Solves with rows in this order of the active cells; the answer is that of scipy. Returns the iterations."""
    cells = np.flatnonzero(active)[order]
    A = matrix(*conductances(active.shape, active), cells=cells, rows=rows)
    values = np.random.default_rng(1).standard_normal(cells.size)
    b = A.createVecLeft()
    b.setArray(values[slice(*A.getOwnershipRange())])
    ksp, x = solve(A, b, dm=dm, ksp_rtol=1e-9)
    alone = matrix(*conductances(active.shape, active), cells=cells, comm=PETSC_SELF)
    indptr, indices, entries = alone.getValuesCSR()
    expected = spsolve(csr_matrix((entries, indices, indptr)), values)[slice(*A.getOwnershipRange())]
    assert ksp.getConvergedReason() > 0
    np.testing.assert_allclose(x.getArray(), expected, atol=1e-6 * np.abs(expected).max(initial=1.0))
    return ksp.getIterationNumber()


PETSC_SELF = PETSc.COMM_SELF


def uneven(total: int) -> int:
    """Rows of this rank: none on the first of several, most on the last."""
    share = total // 4 if comm.rank < comm.size - 1 else total - total // 4 * max(comm.size - 2, 0)
    return share if comm.size == 1 or comm.rank else 0


def test_orders() -> None:
    for active in (np.ones(SHAPE, bool), BALL, BORED):
        place = np.nonzero(active)
        n = place[0].size
        orders = {
            "lexicographic": np.arange(n),
            "slowest first": np.lexsort(place),
            "red-black": np.argsort(sum(place) % 2, kind="stable"),
            "split along x": np.argsort(place[2] >= active.shape[2] // 2, kind="stable"),
            "random": np.random.default_rng(3).permutation(n),
        }
        found = {name: check(active, order) for name, order in orders.items()}
        found["uneven"] = check(active, orders["random"], rows=uneven(n))
        least = min(found.values())
        assert max(found.values()) <= least + 1, found


def test_the_order_of_a_dmda_that_is_not_there() -> None:
    da = PETSc.DMDA().create([14, 12, 10], proc_sizes=(comm.size, 1, 1), stencil_width=1)
    number = np.asarray(da.getAO().app2petsc(np.arange(1680, dtype=PETSc.IntType)))
    rows = int(np.prod([b - a for a, b in da.getRanges()]))
    assert check(np.ones(SOLID, bool), np.argsort(number), rows=rows) <= 5


def test_a_dmda_whose_order_the_matrix_does_not_have() -> None:
    da = PETSc.DMDA().create([36, 30], stencil_width=1)
    rows = int(np.prod([b - a for a, b in da.getRanges()]))
    assert check(np.ones(SHAPE, bool), np.arange(1080), rows=rows, dm=da) <= 5


def test_several_models_and_rows_without_couplings() -> None:
    active = np.zeros((6, 12, 24), bool)
    active[:, :, :10] = active[:4, :7, 12:] = True
    order = np.argsort(np.nonzero(active)[2] >= 11, kind="stable")
    for numbering in (order, np.random.default_rng(5).permutation(order)):
        check(active, numbering)
        lone = active.copy()
        lone[5, 11, 20] = lone[5, 9, 22] = True
        place = np.flatnonzero(lone)
        check(lone, np.random.default_rng(6).permutation(place.size))


def test_an_ocean_with_rings() -> None:
    """Wet cells in lexicographic order, rings along x: the cells are those of one rank, wherever the rows are."""
    m, _ = ocean((1, 30, 48), 1)
    A, alone = to_petsc(m, PETSc.COMM_WORLD), to_petsc(m)
    shape, cells = embed(A, comm)
    expected, whole = embed(alone, MPI.COMM_SELF)
    assert shape == expected and (cells == whole[slice(*A.getOwnershipRange())]).all()
    values = np.random.default_rng(1).standard_normal(m.shape[0])
    b = A.createVecLeft()
    b.setArray(values[slice(*A.getOwnershipRange())])
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    exact = spsolve(m.tocsc(), values)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 8
    assert ksp.getPC().getPythonContext().layout.periodic == (False, False, True)
    np.testing.assert_allclose(x.getArray(), exact[slice(*A.getOwnershipRange())], atol=1e-6 * np.abs(exact).max())


def test_refused_on_all_ranks() -> None:
    A = triangles(40)
    with refused("no grid could be found: the 120 rows could not be given cells"):
        solve(A, A.createVecLeft())
    crowded = PETSc.Mat().createAIJ([60, 60], nnz=60)
    for row in range(*crowded.getOwnershipRange()):
        crowded.setValues(row, np.arange(60, dtype=PETSc.IntType), np.where(np.arange(60) == row, 60.0, -1.0))
    crowded.assemble()
    # no grid is asked for where none can help
    with refused("no 5- or 7-point stencil, nor, with 59, a compact one; -pc_dcdm_fallback gamg would use"):
        solve(crowded, crowded.createVecLeft())


def test_the_order_of_rows_does_not_matter_to_what_is_known() -> None:
    """A whole grid in order has no cell numbers, on any number of ranks."""
    ksp, _ = solve(poisson((4, 5, 6)), poisson((4, 5, 6)).createVecLeft())
    assert ksp.getPC().getPythonContext()._system.grid.cells is None
