"""Walls that coarsening would merge: found alike by compiled code and by numpy, and kept apart by the plan."""

from __future__ import annotations

import numpy as np
import pytest
from grid_operators import packed, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, right_hand_side, solve

from petsc_dcdm.grid.layout import SerialLayout, coarse_box
from petsc_dcdm.stencil.walls import _Faces, keep_walls, skinless_cells

ALL = (0, 1, 2)
# Without BoomerAMG, GAMG solves what is left of the grid, and jumps are hard for it.
AMG_FACTOR = 1 if PETSc.Sys.hasExternalPackage("hypre") else 4


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    axes=st.sets(st.sampled_from(ALL), min_size=1),
    fraction=st.sampled_from([0.0, 0.3, 0.6]),
    decades=st.sampled_from([0.0, 3.0, 6.0]),
    seed=st.integers(0, 50),
)
def test_compiled_and_numpy_agree(shape, axes, fraction, decades, seed):
    w, _ = conductances(shape, random_solids(shape, seed, fraction))
    rng = np.random.default_rng(seed)
    faces = [padded(face * 10.0 ** (decades * rng.random(shape))) for face in w]
    axes = tuple(sorted(axes))
    level = _Faces(faces, 1)
    assert level._library is not None
    plain = _Faces(faces, 1)
    plain._library = None
    for few in (0, skinless_cells(shape)):
        np.testing.assert_array_equal(level.torn(axes, few), plain.torn(axes, few))
    layout = SerialLayout(shape, ())
    for limit in (0.0, 0.1, 0.5):
        found, share = level.torn_share(axes, layout, limit), plain.torn_share(axes, layout)
        assert found == share if share <= limit else found > limit
    whole, _ = coarse_box(shape, (0, 0, 0), axes)
    for ours, theirs in zip(level.coarse(axes, whole).faces, plain.coarse(axes, whole).faces, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 70)),
    axes=st.sets(st.sampled_from(ALL), min_size=1),
    fraction=st.sampled_from([0.0, 0.02, 0.4]),
    ratio=st.sampled_from([1.0, 30.0, 3000.0]),
    seed=st.integers(0, 50),
)
def test_packed_faces_are_the_same_faces(shape, axes, fraction, ratio, seed):
    w, s = conductances(shape, random_solids(shape, seed, fraction), ratio=(1.0, ratio, 1.0))
    faces = [padded(face) for face in w]
    stencil = packed(faces, padded(s))
    if stencil is None:
        return
    axes = tuple(sorted(axes))
    levels = [_Faces(source, 1) for source in (faces, stencil)]
    layout = SerialLayout(shape, ())
    assert levels[0].torn_share(axes, layout) == levels[1].torn_share(axes, layout)
    whole, _ = coarse_box(shape, (0, 0, 0), axes)
    for ours, theirs in zip(levels[0].coarse(axes, whole).faces, levels[1].coarse(axes, whole).faces, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def plates(shape, spacing):
    """Walls without thickness across x, each with a few holes."""
    w, s = conductances(shape, walls=2.0)
    rng = np.random.default_rng(0)
    for at in range(spacing, shape[2], spacing):
        closed = np.ones(shape[:2], bool)
        for _ in range(3):
            z, y = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
            closed[z : z + 2, y : y + 2] = False
        w[0][:, :, at][closed] = 0.0
    return w, s


def test_plates_are_kept_apart_and_grains_are_not_in_the_way():
    shape = (32, 32, 32)
    full = (ALL, ALL)
    means = (1.0, 1.0, 1.0)
    odd, _ = plates(shape, 7)
    assert keep_walls([padded(face) for face in odd], SerialLayout(shape, full), full, means, 2.5, 1)[0][0] == (1, 2)
    even, _ = plates(shape, 8)
    assert keep_walls([padded(face) for face in even], SerialLayout(shape, full), full, means, 2.5, 1) == (full, 2)
    grains, _ = conductances(shape, random_solids(shape, fraction=0.25))
    assert keep_walls([padded(face) for face in grains], SerialLayout(shape, full), full, means, 2.5, 1) == (full, 2)


@pytest.mark.parametrize("spacing", [3, 5, 7])
def test_few_iterations_between_plates(spacing):
    w, s = plates((24, 24, 40), spacing)
    A = matrix(w, s)
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6, pc_dcdm_grid="40,24,24")
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 11


