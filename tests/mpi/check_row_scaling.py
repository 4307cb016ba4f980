"""Rows that were scaled one by one, on ranks: the factors of one rank, the steps of one rank, one refusal."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from curvilinear import aij, cylinder, divided, even, finite_volumes, stretched, vector
from mpi4py import MPI
from petsc4py import PETSc
from scipy.sparse.csgraph import connected_components
from systems import random_solids, refused, solve

from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil.forms import row_scaling
from petsc_dcdm.stencil.forms.row_scaling import find_row_factors, looks_scaled

RANKS = (1, 2, 3)
WORLD = MPI.COMM_WORLD
SHAPE = (9, 14, 16)


def laplacian():
    return finite_volumes([stretched(n, 1.2) for n in reversed(SHAPE)])[0]


def gathered(values):
    return np.concatenate(WORLD.allgather(values))


def require_factors(A, d):
    factors = find_row_factors(aij(A))
    found = gathered(factors.values)
    count, component = connected_components(A)
    for c in range(count):
        own = component == c
        np.testing.assert_allclose((found / d)[own], (found / d)[own][0], rtol=1e-12)
        assert 0.4 < np.exp(np.log(found[own]).mean()) < 2.5
    assert factors.spread == found.max() / found.min()


def test_factors_of_components_that_lie_across_ranks():
    library = row_scaling.library

    def none():
        raise KernelsUnavailable("there is no compiler")

    for fraction in (0.0, 0.4):
        active = np.flatnonzero(random_solids(SHAPE, 3, fraction))
        S = laplacian()[active][:, active]
        d = 10.0 ** np.random.default_rng(2).uniform(-6, 6, active.size)
        for order in (np.arange(active.size), np.random.default_rng(5).permutation(active.size)):
            A = divided(S, 1 / d)[order][:, order]
            for kernels in (library, none):
                row_scaling.library = kernels
                try:
                    require_factors(A, d[order])
                finally:
                    row_scaling.library = library


def test_ranks_without_rows_and_without_couplings():
    for A in (sp.csr_matrix(np.array([[2.0, -1.0], [-5.0, 10.0]])), sp.identity(7, format="csr")):
        d = np.array([1.0, 5.0]) if A.shape[0] == 2 else np.ones(7)
        require_factors(A, d)


def test_all_ranks_hear_of_what_one_has_seen():
    S = laplacian()
    d = np.ones(S.shape[0])
    d[-20:] = 1.5
    assert looks_scaled(aij(divided(S, d)), 1e-6) and not looks_scaled(aij(S), 1e-6)


def cell_order(A, cells):
    M = aij(A[cells][:, cells])
    own = cells[slice(*M.getOwnershipRange())].astype(PETSc.IntType)
    M.compose("dcdm_cells", PETSc.IS().createGeneral(own, comm=M.getComm()))
    return M


def test_steps_are_those_of_one_rank():
    S, volume = cylinder(40, 36)
    A, f = divided(S, volume), np.random.default_rng(1).standard_normal(volume.size)
    exact = spla.splu(A.tocsc()).solve(f)
    alone = aij(A, PETSc.COMM_SELF)
    options = {"ksp_rtol": 1e-9, "pc_dcdm_grid": "40,36"}
    its = solve(alone, vector(alone, f), **options)[0].getIterationNumber()
    for cells in (np.arange(f.size), np.random.default_rng(3).permutation(f.size)):
        M = cell_order(A, cells)
        for operator in ("mat", "stencil"):
            ksp, x = solve(M, vector(M, f[cells]), ksp_dcdm_operator=operator, **options)
            found = gathered(x.getArray())
            assert ksp.getConvergedReason() > 0 and abs(ksp.getIterationNumber() - its) <= 1
            assert np.linalg.norm(f[cells] - A[cells][:, cells] @ found) < 1.01e-9 * np.linalg.norm(f)
            assert np.linalg.norm(found - exact[cells]) < 1e-7 * np.linalg.norm(exact)


def test_closed_walls_and_the_transposed_system():
    S, volume = cylinder(40, 36, walls=0.0)
    A, f = divided(S, volume), np.random.default_rng(1).standard_normal(volume.size)
    M = aij(A)
    M.setNullSpace(PETSc.NullSpace().create(constant=True))
    rest = f - volume * (f @ volume) / (volume @ volume)
    for operator in ("stencil", "mat"):  # the last of them solves the transposed system as well
        options = {"ksp_rtol": 1e-9, "pc_dcdm_grid": "40,36", "ksp_dcdm_operator": operator}
        ksp, x = solve(M, vector(M, f), **options)
        assert ksp.getConvergedReason() > 0
        assert np.linalg.norm(rest - A @ gathered(x.getArray())) < 1.01e-9 * np.linalg.norm(rest)
    f -= f.mean()
    ksp.solveTranspose(vector(M, f), x)
    assert ksp.getConvergedReason() > 0
    assert np.linalg.norm(f - A.T @ gathered(x.getArray())) < 1.01e-9 * np.linalg.norm(f)


def test_what_no_factors_mend_is_refused_on_all_ranks():
    S, volume = finite_volumes([even(16)] * 3)
    A = divided(S, volume).tolil()
    row = A.shape[0] - 3  # the last rank's alone
    A[row, row + 1] *= 1.5
    A[row, row] -= A[row, row + 1]
    M = aij(A.tocsr())
    with refused(r"not symmetric: cell \(13, 15, 15\) is coupled"):
        solve(M, vector(M, np.ones(A.shape[0])))
