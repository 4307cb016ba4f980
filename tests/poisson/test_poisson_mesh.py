"""Surface meshes: reading, placing, voxelising."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from harness import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from petsc_dcdm.poisson import mesh
from petsc_dcdm.poisson.flags import Box, whole

MESHES = ("fox.obj", "propeller.ply", "knot.stl")


def centres(shape: tuple[int, int, int]) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return (np.stack([i, j, k], axis=-1).reshape(-1, 3) + 0.5) / max(shape)


@pytest.mark.parametrize("name", MESHES)
def test_shipped_meshes_are_closed_small_and_voxelise_to_their_volume(name: str) -> None:
    path = ROOT / "meshes" / name
    assert path.stat().st_size < 400_000
    shape = (64, 64, 64)
    placed = mesh.place(mesh.load(path), shape, 0.9)
    assert placed.is_watertight and placed.is_winding_consistent and placed.volume > 0
    cells = mesh.voxelise(placed, shape, whole(shape))
    assert cells.sum() == pytest.approx(placed.volume * 64**3, rel=0.03)


def test_the_knot_has_a_hole_through_it_and_the_fox_has_none() -> None:
    assert mesh.load(ROOT / "meshes" / "knot.stl").euler_number == 0
    assert mesh.load(ROOT / "meshes" / "fox.obj").euler_number == 2


def test_meshes_are_what_their_script_makes(tmp_path: Path) -> None:
    import runpy
    import sys

    argv, sys.argv = sys.argv, ["make_meshes.py", str(tmp_path)]
    try:
        runpy.run_path(str(ROOT / "meshes" / "make_meshes.py"), run_name="__main__")
    finally:
        sys.argv = argv
    for name in MESHES:
        made, kept = mesh.load(tmp_path / name), mesh.load(ROOT / "meshes" / name)
        assert len(made.faces) == pytest.approx(len(kept.faces), rel=0.01)  # rounding differs between processors
        np.testing.assert_allclose(made.bounds, kept.bounds, atol=1e-4)


def solid_angle(surface: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Winding number of the surface around each point, from solid angles (van Oosterom and Strackee 1983)."""
    a, b, c = (surface.vertices[surface.faces[:, n]][None] - points[:, None] for n in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    dot = lambda u, v: np.einsum("...i,...i", u, v)  # noqa: E731
    top = dot(a, np.cross(b, c))
    bottom = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb
    return np.arctan2(top, bottom).sum(axis=1) / (2 * np.pi)


@pytest.mark.parametrize("name", MESHES)
def test_voxels_agree_with_the_solid_angle(name: str) -> None:
    shape = (19, 23, 31)
    placed = mesh.place(mesh.load(ROOT / "meshes" / name), shape, 0.95, rotation=(10, 20, 30))
    cells = mesh.voxelise(placed, shape, whole(shape)).ravel()
    rng = np.random.default_rng(0)
    inside = rng.choice(np.flatnonzero(cells), 60)
    chosen = np.concatenate([inside, inside + 1, inside - 31, rng.integers(0, cells.size, 60)])
    np.testing.assert_array_equal(cells[chosen], solid_angle(placed, centres(shape)[chosen]) > 0.5)


@settings(deadline=None, max_examples=25)
@given(offset=st.tuples(*[st.integers(-2, 20)] * 3), size=st.tuples(*[st.integers(0, 9)] * 3), turn=st.integers(0, 90))
def test_a_box_sees_its_part_of_the_whole(offset: tuple, size: tuple, turn: int) -> None:
    shape = (21, 17, 26)
    blob = trimesh.creation.icosphere(subdivisions=1)
    placed = mesh.place(blob, shape, 0.9, rotation=(turn, 0, turn))
    everything = np.pad(mesh.voxelise(placed, shape, whole(shape)), 40)
    part = tuple(slice(o + 40, o + 40 + n) for o, n in zip(offset, size, strict=True))
    np.testing.assert_array_equal(mesh.voxelise(placed, shape, Box(offset, size)), everything[part])


def test_columns_through_edges_and_vertices_are_counted_once() -> None:
    # A brick whose faces, edges and corners lie exactly on cell centres, cut by diagonals that do too.
    brick = trimesh.creation.box(extents=(6, 4, 2))
    shape = (8, 8, 8)
    placed = trimesh.Trimesh(np.asarray(brick.vertices) / 8 + 4.5 / 8, brick.faces, process=False)
    cells = mesh.voxelise(placed, shape, whole(shape))
    assert cells.sum() == 6 * 4 * 2


def test_overlapping_parts_are_a_union_and_a_cavity_is_a_hole() -> None:
    shape = (32, 32, 32)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.2)
    left, right, inner = ball.copy(), ball.copy(), trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    left.apply_translation((0.4, 0.5, 0.5))
    right.apply_translation((0.6, 0.5, 0.5))
    inner.apply_translation((0.3, 0.5, 0.5))
    inner.invert()
    voxels = [mesh.voxelise(m, shape, whole(shape)) for m in (left, right, inner)]
    together = mesh.voxelise(trimesh.util.concatenate([left, right, inner]), shape, whole(shape))
    np.testing.assert_array_equal(together, (voxels[0] & ~voxels[2]) | voxels[1])


def test_parity_where_triangles_are_not_oriented() -> None:
    shape = (24, 24, 24)
    ball = mesh.place(trimesh.creation.icosphere(subdivisions=2), shape, 0.7)
    faces = np.asarray(ball.faces).copy()
    faces[::3] = faces[::3, ::-1]
    mixed = trimesh.Trimesh(ball.vertices, faces, process=False)
    np.testing.assert_array_equal(mesh.voxelise(mixed, shape, whole(shape)), mesh.voxelise(ball, shape, whole(shape)))


def test_a_flat_grid_cuts_the_mesh_through_its_middle() -> None:
    placed = mesh.place(trimesh.creation.icosphere(subdivisions=3), (1, 40, 60), 0.5)
    cells = mesh.voxelise(placed, (1, 40, 60), whole((1, 40, 60)))
    assert cells.sum() == pytest.approx(np.pi * 10**2, rel=0.05)


def test_the_bunny_in_a_second(bunny: Path) -> None:
    assert "open edges" in mesh.gaps(mesh.load(bunny))
    shape = (128, 128, 128)
    placed = mesh.place(mesh.load(bunny), shape, 0.6)
    cells = mesh.voxelise(placed, shape, whole(shape))
    assert cells.sum() == pytest.approx(placed.volume * 128**3, rel=0.01)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(mesh.MeshError, match="no mesh file .*gone.obj"):
        mesh.load(tmp_path / "gone.obj")
    for name, text, message in (
        ("empty.obj", "", "empty.obj"),
        ("points.obj", "v 0 0 0\nv 1 0 0\n", "points.obj"),
        ("odd.xyzw", "hello", "odd.xyzw cannot be read"),
        ("nan.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 3 4\nf 1 4 2\nf 2 4 3\n", "not finite"),
        ("open.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not watertight .3 open edges"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(mesh.MeshError, match=message):
            mesh.load(tmp_path / name)