def jumping(shape, edge, ratio=1000.0):
    """Coefficients 1 or ``ratio`` on blocks of cells."""
    blocks = [min(n, edge) for n in shape]
    stiff = np.random.default_rng(0).random([n // b for n, b in zip(shape, blocks, strict=True)]) < 0.5
    return conductances(shape, coefficient=np.kron(np.where(stiff, ratio, 1.0), np.ones(blocks)))


@pytest.mark.parametrize(("kind", "visits", "most"), [("jumps", 2, 5), ("plates", 3, 6), ("uniform", 2, 4)])
def test_visits_of_the_second_level(kind, visits, most, tmp_path):
    shape = (32, 64, 64)
    w, s = {"jumps": lambda: jumping(shape, 8), "plates": lambda: plates(shape, 8)}.get(
        kind, lambda: conductances(shape)
    )()
    A = matrix(w, s)
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6, pc_dcdm_grid="64,64,32")
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.destroy()
    assert f"visited {visits} times" in (tmp_path / "view").read_text()
    assert ksp.getPC().getPythonContext().layout.visits == visits
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= most


@pytest.mark.parametrize("stiff", [1e3, 1e-3, 1e5])
@pytest.mark.parametrize("kind", ["sphere", "wave", "drops"])
def test_curved_bodies_keep_the_grid(kind, stiff):
    """They cut through blocks everywhere at their surface; of small drops one level is left."""
    n = 40
    z, y, x = np.indices((n, n, n))
    if kind == "sphere":
        inside = (z - 19.0) ** 2 + (y - 18.0) ** 2 + (x - 20.0) ** 2 < 11**2
    elif kind == "wave":
        inside = z < n / 2 + 5 * np.sin(x / 6) + 3 * np.cos(y / 5)
    else:
        rng = np.random.default_rng(3)
        inside = np.zeros((n, n, n), bool)
        for a, b, c in n * rng.random((10, 3)):
            inside |= (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < 5**2
    A = matrix(*conductances((n, n, n), coefficient=np.where(inside, stiff, 1.0)))
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6, pc_dcdm_grid=f"{n},{n},{n}")
    assert len(ksp.getPC().getPythonContext().layout.plan) >= 1
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 9 * AMG_FACTOR


def test_single_stiff_cells_leave_the_grid():
    """Coarse cells that have one would be stiff as a whole: 73 iterations at 64^3."""
    n = 32
    stiff = np.random.default_rng(0).random((n, n, n)) < 0.05
    A = matrix(*conductances((n, n, n), coefficient=np.where(stiff, 1e3, 1.0)))
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6, pc_dcdm_grid=f"{n},{n},{n}")
    assert ksp.getPC().getPythonContext().layout.plan == ()
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 10 * AMG_FACTOR


def test_in_the_plane_a_level_tears_hardly_any_cells():
    """A wall of so many cells tears a share of them that is few in space; in the plane there is no way around."""
    for shape, axes, kept in [((1, 256, 256), (0, 1), (1,)), ((32, 64, 64), ALL, ALL)]:
        w, _ = conductances(shape)
        w[0][:8, 4:28, 31] = 0.0
        faces, layout, plan = [padded(face) for face in w], SerialLayout(shape, (axes,)), (axes,)
        assert 0.0003 < _Faces(faces, 1).torn_share(axes, layout) < 0.002
        assert keep_walls(faces, layout, plan, (1.0, 1.0, 1.0), 2.5, 1)[0] == (kept,)


def test_where_coefficients_jump_the_first_level_tears_few_cells():
    """Those beside a wall that lets nothing through do no harm, nor do a few."""
    plan = (ALL,)
    for cells, through, kept in [(128, 0.0, ALL), (128, 1e-4, (1, 2)), (64, 1e-4, ALL)]:
        shape = (cells // 2, cells, cells)
        w, _ = conductances(shape)
        w[0][: cells // 8, cells // 16 : 7 * cells // 16, cells // 2 - 1] = through
        faces, layout = [padded(face) for face in w], SerialLayout(shape, plan)
        assert 0.0005 < _Faces(faces, 1).torn_share(ALL, layout) < 0.002
        assert keep_walls(faces, layout, plan, (1.0, 1.0, 1.0), 2.5, 1)[0] == (kept,)


@pytest.mark.parametrize("shape, axes", [((48, 48, 48), ALL), ((1, 120, 120), (0, 1))])
def test_bodies_a_hundred_times_as_stiff_are_kept_apart(shape, axes):
    """Faces between them and what is around have a fiftieth of their own: 10 and 13 iterations on levels across them.
    Where only strong axes are halved that is no wall.
    """
    w, s = jumping(shape, 3, 100.0)
    level, layout = _Faces([padded(face) for face in w], 1), SerialLayout(shape, (axes,))
    assert level.torn_share(axes, layout) > 0.01
    assert level.torn_share((0,), layout) == 0.0
    A = matrix(w, s)
    ksp, _ = solve(A, right_hand_side(A), ksp_rtol=1e-6, pc_dcdm_grid=",".join(map(str, shape[::-1])))
    assert ksp.getPC().getPythonContext().layout.plan == ()
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 7 * AMG_FACTOR


def test_jumps_are_left_before_cells_are_as_large_as_bodies():
    """Blocks of 4 cells, soft or a thousand times stiffer: the 16^3 level has a cell per body, the one before resolves
    them. A uniform medium keeps its plan.
    """
    n, full = 64, (ALL, ALL)
    w, _ = jumping((n, n, n), 4)
    uniform, _ = conductances((n, n, n))
    layout = SerialLayout((n, n, n), full)
    assert keep_walls([padded(face) for face in w], layout, full, (1.0, 1.0, 1.0), 2.5, 1) == ((ALL,), 1)
    assert keep_walls([padded(face) for face in uniform], layout, full, (1.0, 1.0, 1.0), 2.5, 1) == (full, 2)
