"""Values brought from the rows of a vector to the cells of a box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petsc_dcdm.native.build import KernelsUnavailable
from petsc_dcdm.stencil.entries import runs
from petsc_dcdm.stencil.entries.runs import copy_rows, copy_runs, joined, lines_of_cells


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("compiled", [True, False])
def test_runs_are_copied(kind: type, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise KernelsUnavailable("test")

    if not compiled:
        monkeypatch.setattr(runs, "library", missing)
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


@given(
    nx=st.integers(1, 40),
    lines=st.integers(0, 30),
    holes=st.sampled_from([0.0, 0.02, 0.2]),
    piece=st.sampled_from([0, 5, 23]),
    seed=st.integers(0, 99),
)
def test_lines_of_cells(nx: int, lines: int, holes: float, piece: int, seed: int) -> None:
    """Cells in order or in pieces that are not, with holes: each line has its own runs, and none goes on."""
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(rng.random(nx * lines) >= holes)
    if piece and cells.size:
        pieces = np.array_split(cells, max(1, cells.size // piece))
        cells = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    row = np.flatnonzero((np.diff(cells, prepend=-2) != 1) | (cells % nx == 0))
    wanted = np.stack([row, cells[row], np.diff(row, append=cells.size)], axis=1)
    found = lines_of_cells(cells, nx)
    if found is None:
        assert runs.SHORT * wanted.shape[0] > cells.size
        return
    assert np.array_equal(found[0], wanted) and np.array_equal(found[1], joined(wanted))


def test_joined_lines_are_pieces_for_threads() -> None:
    cells = np.arange(4 * runs.PIECE)
    found = lines_of_cells(cells, 64)
    assert found is not None and np.array_equal(found[1], joined(found[0]))
    assert found[1].shape[0] == 4
