"""Periodic axes in a matrix: read alike by compiled code and by numpy, alone and in parts, and seen by the walls."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from csr_systems import csr_rows
from grid_operators import packed
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc
from ring_systems import assembled, conductances, rings_of, to_petsc
from scipy import sparse

from petsc_dcdm.grid.faces import interior, padded
from petsc_dcdm.grid.layout import SerialLayout, coarse_box
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape
from petsc_dcdm.stencil.discovery import Grid, find_grid
from petsc_dcdm.stencil.entries.given import RowsOnGrid
from petsc_dcdm.stencil.entries.numpy_rows import NumpyRows
from petsc_dcdm.stencil.entries.rows import Beside
from petsc_dcdm.stencil.system import build_system
from petsc_dcdm.stencil.walls import _Faces, _torn_ahead, keep_walls, skinless_cells

RINGS = list(product((False, True), repeat=3))
ALL = (0, 1, 2)
rings = st.sampled_from(RINGS)
small = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 40))


def medium(
    shape: Shape, periodic: Periodic, seed: int, solid: float, even: bool = False
) -> tuple[list[np.ndarray], np.ndarray, sparse.csr_matrix]:
    """w, s and the matrix of a random medium with solid cells."""
    rng = np.random.default_rng(seed)
    k = np.where(rng.random(shape) < solid, 0.0, 1.0 if even else rng.uniform(0.5, 2.0, shape))
    w, s = conductances(shape, periodic, walls=float(rng.integers(0, 3)), coefficient=k)
    return w, s, assembled(w, s)


def as_read(face: np.ndarray, axis: int, known: bool) -> np.ndarray:
    """Two cells of a ring are coupled by one entry: two faces of equal halves, or one if the ring is not known."""
    if face.shape[2 - axis] != 2:
        return face
    both = face.sum(axis=2 - axis, keepdims=True)
    return np.concatenate([both / 2, both / 2] if known else [0 * both, both], 2 - axis)


@settings(max_examples=80, deadline=None)
@given(
    shape=small,
    periodic=rings,
    solid=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 99),
    known=st.booleans(),
    even=st.booleans(),
)
def test_faces_round_the_ends(
    shape: Shape, periodic: Periodic, solid: float, seed: int, known: bool, even: bool
) -> None:
    w, s, m = medium(shape, periodic, seed, solid, even)
    told = periodic if known else NOT_PERIODIC
    want = [as_read(face, axis, told[2 - axis]) for axis, face in enumerate(w)]
    lonely = (m - sparse.diags(m.diagonal())).getnnz(axis=1) == 0
    compiled = csr_rows(m.indptr, m.indices, m.data, shape, periodic=told)
    reports = []
    for rows in (compiled, NumpyRows(RowsOnGrid(m.indptr, m.indices, m.data, shape, periodic=told))):
        rows.find_dirichlet()
        low, high, extra = np.zeros((3, m.shape[0])), np.zeros((3, m.shape[0])), np.zeros(m.shape[0])
        reports.append(rows.extract(list(low), extra, w_high=list(high)))
        assert reports[-1].symmetry % 2**64 == 0
        for axis in ALL:
            np.testing.assert_allclose(low[axis].reshape(shape), want[axis], rtol=1e-14)
            np.testing.assert_allclose(high[axis].reshape(shape), np.roll(want[axis], -1, 2 - axis), rtol=1e-14)
            round_the_end = bool(np.moveaxis(want[axis], 2 - axis, 0)[0].any())
            assert reports[-1].wrapped[axis] == round_the_end
        np.testing.assert_allclose(extra, np.where(lonely, 0.0, s.ravel()), atol=1e-13)
    np.testing.assert_allclose(reports[0].w_sum, reports[1].w_sum, rtol=1e-12)
    assert reports[0].w_count == reports[1].w_count
    found = compiled.extract_packed(box=((0, 0, 0), shape))
    assert found is not None or not even
    if found is not None:
        x, y, z = found[1].wrapped
        SerialLayout(shape, (), periodic=(z, y, x)).exchange(found[0].cells)
        assert found[0].asymmetry() is None
        for axis, face in enumerate(found[0].arrays()[0]):
            np.testing.assert_array_equal(interior(face), want[axis])


def test_a_ring_that_couples_one_way_shows() -> None:
    """At one of its seams only, in every form that a stencil is read in."""
    shape = (4, 5, 40)
    for even, axis, here, there in ((True, 2, 1, 601), (False, 0, 40, 79), (True, 1, 210, 370), (False, 1, 210, 370)):
        _, _, m = medium(shape, (True, True, True), 1, 0.0, even)
        changed = m.tolil()
        changed[here, here] += changed[here, there]
        changed[here, there] = 0.0
        c = changed.tocsr()
        rows = csr_rows(c.indptr, c.indices, c.data, shape)
        rows.find_dirichlet()
        assert rows.extract([None] * 3, None).symmetry != 0
        found = rows.extract_packed(box=((0, 0, 0), shape))
        assert (found is not None) == even
        if found is not None:
            SerialLayout(shape, (), periodic=(True, True, True)).exchange(found[0].cells)
            wrong = found[0].asymmetry()
            assert wrong is not None and wrong[0] == axis
        grid = Grid(shape, None, 0, m.shape[0], "test")
        with pytest.raises(ValueError, match=f"along {'xyz'[axis]}"):
            build_system(to_petsc(c), grid, PETSc.COMM_SELF.tompi4py(), threshold=2.5, threads=1)


@pytest.mark.parametrize("periodic", [(True, False, True), (True, True, True)])
def test_parts_of_a_ring_say_what_the_whole_says(periodic: Periodic) -> None:
    """As ranks have them, with Dirichlet rows among them; also what their values add to the rows round the ends."""
    shape = (5, 6, 7)
    rng = np.random.default_rng(2)
    _, _, m = medium(shape, periodic, 3, 0.0)
    fixed = np.flatnonzero(rng.random(m.shape[0]) < 0.2)
    m = m.tolil()
    for row in fixed:
        m[row] = 0
        m[row, row] = 2.0
    m = m.tocsr()
    m.sort_indices()
    whole = csr_rows(m.indptr, m.indices, m.data, shape, periodic=periodic, threads=2)
    flags = whole.find_dirichlet()
    total = np.zeros((4, m.shape[0]))
    report = whole.extract(list(total[:3]), total[3])
    assert report.symmetry == 0 and report.wrapped == periodic[::-1]
    symmetry, half = 0, 100
    for first, last in ((0, half), (half, m.shape[0])):
        part, own = m[first:last], np.arange(first, last)
        arrays = part.indptr, part.indices, part.data
        for rows in (
            csr_rows(*arrays, shape, first_column=first, cells=own),
            NumpyRows(RowsOnGrid(*arrays, shape, first_column=first, cells=own)),
        ):
            rows.find_dirichlet()
            ghosts = rows.ghost_columns()
            rows.set_ghosts(ghosts, ghosts, flags[ghosts])
            found = np.zeros((4, last - first))
            symmetry += rows.extract(list(found[:3]), found[3]).symmetry * isinstance(rows, type(whole))
            np.testing.assert_allclose(found, total[:, first:last], atol=1e-14)
    assert symmetry % 2**64 == 0
    x, b = rng.standard_normal((2, m.shape[0]))
    left = np.empty_like(b)
    assert whole.without_dirichlet(fixed, x, b, left)
    known = np.zeros_like(x)
    known[fixed] = x[fixed]
    want = b - m @ known
    want[fixed] = 0.0
    np.testing.assert_allclose(left, want, atol=1e-12)
    for first, last in ((0, half), (half, m.shape[0])):  # on two ranks, to the last bit
        part, own = m[first:last], np.arange(first, last)
        arrays = part.indptr, part.indices, part.data
        rows = csr_rows(*arrays, shape, first_column=first, cells=own, periodic=periodic)
        rows.find_dirichlet()
        ghosts = rows.ghost_columns()
        rows.set_ghosts(ghosts, ghosts, flags[ghosts])
        found, mine = np.empty(last - first), fixed[(fixed >= first) & (fixed < last)] - first
        vectors = x[first:last].copy(), b[first:last].copy(), found
        assert rows.without_dirichlet(mine, *vectors, Beside(x[ghosts], own))
        np.testing.assert_array_equal(found, left[first:last])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 34)),
    periodic=rings,
    axes=st.sets(st.sampled_from(ALL), min_size=1),
    solid=st.sampled_from([0.0, 0.1, 0.5]),
    decades=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 50),
)
def test_walls_see_round_the_ends(shape, periodic, axes, solid, decades, seed) -> None:
    """Compiled, packed and in numpy alike; and wherever on the ring the grid begins, if it coarsens evenly."""
    axes, rng = tuple(sorted(axes)), np.random.default_rng(seed)
    k = np.where(rng.random(shape) < solid, 0.0, 10.0 ** (decades * rng.random(shape)))
    w, s = conductances(shape, periodic, coefficient=k)
    layout = SerialLayout(shape, (), periodic=periodic)
    faces = [padded(face) for face in w]
    for face in faces:
        layout.exchange(face, corners=True)
    level, plain = _Faces(faces, 1), _Faces(faces, 1)
    plain._library = None
    sources = [level, plain]
    stencil = packed(faces, padded(s, layout))
    if stencil is not None:
        layout.exchange(stencil.cells, corners=True)
        sources.append(_Faces(stencil, 1))
    whole, _ = coarse_box(shape, (0, 0, 0), axes)
    for other in sources[1:]:
        for few in (0, skinless_cells(shape)):
            np.testing.assert_array_equal(level.torn(axes, few), other.torn(axes, few))
        for ours, theirs in zip(level.coarse(axes, whole).faces, other.coarse(axes, whole).faces, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    turned = [padded(np.roll(face, [2 * ring for ring in periodic], (0, 1, 2))) for face in w]
    for face in turned:
        layout.exchange(face, corners=True)
    if not any(ring and n % 2 for ring, n in zip(periodic, shape, strict=True)):
        assert level.torn_share(axes, layout) == _Faces(turned, 1).torn_share(axes, layout)


@pytest.mark.parametrize("n", [32, 33])
def test_plates_across_a_ring(n: int) -> None:
    """Between coarse cells they are in nobody's way, at the seam no more than elsewhere; within them they are."""
    for at in (0, 8, 7, n - 1):
        w, _ = conductances((16, 16, n), (False, False, True))
        w[0][:, :, [at, 16]] = 0.0
        w[0][3:5, 3:5, at] = 1.0
        layout = SerialLayout((16, 16, n), (ALL,), periodic=(False, False, True))
        plan, _ = keep_walls([padded(face) for face in w], layout, (ALL,), (1.0, 1.0, 1.0), 2.5, 1)
        assert (plan == (ALL,)) == (at % 2 == 0), at


