"""The demo and its picture maker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from harness import run_program
from systems import needs_hypre

from petsc_dcdm.studies import render


def camera(azimuth: float = 0.0, elevation: float = 0.0) -> render.Camera:
    return render.Camera((0.5, 0.5, 0.5), azimuth, elevation, 2.0, (200, 160))


def test_a_ball_is_a_disc_and_its_front_hides_its_back() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    ball.apply_translation((0.5, 0.5, 0.5))
    values = np.asarray(ball.vertices)
    depth, points = render.draw_surface(camera(), values, np.asarray(ball.faces), values)
    seen = np.isfinite(depth)
    assert seen.sum() == pytest.approx(np.pi * 40**2, rel=0.02)
    assert depth[80, 100] == pytest.approx(-0.4, abs=1e-3)
    np.testing.assert_allclose(points[80, 100], [0.5, 0.1, 0.5], atol=0.02)
    row, column = np.argwhere(seen).mean(axis=0)
    assert (row, column) == pytest.approx((79.5, 99.5), abs=0.2)


def test_projection_and_rays_agree() -> None:
    for view in (camera(), camera(30, 20), camera(-70, 50)):
        start, ahead = view.rays()
        point = start[33, 44] + 0.7 * ahead
        np.testing.assert_allclose(view.project(point), [44.5, 33.5, 0.7], atol=1e-9)
        depth, points = render.draw_plane(view, 1, 0.5, np.zeros(3), np.ones(3))
        inside = np.isfinite(depth)
        assert inside.any()
        np.testing.assert_allclose(points[inside][:, 1], 0.5)


def test_stream_lines_follow_a_rotation() -> None:
    n = 40
    k, j, i = (np.indices((n, n, n)) + 0.5) / n
    velocity = np.stack([-(j - 0.5), i - 0.5, 0 * k], axis=-1)
    line = render.stream_lines(velocity, np.array([[0.8, 0.5, 0.5]]), 0.01, 200)[0]
    np.testing.assert_allclose(np.hypot(line[:, 0] - 0.5, line[:, 1] - 0.5), 0.3, atol=2e-3)


def test_solids_take_the_value_of_the_nearest_fluid() -> None:
    values = np.arange(6.0).reshape(1, 1, 6)
    fluid = np.array([[[True, True, False, False, False, True]]])
    assert render.fill_solids(values, fluid)[0, 0, [0, 1, 2, 4, 5]].tolist() == [0, 1, 1, 5, 5]


@pytest.mark.mpi
@pytest.mark.slow
@needs_hypre
def test_the_demo_prints_a_table_and_leaves_a_picture(mpirun: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code = "import sys; from petsc_dcdm.studies.demo import main; assert main(sys.argv[1:]) == 0"
    text = mpirun(2, code, "--size", "24", "--out", tmp_path / "new" / "demo.png")
    assert "DCDM" in text and "BoomerAMG" in text and "2 ranks" in text and "Picture" in text
    assert (tmp_path / "new" / "demo.png").stat().st_size > 50_000


def test_the_demo_names_a_missing_mesh() -> None:
    import sys

    text = run_program([sys.executable, "-m", "petsc_dcdm.studies.demo", "--mesh", "gone.stl"], expect=2)
    assert text.strip() == "demo: There is no mesh file gone.stl."
