"""The nearest operator of a compact matrix: what it keeps of the matrix, by compiled code and by numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from compact_systems import folded, identity_rows, to_petsc
from mpi4py import MPI
from petsc4py import PETSc
from systems import poisson

from petsc_dcdm.grid.errors import MatrixError
from petsc_dcdm.grid.shape import NOT_PERIODIC
from petsc_dcdm.stencil import extract as extract_module
from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.entries.rows import CsrRows
from petsc_dcdm.stencil.forms import nearest as nearest_module
from petsc_dcdm.stencil.forms.axis_sums import AxisSums
from petsc_dcdm.stencil.forms.offsets import compact_strides
from petsc_dcdm.stencil.system import build_system
from petsc_dcdm.studies.compact import elements, eliminated, mehrstellen, sides


@pytest.fixture(params=["compiled", "numpy"])
def reader(request, monkeypatch):
    if request.param == "numpy":
        for module in (extract_module, nearest_module):
            monkeypatch.setattr(module, "row_reader", lambda comm: NumpyRows)
    return request.param


def system_of(A, shape, cells=None, periodic=NOT_PERIODIC):
    A = A if isinstance(A, PETSc.Mat) else to_petsc(A, PETSc.COMM_SELF)
    grid = Grid(shape, cells, 0, A.getSize()[0], "test", periodic=periodic)
    return build_system(A, grid, MPI.COMM_SELF, threshold=2.5, threads=1)


def operator(system):
    """The stencil as a matrix over all cells, in the units of the user's."""
    w, s = system.arrays()
    shape = np.array(s.shape)
    number = np.arange(s.size).reshape(shape)
    A = sp.diags(s.ravel())
    for axis, face in enumerate(w):
        own = np.flatnonzero(face[1:-1, 1:-1, 1:-1] > 0)
        high = number[1:-1, 1:-1, 1:-1].ravel()[own]
        low = high - int(np.prod(shape[3 - axis :]))
        value = face.ravel()[high]
        ends = np.concatenate([high, low, high, low]), np.concatenate([high, low, low, high])
        A = A + sp.coo_matrix((np.concatenate([value, value, -value, -value]), ends), A.shape)
    inner = number[1:-1, 1:-1, 1:-1].ravel()
    return system.scale * A.tocsr()[inner][:, inner]


@pytest.mark.parametrize("cells, size", [((9, 12), (1.0, 1.0)), ((6, 7, 9), (1.0, 1.0, 1.0)), ((6, 7, 9), (2, 1.5, 1))])
def test_elements_become_finite_differences(reader, cells, size):
    A = eliminated(elements(cells, 3.0, size), sides(cells))
    shape = (1, 1, 1, *(n - 1 for n in cells))[-3:]
    system = system_of(A, shape)
    w, _ = system.arrays()
    volume = np.prod(size)
    middle = tuple(slice(3, -3) if n > 1 else slice(1, -1) for n in shape)
    for axis, h in enumerate(size):
        np.testing.assert_allclose(system.scale * w[axis][middle], 3.0 * volume / h**2, rtol=1e-12)
    assert system.near is not None and system.near.differs and not system.singular


@pytest.mark.parametrize("cells", [(7, 9), (4, 5, 6)])
@pytest.mark.parametrize("order", ["lexicographic", "any"])
def test_row_sums_stay_and_fixed_rows_keep_apart(reader, cells, order):
    """A Laplacian plus what each row of the matrix adds up to over the coupled columns, in any order of the rows."""
    random = np.random.default_rng(3)
    A = elements(cells, random.uniform(0.5, 2.0, cells))
    fixed = random.random(A.shape[0]) < 0.1
    A = identity_rows(A, fixed, both=order == "any")
    n = A.shape[0]
    cell = random.permutation(n) if order == "any" else np.arange(n)
    shape = (1, *(m + 1 for m in cells))[-3:]
    system = system_of(A[cell][:, cell], shape, cell if order == "any" else None)
    N = operator(system)
    free = np.flatnonzero(~fixed)
    np.testing.assert_allclose(N.sum(axis=1).A1[free], A[free][:, free].sum(axis=1).A1, atol=1e-12)
    assert abs(N - N.T).max() == 0 and not N[np.flatnonzero(fixed)].count_nonzero()
    np.testing.assert_array_equal(np.sort(cell[system.fixed.rows]), np.flatnonzero(fixed))


def linear(shape):
    return [g.ravel().astype(float) for g in np.meshgrid(*map(np.arange, shape), indexing="ij")]


