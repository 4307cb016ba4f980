"""Values brought from the rows of a vector to the cells of a box."""

from __future__ import annotations

import numpy as np
import pytest

from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil import vec_map
from petsc_dcdm.stencil.vec_map import copy_runs


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
