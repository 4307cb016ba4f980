"""Values brought from the rows of a vector to the cells of a box."""

from __future__ import annotations

import numpy as np
import pytest

from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil import vec_map
from petsc_dcdm.stencil.vec_map import copy_rows, copy_runs


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("compiled", [True, False])
def test_runs_are_copied(kind: type, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise KernelsUnavailable("test")

    if not compiled:
        monkeypatch.setattr(vec_map, "library", missing)
    source, target = np.arange(100).astype(kind), np.zeros(100, kind)
    copy_runs(np.array([[10, 50, 5], [90, 0, 1], [20, 55, 30]]), source, target)
    wanted = np.zeros(100, kind)
    wanted[50:55], wanted[0], wanted[55:85] = source[10:15], source[90], source[20:50]
    assert np.array_equal(target, wanted)
    returned = np.zeros(100, kind)
    copy_runs(np.array([[10, 50, 5], [90, 0, 1], [20, 55, 30]]), target, returned, back=True)
    assert np.flatnonzero(returned).tolist() == [*range(10, 15), *range(20, 50), 90]
    assert np.array_equal(returned[returned > 0], source[returned > 0])


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_rows_are_copied_one_by_one(kind: type) -> None:
    places = np.random.default_rng(1).permutation(100)[:80]
    source, target, returned = np.arange(80).astype(kind), np.full(100, 99).astype(kind), np.zeros(80, kind)
    copy_rows(places, source, target, threads=2)
    assert np.array_equal(target[places], source) and np.count_nonzero(target == 99) == 20
    copy_rows(places, target, returned, back=True)
    assert np.array_equal(returned, source)
    with pytest.raises(ValueError, match="contiguous arrays of one type"):
        copy_rows(places, source, np.zeros(200, kind)[::2])
