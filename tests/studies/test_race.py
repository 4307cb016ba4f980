"""The race: both solvers simulate the same, and each panel shows what its solver had finished at that moment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import run_program
from systems import needs_hypre

from petsc_dcdm.studies import race


@pytest.mark.mpi
@pytest.mark.slow
@needs_hypre
def test_both_simulate_the_same(tmp_path: Path) -> None:
    for module in ("matplotlib", "trimesh"):
        pytest.importorskip(module)
    image = pytest.importorskip("PIL.Image")
    command = [sys.executable, "-m", "petsc_dcdm.studies.race", "--size=16", "--steps=2", "--out", tmp_path]
    said = run_program(command, timeout=300)
    assert re.search(r"2 steps: pressure [\d.]+ s with DCDM, [\d.]+ s with CG \+ BoomerAMG", said), said
    assert (tmp_path / "race.png").stat().st_size > 20_000 and (tmp_path / "race.gif").stat().st_size > 20_000
    last = [np.asarray(image.open(tmp_path / solver / "000001.png"), float) for solver in ("dcdm", race.RIVAL)]
    assert last[0].std() > 10 and np.abs(last[0] - last[1]).max() <= 8


def test_each_panel_runs_at_its_own_speed() -> None:
    pytest.importorskip("PIL")
    fast, slow = (
        race.Runner(name, [{"setup_s": 0.1, "solve_s": 0.1, "step_s": seconds}] * 10, Path())
        for name, seconds in (("fast", 1.0), ("slow", 2.0))
    )
    shown = [np.full((60, 80, 3), 20 * number, np.uint8) for number in range(5)]  # after steps 1, 3, 5, 7, 9
    picture = race.at_the_moment([fast, slow], [shown, shown], 7.5)  # seven steps and three
    assert picture.shape == (60, 160, 3) and picture[-1, 40, 0] == 60 and picture[-1, 120, 0] == 20