@pytest.mark.parametrize("cells", [(7, 9), (4, 5, 6)])
def test_a_closed_matrix_has_a_closed_operator_with_its_action_on_linear_functions(reader, cells):
    A = elements(cells, 2.0)
    shape = (1, *(m + 1 for m in cells))[-3:]
    system = system_of(A, shape)
    N = operator(system)
    assert system.singular and np.abs(N.sum(axis=1)).max() <= 1e-15
    for x in linear(shape):
        np.testing.assert_allclose(x @ (N @ x), x @ (A @ x), rtol=1e-12)


def test_compiled_code_and_numpy_read_the_same(monkeypatch):
    random = np.random.default_rng(5)
    for cells, rings in (((8, 9), (0, 0)), ((4, 5, 6), (0, 0, 0)), ((8, 3), (1, 1)), ((4, 5, 2), (1, 0, 1))):
        A, shape = folded(elements(cells, random.lognormal(size=cells)), cells, rings, walls=False)
        A = identity_rows(A, random.random(A.shape[0]) < 0.1, both=False)
        found = []
        for patched in (False, True):
            with monkeypatch.context() as patch:
                if patched:
                    for module in (extract_module, nearest_module):
                        patch.setattr(module, "row_reader", lambda comm: NumpyRows)
                found.append(system_of(-A, shape, periodic=(False, *map(bool, rings))[-3:]))
        one, other = found
        np.testing.assert_allclose(one.near.couplings, other.near.couplings, rtol=1e-6, atol=1e-9)
        for a, b in zip(one.arrays()[0] + [one.arrays()[1]], other.arrays()[0] + [other.arrays()[1]], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
        assert one.scale == other.scale < 0
        np.testing.assert_allclose([one.near.bound, one.near.mixed], [other.near.bound, other.near.mixed], rtol=1e-12)
        D = sp.diags(1 / A.diagonal())
        assert np.abs(np.linalg.eigvals((D @ A).toarray())).max() <= one.near.bound * (1 + 1e-12)


@pytest.mark.parametrize("cells", [(5, 1), (5, 2), (2, 2), (4, 3), (3, 70), (3, 64), (2, 4, 3), (3, 2, 130)])
def test_both_sides_see_the_same_round_a_ring(cells):
    """The checksum of a symmetric matrix is 0, wherever runs end; that of one that is not symmetric there is not."""
    rings = (True,) * len(cells)
    A, shape = folded(elements(cells, np.random.default_rng(4).lognormal(size=cells)), cells, rings)
    A = (A + A.T) / 2
    A.sort_indices()
    periodic = (False, *(n > 1 for n in cells))[-3:]
    for changed_by in (0.0, 1e-12):
        A[0, A.shape[0] - 1] *= 1 + changed_by
        for cell in (None, np.arange(A.shape[0])):
            given = RowsOnGrid(A.indptr, A.indices, A.data, shape, cells=cell, periodic=periodic)
            rows, sums = CsrRows(given), AxisSums.zeros((A.shape[0],), 3 if shape[0] > 1 else 2)
            rows.find_dirichlet()
            rows.add_up(sums)
            assert bool(sums.symmetry) == (changed_by > 0) and sums.wrapped == periodic[::-1]


@pytest.mark.parametrize("threads", [1, 3])
def test_wide_integers_and_threads_read_the_same(threads):
    cells = (5, 6, 40)
    A = elements(cells, np.random.default_rng(2).lognormal(size=cells))
    A.sort_indices()
    shape, found = tuple(n + 1 for n in cells), []
    for kind, count in ((np.int32, 1), (np.int64, threads)):
        rows = CsrRows(RowsOnGrid(A.indptr.astype(kind), A.indices.astype(kind), A.data, shape), count)
        rows.find_dirichlet()
        sums = AxisSums.zeros((A.shape[0],), 3)
        rows.add_up(sums)
        found.append(sums)
    one, other = found
    for name in ("low", "high", "s", "diagonal", "couplings"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.mixture, other.mixture)
    assert (one.magnitude, one.symmetry) == (other.magnitude, other.symmetry)


def changed(A, *entries):
    A = sp.lil_matrix(A)
    for row, column, value in entries:
        A[row, column] = value
    return A


CELLS = (7, 8)
NINE = eliminated(elements(CELLS), sides(CELLS))
LARGE = eliminated(elements((24, 24)), sides((24, 24)))
SHAPES = {42: (1, 6, 7), 72: (1, 8, 9), 529: (1, 23, 23)}
WRONG = {
    "asymmetric": (
        changed(NINE, (10, 18, -0.3)),
        r"row 10, column 18 is -0.3 and that in row 18, column 10 is -0.333333",
    ),
    "one way": (changed(NINE, (10, 18, 0.0)), "not symmetric: the entry in row 1"),
    "not a number": (changed(NINE, (10, 18, np.nan)), "nan in row 10"),
    "diagonal": (changed(NINE, (10, 10, -1.0)), "row 10 .* has diagonal -1"),
    "far": (changed(NINE, (10, 12, -0.1), (12, 10, -0.1)), "is no face neighbour; petsc_dcdm serves 5- and 7-point"),
    "mixed": (eliminated(elements(CELLS, shear=2.0), sides(CELLS)), r"of which 0.8 can be made up for$"),
    "negative row": (changed(NINE, (10, 10, 2.0)), "row sums go down to"),
    "negative": (LARGE - 0.12 * sp.identity(529), "of the lowest eigenvalue"),
    "no sum": (elements(CELLS) - 1e-3 * sp.identity(72), "add up to a negative number, so that it is not positive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refusals(reader, name):
    A, message = WRONG[name]
    with pytest.raises(MatrixError, match=message):
        system_of(A, SHAPES[A.shape[0]])


@pytest.mark.parametrize("size, served", [(1e-8, True), (1e-5, False)])
def test_asymmetries_up_to_1e_6_of_an_entry_are_rounding(reader, size, served):
    A = NINE.tocoo()
    A.data = A.data * (1 + size * np.sign(np.random.default_rng(1).standard_normal(A.nnz)))
    if served:
        assert system_of(A, (1, 6, 7)).near is not None
    else:
        with pytest.raises(MatrixError, match="not symmetric"):
            system_of(A, (1, 6, 7))


def test_lines_that_go_on_on_the_next_are_no_rings(reader):
    """Lines of 8 are no two rings of 4, one after the other, with one diagonal only round the ends."""
    system = system_of(poisson((1, 6, 8), comm=PETSc.COMM_SELF), (6, 2, 4))
    assert system.near is None and system.grid.shape == (1, 6, 8)


def test_what_is_of_the_form_is_not_touched():
    assert system_of(poisson((3, 4, 5), comm=PETSc.COMM_SELF), (3, 4, 5)).near is None


@pytest.mark.parametrize("shape", [(1, 9, 13), (1, 2, 40), (5, 4, 7), (3, 11, 6), (4, 3, 2)])
def test_the_grid_from_the_offsets(shape):
    """All neighbours of a lexicographic grid, or those that trilinear elements and Mehrstellen have."""
    _, ny, nx = shape
    places = [(x, y, z) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)]
    for kinds in ((1, 2, 3), (2, 3), (1, 2)):
        steps = [step for step in places if (shape[0] > 1 or not step[2]) and sum(map(abs, step)) in kinds]
        if shape[0] == 1 and 1 not in kinds:
            continue
        offsets = sorted({x + y * nx + z * nx * ny for x, y, z in steps})
        assert compact_strides(offsets, int(np.prod(shape))) == (nx, nx * ny)


@pytest.mark.parametrize("shape", [(1, 9, 13), (1, 40, 36), (1, 3, 40), (5, 4, 7), (3, 11, 6), (24, 24, 24)])
@pytest.mark.parametrize("faces", [True, False])
def test_the_grid_from_the_offsets_of_rings(shape, faces):
    """Any axes, with couplings to faces or without them in 3D, as trilinear elements have it."""
    nz, ny, nx = shape
    for rings in itertools.product((False, True), repeat=3):
        ends = [(n - 1, 1 - n) if ring else () for n, ring in zip(shape, rings, strict=True)]
        along = [(0,) if n == 1 else (-1, 0, 1, *more) for n, more in zip(shape, ends, strict=True)]
        steps = [step for step in itertools.product(*along) if faces or nz == 1 or np.count_nonzero(step) > 1]
        offsets = sorted({abs(x + y * nx + z * nx * ny) for z, y, x in steps} - {0})
        assert compact_strides(offsets, nx * ny * nz) == (nx, nx * ny), rings


def test_other_offsets_are_no_grid():
    assert compact_strides([1, 3, 17, 50], 400) is None
    assert compact_strides([1, 19, 20, 21, 57], 400) is None
    assert compact_strides([7], 64) is None


def test_mehrstellen_keep_the_second_derivatives():
    for dim, shape in ((2, (1, 6, 6)), (3, (6, 6, 6))):
        system = system_of(mehrstellen(6, dim), shape)
        w, _ = system.arrays()
        np.testing.assert_allclose(system.scale * w[0][1 if dim == 2 else 3, 3, 3], 1.0, rtol=1e-14)
