"""Compact stencils on ranks: the iterations of one rank and the answer of LU, however the rows are distributed."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from compact_systems import folded, identity_rows, to_petsc
from mpi4py import MPI
from petsc4py import PETSc
from systems import relative_residual, right_hand_side, solve

from petsc_dcdm.studies.compact import elements, eliminated, sides

RANKS = (3, 4)
COMM = PETSc.COMM_WORLD
DIFFERENCE = 1e-4
"""Of the results on one rank and on several, relative: single precision, and another order of sums."""
FLAT, SOLID = (27, 33), (12, 10, 15)


def variable(cells):
    return 10 ** (0.3 * np.random.default_rng(4).standard_normal(cells))


def answer(A, x):
    """All of x, in the order of the rows, on all ranks."""
    return np.concatenate(COMM.tompi4py().allgather(x.getArray().copy()))


def uneven(n):
    """Most rows on the first rank, none on the last but one of three."""
    size, rank = COMM.getSize(), COMM.getRank()
    share = [n // (2 * size)] * size
    share[1] = 0 if size > 2 else share[1]
    share[0] += n - sum(share)
    return share[rank]


def alone(matrix, **options):
    """Iterations on one rank, which every rank has for itself."""
    A = to_petsc(matrix, PETSc.COMM_SELF)
    return solve(A, right_hand_side(A), **options)[0].getIterationNumber()


def check(matrix, A, order=None, **options):
    """Against one rank and LU; `order`: which unknown of `matrix` each global row is."""
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9, **options)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.01e-9
    right = answer(A, b)
    order = np.arange(right.size) if order is None else order
    exact = spl.spsolve(matrix[order][:, order].tocsc(), right)
    assert np.linalg.norm(answer(A, x) - exact) <= 1e-6 * np.linalg.norm(exact)
    return ksp.getIterationNumber()


def test_rows_in_any_split():
    for cells in (FLAT, SOLID):
        matrix = eliminated(elements(cells, variable(cells)), sides(cells))
        one = alone(matrix, ksp_rtol=1e-9)
        for rows in (None, uneven(matrix.shape[0])):
            assert abs(check(matrix, to_petsc(matrix, rows=rows)) - one) <= 1


def test_identity_rows_that_others_couple_to():
    matrix = identity_rows(elements(SOLID), sides(SOLID), both=False)
    one = alone(matrix, ksp_rtol=1e-9)
    assert abs(check(matrix, to_petsc(matrix)) - one) <= 1


RINGS = [(FLAT, (False, True)), ((20, 17), (True, True)), ((8, 7, 9), (True, False, True))]


def test_rings_in_any_split():
    """The corners of the couplings' halo too come from the other end."""
    for cells, rings in RINGS:
        matrix, _ = folded(elements(cells, variable(cells)), cells, rings)
        matrix = (matrix + 0.01 * sp.diags(matrix.diagonal())).tocsr()
        one = alone(matrix, ksp_rtol=1e-9)
        for rows in (None, uneven(matrix.shape[0])):
            assert abs(check(matrix, to_petsc(matrix, rows=rows)) - one) <= 1


def test_rows_that_were_scaled():
    matrix, _ = folded(elements(FLAT, variable(FLAT)), FLAT, (False, True))
    d = 10 ** np.random.default_rng(3).uniform(-1, 1, matrix.shape[0])
    matrix = (sp.diags(d) @ matrix).tocsr()
    assert abs(check(matrix, to_petsc(matrix)) - alone(matrix, ksp_rtol=1e-9)) <= 1


def test_a_ring_of_two_cells():
    cells, rings = (9, 10, 2), (False, True, True)
    matrix, shape = folded(elements(cells, variable(cells)), cells, rings)
    given = {"pc_dcdm_grid": ",".join(map(str, shape[::-1])), "pc_dcdm_periodic": "x,y"}
    one = alone(matrix, ksp_rtol=1e-9, **given)
    assert abs(check(matrix, to_petsc(matrix), **given) - one) <= 1


def test_periodic_dmdas_cut_along_any_axis():
    for cells, rings in RINGS[1:]:
        matrix, shape = folded(elements(cells, variable(cells)), cells, rings)
        matrix = (matrix + 0.01 * sp.diags(matrix.diagonal())).tocsr()
        kinds = [PETSc.DM.BoundaryType.PERIODIC if ring else PETSc.DM.BoundaryType.NONE for ring in rings[::-1]]
        one = alone(matrix, ksp_rtol=1e-9)
        for axis in range(len(cells)):
            procs = [COMM.getSize() if a == axis else 1 for a in range(len(cells))]
            dm, A, order = on_dmda(matrix, shape[::-1][: len(cells)], procs, boundary_type=kinds)
            assert abs(check(matrix, A, order, dm=dm) - one) <= 1


