"""Rows that were scaled one by one where constants are a null space, or nearly: of A = D S, and D^-1 1 of A'."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from curvilinear import aij, divided, divided_by_r, error, even, finite_volumes, grid, random_vector, stretched, vector
from petsc4py import PETSc
from systems import relative_residual, solve

Reason = PETSc.KSP.ConvergedReason


@pytest.mark.parametrize("operator", ["mat", "stencil"])
@pytest.mark.parametrize("attach", ["nothing", "constants", "both"])
def test_closed_walls(attach, operator):
    """A b of which sum(b volume) is 0 is in the range, and no other."""
    shape, S, volume, A = divided_by_r(walls=0.0)
    M, f = aij(A), random_vector(volume.size)
    rest = f - volume * (f @ volume) / (volume @ volume)
    if attach != "nothing":
        M.setNullSpace(PETSc.NullSpace().create(constant=True))
    else:
        f = rest
    if attach == "both":
        left = vector(M, volume)
        left.normalize()
        M.setTransposeNullSpace(PETSc.NullSpace().create(constant=False, vectors=[left]))
    ksp, x = solve(M, vector(M, f), ksp_rtol=1e-9, pc_dcdm_grid=grid(shape), ksp_dcdm_operator=operator)
    found = x.getArray()
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 15
    assert np.linalg.norm(rest - A @ found) < 1.01e-9 * np.linalg.norm(rest)
    if attach != "nothing":
        assert abs(found.sum()) < 1e-6 * np.linalg.norm(found)


@pytest.mark.parametrize("operator", ["mat", "stencil"])
def test_closed_walls_and_no_solution(operator, capsys):
    """A b that adds up to 0 is none of the range where rows were scaled."""
    shape, _, volume, A = divided_by_r(walls=0.0)
    M, f = aij(A), random_vector(volume.size)
    f -= f.mean()
    ksp, _ = solve(M, vector(M, f), pc_dcdm_grid=grid(shape), ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN and ksp.getIterationNumber() == 0
    part = abs(f @ volume) / np.linalg.norm(volume)
    assert f"a part of the right-hand side ({part:.1e}" in capsys.readouterr().err


def test_constants_that_nearly_are_a_null_space():
    shape, S, volume, _ = divided_by_r(walls=0.0)
    A, f = divided(S + sp.diags(1e-5 * volume), volume), random_vector(volume.size)
    M = aij(A)
    b = vector(M, f)
    ksp, x = solve(M, b, ksp_rtol=1e-8, pc_dcdm_grid=grid(shape))
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 15
    assert relative_residual(M, x, b) < 1.01e-8 and error(A, x, f) < 1e-4


def test_a_room_without_a_solution_is_named(capsys):
    """Two rooms, one of them closed, whose b does not add up to 0 in the sense of its volumes: x grows and grows."""
    widths = [stretched(48, 1.15), stretched(40, 1.1), even(1)]
    S, volume = finite_volumes(widths)
    right = np.arange(volume.size) % 48 >= 20
    keep = sp.diags((~right).astype(float))
    closed = finite_volumes(widths, walls=0.0)[0].tolil()
    closed[~right] = 0.0
    closed[:, ~right] = 0.0
    closed.setdiag(0.0)
    closed = closed.tocsr()
    closed.setdiag(-np.asarray(closed.sum(axis=1)).ravel())
    A, f = divided((keep @ S @ keep + closed).tocsr(), volume), random_vector(volume.size)
    f[right] -= f[right].mean()
    M = aij(A)
    ksp, _ = solve(M, vector(M, f), ksp_rtol=1e-8, pc_dcdm_grid="48,40", ksp_max_it=60)
    part = abs(f[right] @ volume[right]) / np.linalg.norm(volume[right])
    assert ksp.getConvergedReason() < 0
    assert f"its constant part is {part:.1e}" in capsys.readouterr().err
