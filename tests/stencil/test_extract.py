"""Stencil extraction: what was assembled comes back, by compiled code and by numpy; what is no Poisson matrix is
refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from petsc4py import PETSc
from systems import conductances, matrix, poisson, random_solids

from petsc_dcdm.grid.errors import MatrixError
from petsc_dcdm.stencil import extract as extract_module
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.forms import nearest as nearest_module
from petsc_dcdm.stencil.system import build_system

READERS = ["compiled", "numpy"]


@pytest.fixture(params=READERS)
def reader(request, monkeypatch):
    if request.param == "numpy":
        for module in (extract_module, nearest_module):
            monkeypatch.setattr(module, "row_reader", lambda comm: NumpyRows)
    return request.param


def system_of(A, shape, cells=None):
    grid = Grid(shape, None if cells is None else np.asarray(cells, np.int64), 0, A.getSize()[0], "test")
    return build_system(A, grid, MPI.COMM_SELF, threshold=2.5, threads=1)


def interior(a):
    return a[1:-1, 1:-1, 1:-1]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 6)),
    seed=st.integers(0, 100),
    sign=st.sampled_from([1.0, -1.0]),
    compressed=st.booleans(),
    numpy_reader=st.booleans(),
)
def test_what_was_assembled_comes_back(shape, seed, sign, compressed, numpy_reader):
    active = random_solids(shape, seed)
    coefficient = np.exp(np.random.default_rng(seed).standard_normal(shape))
    w, s = conductances(shape, active, coefficient, ratio=(1.0, 3.0, 0.5))
    coupled = np.flatnonzero(active.ravel())
    if not coupled.size:
        return
    cells = np.random.default_rng(seed).permutation(coupled) if compressed else None
    A = matrix(w, s, cells=cells, sign=sign)
    before = A.copy()
    with pytest.MonkeyPatch.context() as patch:
        if numpy_reader:
            patch.setattr(extract_module, "row_reader", lambda comm: NumpyRows)
        system = system_of(A, shape, cells)
    assert A.equal(before)
    faces, extra = system.arrays()
    for axis in range(3):
        np.testing.assert_allclose(abs(system.scale) * interior(faces[axis]), w[axis], rtol=1e-6)
    # a cell without neighbours is a Dirichlet row, solved exactly: its s is its diagonal
    alone = np.ones(shape, bool)
    for axis, face in enumerate(w):
        beyond = np.roll(face, -1, axis=2 - axis)  # the low faces of the grid are closed, so that nothing comes around
        alone &= (face == 0) & (beyond == 0)
    np.testing.assert_allclose(
        abs(system.scale) * interior(extra), np.where(alone, 0.0, s), rtol=2e-6, atol=1e-7 * max(s.max(), 1.0)
    )
    assert np.sign(system.scale) == sign or not system.active_cells  # rows without couplings have none
    system.destroy()


def test_dirichlet_rows_count_into_s_even_when_they_couple_one_way(reader):
    A = poisson((1, 3, 3))
    A.zeroRows([4], diag=7.0)  # the middle row, its column stays in the others: not symmetric
    system = system_of(A, (1, 3, 3))
    assert list(system.fixed.rows) == [4] and system.fixed.diagonal[0] == 7.0
    w, s = system.arrays()
    assert interior(s)[0, 1, 1] == 0 and system.fixed.anywhere and not system.singular
    np.testing.assert_allclose(abs(system.scale) * interior(s)[0, 0, 1], 2.0 + 1.0, rtol=1e-6)
    assert interior(w[0])[0, 1, 1] == 0


def test_neumann_is_found_singular(reader):
    assert system_of(matrix(*conductances((3, 4, 5), walls=0.0)), (3, 4, 5)).singular
    assert not system_of(poisson((3, 4, 5)), (3, 4, 5)).singular


def with_entry(row, column, value, shape=(3, 4, 5)):
    A = poisson(shape)
    A.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    A.setValue(row, column, value, addv=PETSc.InsertMode.ADD_VALUES)
    A.assemble()
    return A


@pytest.mark.parametrize(
    "row, column, value, message",
    [
        (7, 7, np.nan, "nan in row 7"),
        (7, 8, np.inf, "inf in row 7"),
        (7, 9, -0.1, r"row 7 \(cell \(2, 1, 0\) of the 5 x 4 x 3 grid from test\) is coupled to column 9"),
        (5, 9, -0.1, "not symmetric"),  # the other end of its line
        (7, 13, -0.1, "not symmetric: the entry in row 7, column 13 is -0.1 and that in row 13, column 7 is 0"),
        (7, 8, 1.5, "not symmetric: the entry in row 7, column 8 is 0.5 and that in row 8, column 7 is -1"),
        (7, 7, -20.0, "row 7.*has diagonal"),
        (7, 7, -4.0, "not diagonally dominant"),
        (7, 8, 0.5, r"not symmetric: cell \(2, 1, 0\).*high neighbour along x with -0.5 and coupled back with -1"),
        (7, 8, 2e-6, "not symmetric"),
    ],
)
def test_refusals(reader, row, column, value, message):
    with pytest.raises(MatrixError, match=message):
        system_of(with_entry(row, column, value), (3, 4, 5))


def test_mixed_signs_of_coupled_rows_are_refused(reader):
    A = matrix(*conductances((1, 3, 3)), sign=-1.0)
    A.setValue(4, 4, 6.0)
    A.assemble()
    with pytest.raises(MatrixError, match="row 4.*diagonals of one sign"):
        system_of(A, (1, 3, 3))


@pytest.mark.parametrize("row", [0, 4])
def test_the_sign_is_that_of_coupled_rows(reader, row):
    A = matrix(*conductances((1, 3, 3)), sign=-1.0)
    A.zeroRowsColumns([row], diag=1.0)
    system = system_of(A, (1, 3, 3))
    assert system.scale < 0 and list(system.fixed.diagonal) == [1.0]


def test_rounding_of_the_assembly_is_not_taken_for_asymmetry(reader):
    A = with_entry(7, 8, 1e-14)
    assert system_of(A, (3, 4, 5)).scale > 0


SINGLE = pytest.mark.parametrize("size, served", [(0.5e-9, True), (2e-9, False)])


@SINGLE
def test_an_entry_of_the_wrong_sign_is_rounding_up_to_1e_9_of_the_diagonal(reader, size, served):
    A = with_entry(7, 8, 1.0 + 6 * size)
    A.setValue(8, 7, 6 * size)
    A.assemble()
    assert (system_of(A, (3, 4, 5)).near is None) == served


@SINGLE
def test_a_negative_row_sum_is_rounding_up_to_1e_9_of_the_diagonal(reader, size, served):
    A = matrix(*conductances((3, 4, 5), walls=0.0))
    d = A.getValue(7, 7)
    A.setValue(7, 7, d * (1 - size))
    A.assemble()
    if served:
        assert not system_of(A, (3, 4, 5)).exact
    else:
        with pytest.raises(MatrixError, match="row sum"):
            system_of(A, (3, 4, 5))


@pytest.mark.parametrize("size, singular", [(1e-16, True), (4e-15, False), (1e-12, False), (1e-6, False)])
@pytest.mark.parametrize("where", ["one row", "all rows"])
def test_row_sums_beyond_the_rounding_of_a_sum_hold_constants(reader, size, singular, where):
    """Implicit heat and storage: nearly singular is not singular."""
    A = matrix(*conductances((3, 4, 5), walls=0.0))
    d = A.getDiagonal()
    values = d.getArray()
    if where == "all rows":
        values *= 1 + size
    else:
        values[17] *= 1 + size
    A.setDiagonal(d)
    system = system_of(A, (3, 4, 5))
    assert system.singular is singular
    assert system.nearly_closed is (not singular and size <= 1e-7)


def test_a_sum_of_one_row_that_is_two_units_of_its_last_place_is_rounding(reader):
    A = matrix(*conductances((3, 4, 5), walls=0.0))
    A.setValue(17, 17, A.getValue(17, 17) * (1 + 4e-16))
    A.assemble()
    assert system_of(A, (3, 4, 5)).singular


def test_a_sum_that_is_positive_in_every_row_is_no_rounding(reader):
    """An s of 1.5e-15 of the diagonal, which the sums hold exactly."""
    w, s = conductances((3, 4, 5), walls=0.0)
    A = matrix([2.0**50 * a for a in w], s + 8.0)
    system = system_of(A, (3, 4, 5))
    assert not system.singular
    np.testing.assert_allclose(interior(system.arrays()[1]) * system.scale, 8.0, rtol=1e-12)


def test_small_row_sums_of_both_signs_are_noise(reader):
    """As of a matrix that was written to a text file with ten digits."""
    A = matrix(*conductances((3, 4, 5), walls=0.0))
    d = A.getDiagonal()
    d.getArray()[:] *= 1 + 1e-10 * np.random.default_rng(0).standard_normal(60)
    A.setDiagonal(d)
    system = system_of(A, (3, 4, 5))
    assert system.singular and not system.exact


@pytest.mark.parametrize("size, fixed", [(1e5, 0), (1e7, 2), (1e30, 2)])
def test_penalties_fix_values(reader, size, fixed):
    A = poisson((3, 4, 5))
    for row in (7, 31):
        A.setValue(row, row, 6.0 * size)
    A.assemble()
    system = system_of(A, (3, 4, 5))
    assert system.fixed.rows.size == fixed and system.fixed.coupled is (fixed > 0)
    w, s = system.arrays()
    if fixed:
        assert 0.05 < max(a.max() for a in w) < 1.0, "single precision must not see the penalty"
        assert interior(s).flat[8] * system.scale > 0.9, "the coupling to a fixed value counts into s"


def test_masses_far_beyond_all_couplings_are_no_penalties(reader):
    w, s = conductances((3, 4, 5), walls=0.0)
    system = system_of(matrix([1e-12 * a for a in w], s + 1.0), (3, 4, 5))
    assert not system.fixed.anywhere


def test_extreme_ratios_stay_within_single_precision(reader):
    k = np.ones((3, 4, 5))
    k[..., :2] = 1e-30
    with pytest.raises(MatrixError, match="ratios up to 1e24"):
        system_of(matrix(*conductances((3, 4, 5), coefficient=k)), (3, 4, 5))
    k[..., :2] = 1e-22
    system = system_of(matrix(*conductances((3, 4, 5), coefficient=k)), (3, 4, 5))
    arrays, _ = system.arrays()
    positive = np.concatenate([a[a > 0] for a in arrays])
    assert 1e-20 < positive.min() and positive.max() < 1e20


@pytest.mark.parametrize("size", [3e-7, 1.0, 5e11])
@pytest.mark.parametrize("varying", [False, True])
def test_the_scale_rounds_nothing_and_fits_the_largest_diagonal(reader, size, varying):
    """Though it is guessed from a few diagonals, which miss the one that is largest by far."""
    shape = (10, 10, 10)
    coefficient = np.exp(np.random.default_rng(0).standard_normal(shape)) if varying else np.ones(shape)
    w, s = conductances(shape, coefficient=coefficient)
    s[5, 5, 7] += 1e4
    system = system_of(matrix([size * a for a in w], size * s), shape)
    assert np.frexp(system.scale)[0] == 0.5
    arrays, extra = system.arrays()
    for found, a in zip(arrays, w, strict=True):
        assert np.array_equal(interior(found) * system.scale, size * a)
    high = [interior(np.roll(a, -1, 2 - axis)) for axis, a in enumerate(arrays)]
    diagonal = interior(extra) + sum(map(interior, arrays)) + sum(high)
    assert 0.5 <= diagonal.max() <= 1.0
