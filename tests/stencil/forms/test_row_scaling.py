"""The factors of rows that were scaled one by one: in whatever order the rows are, with a compiler and without."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from curvilinear import aij, divided, finite_volumes, stretched
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from systems import random_solids

from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil.forms import row_scaling
from petsc_dcdm.stencil.forms.row_scaling import find_row_factors, looks_scaled, spanning_forest, weighted_square
from petsc_dcdm.stencil.local_csr import local_csr

SHAPE = (5, 9, 8)


@pytest.fixture(params=["compiled", "numpy"])
def kernels(request, monkeypatch):
    def none():
        raise KernelsUnavailable("there is no compiler")

    if request.param == "numpy":
        monkeypatch.setattr(row_scaling, "library", none)
    return request.param


def laplacian(shape=SHAPE, ratio=1.3):
    return finite_volumes([stretched(n, ratio) for n in reversed(shape)])[0]


def orders(n):
    random = np.random.default_rng(5)
    red_black = np.concatenate((np.arange(0, n, 2), np.arange(1, n, 2)))
    return {"lexicographic": np.arange(n), "backwards": np.arange(n)[::-1], "red-black": red_black,
            "random": random.permutation(n)}  # fmt: skip


def require_factors(found, A, d):
    """Up to one factor for each component, whose geometric mean is about 1."""
    count, component = connected_components(A)
    quotient = found / d
    for c in range(count):
        own = component == c
        np.testing.assert_allclose(quotient[own], quotient[own][0], rtol=1e-12)
        assert 0.4 < np.exp(np.log(found[own]).mean()) < 2.5


@pytest.mark.parametrize("order", orders(2))
@pytest.mark.parametrize("fraction", [0.0, 0.45])
def test_factors_are_found_in_any_order(order, fraction, kernels):
    """With solids many regions touch nowhere, and cells that have no neighbour are on their own."""
    S = laplacian()
    active = np.flatnonzero(random_solids(SHAPE, 3, fraction))
    S = S[active][:, active]
    d = 10.0 ** np.random.default_rng(2).uniform(-6, 6, active.size)
    new = orders(active.size)[order]
    A = divided(S, 1 / d)[new][:, new]
    found = find_row_factors(aij(A))
    require_factors(found.values, A, d[new])
    assert found.spread == found.values.max() / found.values.min()
    symmetric = sp.diags(1 / found.values) @ A
    assert abs(symmetric - symmetric.T).max() < 1e-12 * abs(symmetric).max()


def test_dirichlet_rows_that_others_couple_to_have_no_factor_and_no_say(kernels):
    S = laplacian().tolil()
    fixed = np.random.default_rng(1).choice(S.shape[0], 60, replace=False)
    S[fixed] = 0.0
    S[fixed, fixed] = 7.0
    S = S.tocsr()
    S.eliminate_zeros()
    d = 10.0 ** np.random.default_rng(2).uniform(-3, 3, S.shape[0])
    d[fixed] = 1.0
    A = divided(S, d)
    found = find_row_factors(aij(A)).values
    assert (found[fixed] == 1.0).all()
    both = A.multiply((A.T != 0).astype(float))
    require_factors(found, both, 1 / d)


@pytest.mark.parametrize("growth", [1e3, 1e-3])
def test_factors_beyond_all_numbers_are_none(growth, kernels):
    n = 200
    A = sp.diags([-np.ones(n - 1), np.full(n, 1.0 + growth), np.full(n - 1, -growth)], [-1, 0, 1]).tocsr()
    assert find_row_factors(aij(A)) is None


def test_couplings_of_two_signs_tell_nothing(kernels):
    A = sp.csr_matrix(np.array([[2.0, -1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -4.0, 2.0]]))
    found = find_row_factors(aij(A)).values
    assert found[0] == 1.0 and found[2] / found[1] == 4.0


@pytest.mark.parametrize("where", ["one row in 64", "nowhere"])
def test_a_look_at_a_few_rows_tells_of_scaled_ones(where):
    S = laplacian((1, 40, 40)).tolil()
    S[:, 100] = 0.0  # the others couple to row 100 no more, which couples to them: that is another matter
    S[100, 100] = 1.0
    S = S.tocsr()
    d = np.ones(S.shape[0])
    if where != "nowhere":
        d[::25] = 1.01
    assert looks_scaled(aij(divided(S, d)), 1e-6) == (where != "nowhere")
    assert not looks_scaled(aij(divided(S, d)), 0.02)


def test_rows_are_divided(kernels):
    S = laplacian()
    d = np.random.default_rng(0).uniform(1, 2, S.shape[0])
    A = aij(divided(S, 1 / d))
    with local_csr(A) as local:
        values = row_scaling.RowFactors(d, 2.0).divided(local, threads=2).values
    S.sort_indices()
    np.testing.assert_allclose(values, S.data, rtol=1e-15)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 120))
@settings(max_examples=60, deadline=None)
def test_a_forest_spans_every_component(seed, n, edges):
    random = np.random.default_rng(seed)
    i, j = random.integers(0, n, (2, edges))
    i, j = np.maximum(i, j)[i != j], np.minimum(i, j)[i != j]
    d = 2.0 ** random.integers(-20, 20, n)
    found, root = spanning_forest(n, i, j, d[i] / d[j])
    count, component = connected_components(sp.coo_matrix((np.ones(i.size), (i, j)), shape=(n, n)), directed=False)
    lowest = np.array([np.flatnonzero(component == c)[0] for c in range(count)])
    assert (root == lowest[component]).all() and (found[root] == 1.0).all()
    assert (found == d / d[root]).all()


@pytest.mark.parametrize("n", [0, 1, 7, 8, 1003])
@pytest.mark.parametrize("threads", [1, 3])
def test_weighted_squares_leave_out_what_has_no_weight(n, threads):
    random = np.random.default_rng(n)
    weight, v = random.uniform(1, 2, n), random.standard_normal(n)
    weight[::3], v[::3] = 0.0, np.nan
    there = weight != 0
    assert weighted_square(weight, v, threads) == pytest.approx(((weight[there] * v[there]) ** 2).sum(), rel=1e-14)