def test_the_level_beyond_the_plan_goes_round_too() -> None:
    """Torn cells are as many wherever the ring begins."""
    shape, periodic = (16, 16, 16), (True, True, True)
    k = np.kron(np.where(np.random.default_rng(0).random((4, 4, 4)) < 0.5, 1000.0, 1.0), np.ones((4, 4, 4)))
    k = np.roll(k, 2, (0, 1, 2))
    layout, found = SerialLayout(shape, (ALL,), periodic=periodic), []
    for turn in (0, 4, 8):
        w, _ = conductances(shape, periodic, coefficient=np.roll(k, turn, (0, 1, 2)))
        level = _Faces([padded(face, layout) for face in w], 1).coarse(ALL, (8, 8, 8))
        found.append(_torn_ahead(level, [ALL], ALL, layout, 1))
    assert found[0] == found[1] == found[2] > 0


def test_sizes_are_seen_in_the_offsets() -> None:
    """Of all grids of up to 6 cells along each axis but one of them, with any rings."""
    comm = PETSc.COMM_SELF
    for shape in product((1, 2, 3, 6), (1, 2, 5), (2, 3, 4, 7)):
        if shape[0] > 1 and shape[1] == 1:
            continue
        for periodic in RINGS:
            A = to_petsc(assembled(*conductances(shape, periodic)), comm)
            assert find_grid(PETSc.PC().create(comm), A, None).shape == shape, periodic


def test_a_dmda_tells_of_its_rings() -> None:
    kinds = PETSc.DM.BoundaryType
    thin, thick = (1, 2, 4), (3, 2, 4)
    for shape, periodic in ((thin, (False, False, True)), (thin, (False, True, False)), (thick, (True, False, True))):
        dim = 2 if shape is thin else 3
        along = tuple(kinds.PERIODIC if ring else kinds.GHOSTED for ring in periodic[::-1])[:dim]
        dm = PETSc.DMDA().create(dim, 1, shape[::-1][:dim], None, along, stencil_width=1, comm=PETSc.COMM_SELF)
        A = to_petsc(assembled(*conductances(shape, periodic)))
        pc = PETSc.PC().create(PETSc.COMM_SELF)
        pc.setDM(dm)
        grid = find_grid(pc, A, None)
        assert grid.periodic == periodic and grid.source == "DMDA"
        system = build_system(A, grid, PETSc.COMM_SELF.tompi4py(), threshold=2.5, threads=1)
        assert system.layout.periodic == rings_of(shape, periodic)
        assert find_grid(PETSc.PC().create(PETSc.COMM_SELF), A, grid.shape, (False, True, False)).periodic[1]
