"""Families of one's own: one decorated function, found by name in any process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from petsc_dcdm.poisson import families
from petsc_dcdm.poisson.flags import whole

LAYERS = """
import numpy as np

from petsc_dcdm.poisson.families import family
from petsc_dcdm.poisson.flags import sides_of
from petsc_dcdm.poisson.scene import all_fluid, build


@family(limit=9, random=False)
def layers(shape, seed, box):
    \"""Four layers along x, every other one ten times as stiff.\"""
    _, _, i = box.grown().indices()
    k = np.where(i * 4 // shape[2] % 2, 10.0, 1.0)
    return build(shape, box, all_fluid(box), sides_of("x- x+"), np.broadcast_to(k, box.grown().shape))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a family in a module of its own."""
    (tmp_path / "toy_systems.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield "toy_systems:layers"
    families.families.pop("layers", None)


def test_a_family_of_ones_own(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    from petsc_dcdm.compare.baselines import Solver
    from petsc_dcdm.compare.driver import run_job
    from petsc_dcdm.compare.job import Job, SystemSpec
    from petsc_dcdm.studies.robustness import measure

    found = families.find(toy)
    assert families.find("layers") is found and (found.name, found.limit, found.random) == ("layers", 9, False)
    assert found.about == "Four layers along x, every other one ten times as stiff."
    world = families.make(toy, (4, 5, 16), 0, whole((4, 5, 16)))
    assert np.unique(world.coefficient).tolist() == [1.0, 10.0]  # type: ignore[arg-type]
    row = measure(toy, (16, 16, 16), (1, 2), ("random",))
    assert len(row.smooth) == 1 and row.limit(False) == 9 and not row.misses
    job = Job(SystemSpec("family", toy, (8, 8, 8)), Solver("mine", "-ksp_type cg -pc_type jacobi"))
    assert run_job(job, 1).reasons == ["CONVERGED_RTOL"]


def test_names_that_are_none_or_taken() -> None:
    with pytest.raises(ValueError, match="no family 'lake'.*dam_break"):
        families.find("lake")
    with pytest.raises(ValueError, match="'no_such_module:lake' cannot be had: No module"):
        families.find("no_such_module:lake")

    def box() -> None: ...

    with pytest.raises(ValueError, match="a family 'box' already"):
        families.family()(box)  # type: ignore[arg-type]
