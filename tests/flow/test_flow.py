"""The flow solver against what is known: decaying vortices, a standing wave; and what steps keep. A driven cavity is in
test_cavity.py."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from harness import run_program

from petsc_dcdm.flow import checkpoint
from petsc_dcdm.flow.scenes import SCENES, Wishes, plume, sloshing, tunnel
from petsc_dcdm.flow.smoke import Physics, Smoke
from petsc_dcdm.flow.staggered import Grid, Side
from petsc_dcdm.grid.shape import NOT_PERIODIC
from petsc_dcdm.poisson.io import FileError


def vortex_error(n: int) -> float:
    """Of the velocity, relative, when the vortices have decayed to about 0.6."""
    state = SCENES["vortices"](Wishes((1, n, n), reynolds=100.0))
    end, reynolds = 25.0 * n / (2 * np.pi), 100.0
    steps = round(end / 0.5)
    start = [component.copy() for component in state.u]
    for _ in range(steps):
        assert state.step(end / steps).reason > 0
    decay = np.exp(-2 * 25.0 / reynolds)
    inner = state.grid.inner
    error = sum(float(((state.u[a] - decay * start[a])[inner] ** 2).sum()) for a in (0, 1))
    size = sum(float(((decay * start[a])[inner] ** 2).sum()) for a in (0, 1))
    state.destroy()
    return (error / size) ** 0.5


def test_decaying_vortices_are_second_order():
    coarse, fine = vortex_error(16), vortex_error(32)
    assert fine < 0.02 and coarse / fine > 3.3, (coarse, fine)


def test_a_standing_wave_has_its_period():
    """omega^2 = g k tanh(k h), for a small wave in a closed tank."""
    n = 32
    state = sloshing(Wishes((1, n, n)))
    x, y, _ = state.grid.centres()
    state.level[...] = y - 0.5 * n - 0.04 * n * np.cos(np.pi * x / n)
    state.water = state.volume()
    k = np.pi / n
    period = 2 * np.pi / np.sqrt(n * k * np.tanh(k * 0.5 * n))
    heights, times = [], []
    while state.time < 1.35 * period:
        solved = state.step()
        assert solved.reason > 0 and solved.divergence < 1e-6
        column = state.level[state.grid.inner][0][:, 0]
        j = int(np.argmax(column > 0))
        heights.append(j - 0.5 + column[j - 1] / (column[j - 1] - column[j]) - 0.5 * n)
        times.append(state.time)
    signs = np.flatnonzero(np.diff(np.sign(heights)))
    first, _, third = (
        times[i] - heights[i] * (times[i + 1] - times[i]) / (heights[i + 1] - heights[i]) for i in signs[:3]
    )
    assert third - first == pytest.approx(period, rel=0.03)
    assert state.volume() == pytest.approx(state.water, rel=1e-3)
    state.destroy()


@pytest.mark.parametrize("moving, periodic", [(False, NOT_PERIODIC), (True, NOT_PERIODIC), (True, (False, True, True))])
def test_smoke_round_a_body(moving, periodic):
    """Divergence is taken away in every step, smoke stays between 0 and 1 and out of nowhere comes none."""
    state = plume(Wishes((20, 16, 16), moving=moving, periodic=periodic))
    for _ in range(12):
        solved = state.step()
        assert solved.reason > 0 and solved.divergence < 1e-6
        smoke = state.density[state.grid.inner]
        assert smoke.min() >= 0.0 and smoke.max() <= 1.0
    state.destroy()


def carried(n: int) -> float:
    """How much smoke a closed vortex loses or gains in one turn, relative."""
    grid = Grid((1, n, n), [Side()] * 6)
    state = Smoke(grid, Physics())
    x, y, _ = grid.centres()
    s = np.pi / n
    stream = lambda x, y: np.sin(s * x) * np.sin(s * y) / s  # noqa: E731
    state.u[0][...] = stream(x - 0.5, y + 0.5) - stream(x - 0.5, y - 0.5)
    state.u[1][...] = -(stream(x + 0.5, y - 0.5) - stream(x - 0.5, y - 0.5))
    state.density[...] = np.exp(-(((x - 0.5 * n) ** 2 + (y - 0.35 * n) ** 2) / (0.1 * n) ** 2))
    grid.fill_faces(state.u)
    grid.fill_cells(state.density)
    state.before = [component.copy() for component in state.u]
    before = state.density[grid.inner].sum()
    while state.time < n:
        state.step()
    after = state.density[grid.inner].sum()
    state.destroy()
    return abs(after / before - 1)


def test_smoke_is_conserved_to_the_order_of_the_scheme():
    coarse, fine = carried(24), carried(48)
    assert fine < 0.01 and coarse / fine > 2.5, (coarse, fine)


@pytest.mark.parametrize("scene", ["plume", "tunnel", "sloshing"])
def test_a_restart_goes_on_to_the_last_bit(scene, tmp_path):
    wishes = Wishes((12, 10, 14), moving=True)
    one, other = SCENES[scene](wishes), SCENES[scene](wishes)
    for _ in range(3):
        one.step()
    checkpoint.save(tmp_path / "state.npz", one)
    checkpoint.load(tmp_path / "state.npz", other)
    for _ in range(3):
        one.step()
        other.step()
    assert one.time == other.time and one.steps == other.steps
    kept = [[*state.u, state.level if scene == "sloshing" else state.density] for state in (one, other)]
    for a, b in zip(*kept, strict=True):
        assert (a == b).all() and a.any()
    for state in (one, other):
        state.destroy()


def test_a_checkpoint_of_another_grid_or_a_damaged_one(tmp_path):
    state = tunnel(Wishes((1, 10, 14)))
    checkpoint.save(tmp_path / "state.npz", state)
    other = tunnel(Wishes((1, 10, 16)))
    with pytest.raises(FileError, match="is of a grid"):
        checkpoint.load(tmp_path / "state.npz", other)
    (tmp_path / "state.npz").write_bytes(b"nothing")
    with pytest.raises(FileError, match="cannot be read"):
        checkpoint.load(tmp_path / "state.npz", state)
    for thing in (state, other):
        thing.destroy()


def test_the_command_writes_pictures_fields_and_figures(tmp_path):
    pytest.importorskip("PIL")
    command = [sys.executable, "-m", "petsc_dcdm", "flow", "tunnel", "--size", "24,16", "--steps", "5", "--moving"]
    out = [f"--frames={tmp_path}/f", f"--vti={tmp_path}/v", f"--json={tmp_path}/s.json", "--every=1"]
    said = run_program([*command, *out, "-ksp_type", "cg", "-pc_type", "gamg"])
    assert "5 steps in" in said
    assert (tmp_path / "f" / "animation.gif").stat().st_size > 1000 and len(list((tmp_path / "f").glob("*.png"))) == 5
    series = json.loads((tmp_path / "v" / "series.vti.series").read_text())
    assert all((tmp_path / "v" / file["name"]).exists() for file in series["files"]) and len(series["files"]) == 5
    steps = json.loads((tmp_path / "s.json").read_text())
    assert len(steps) == 5 and all(step["iterations"] > 5 for step in steps), "the pressure went through our solver"


def test_a_scene_that_there_is_not():
    said = run_program([sys.executable, "-m", "petsc_dcdm", "flow", "fire"], expect=2)
    assert "There is no scene 'fire'; the scenes are plume" in said