def on_dmda(matrix, sizes, procs, **kinds):
    """The matrix of all nodes on a DMDA, and the node of each global row."""
    box = PETSc.DMDA.StencilType.BOX
    dm = PETSc.DMDA().create(sizes, stencil_type=box, stencil_width=1, dof=1, proc_sizes=procs, **kinds)
    A = dm.createMat()
    order = np.argsort(dm.getAO().app2petsc(np.arange(matrix.shape[0], dtype=PETSc.IntType)))
    first, last = A.getOwnershipRange()
    given = matrix[order][:, order].tocoo()
    own = (given.row >= first) & (given.row < last)
    for row, column, value in zip(given.row[own], given.col[own], given.data[own], strict=True):
        A.setValue(row, column, value)
    A.assemble()
    return dm, A, order


def test_a_dmda_cut_along_any_axis():
    sizes = [n + 1 for n in SOLID[::-1]]
    matrix = identity_rows(elements(SOLID, variable(SOLID)), sides(SOLID))
    for axis in range(3):
        dm, A, order = on_dmda(matrix, sizes, [COMM.getSize() if a == axis else 1 for a in range(3)])
        check(matrix, A, order, dm=dm)


def test_the_preconditioner_is_that_of_one_rank():
    """Sweeps on boxes that meet at edges are those on the whole grid."""
    matrix = elements((15, 15, 15), variable((15, 15, 15)))
    matrix = (matrix + 0.1 * sp.diags(matrix.diagonal())).tocsr()
    _, A, order = on_dmda(matrix, (16,) * 3, [2, 2, 1] if COMM.getSize() == 4 else [1, 1, COMM.getSize()])
    answers = []
    for B in (A, to_petsc(matrix[order][:, order], PETSc.COMM_SELF)):
        if B is not A:
            cells = PETSc.IS().createGeneral(order.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
            B.compose("dcdm_cells", cells)
            PETSc.Options()["pc_dcdm_grid"] = "16,16,16"
        pc = PETSc.PC().create(B.getComm())
        pc.setOperators(B)
        pc.setType("python")
        pc.setPythonType("petsc_dcdm.PC")
        pc.setFromOptions()
        pc.setUp()
        r, z = right_hand_side(B), B.createVecRight()
        pc.apply(r, z)
        answers.append(np.concatenate(B.getComm().tompi4py().allgather(z.getArray().copy())))
        assert B is not A or COMM.getSize() != 4 or pc.getPythonContext().layout.boxes.procs == (1, 2, 2)
    difference = np.abs(answers[0] - answers[1]).max() / np.abs(answers[1]).max()
    assert difference < DIFFERENCE, difference


def test_rows_in_no_order():
    matrix = eliminated(elements(FLAT, variable(FLAT)), sides(FLAT))
    order = np.random.default_rng(7).permutation(matrix.shape[0])
    A = to_petsc(matrix[order][:, order])
    first, last = A.getOwnershipRange()
    A.compose("dcdm_cells", PETSc.IS().createGeneral(order[first:last].astype(PETSc.IntType), comm=COMM))
    one = alone(matrix, ksp_rtol=1e-9)
    assert abs(check(matrix, A, order, pc_dcdm_grid="32,26") - one) <= 1


def test_closed_sides():
    matrix = elements(SOLID, variable(SOLID))
    A = to_petsc(matrix)
    b = right_hand_side(A)
    b.shift(-b.sum() / b.getSize())
    ksp, x = solve(A, b, ksp_rtol=1e-8)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 8
    assert relative_residual(A, x, b) <= 1.01e-8


def test_a_refusal_is_one_sentence_on_all_ranks():
    for matrix, word in (
        (eliminated(elements(FLAT, shear=3.0), sides(FLAT)), "mixed derivatives"),
        (asymmetric(eliminated(elements(FLAT), sides(FLAT))), "row 600, column 601 is -9"),
    ):
        A = to_petsc(matrix)
        said = "nothing"
        try:
            solve(A, right_hand_side(A))
        except Exception as error:
            said = str(error.__cause__ or error)
        everyone = MPI.COMM_WORLD.allgather(said)
        assert word in said and len(set(everyone)) == 1, everyone


def asymmetric(matrix):
    matrix = matrix.tolil()
    matrix[600, 601] = -9.0
    return matrix.tocsr()
