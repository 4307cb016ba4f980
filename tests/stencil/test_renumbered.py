"""Numbers of values of s that ranks agree on: each changes those of its own cells, wherever these are, and no other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from petsc_dcdm.stencil.discovery import Grid
from petsc_dcdm.stencil.entries.shared import renumber_own

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 90))


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.data())
def test_of_own_cells_only(shape: tuple[int, int, int], data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    mine = np.zeros(shape, bool)
    kind = data.draw(st.sampled_from(["cells", "range", "box"]))
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    if kind == "cells":
        mine[...] = rng.random(shape) < data.draw(st.sampled_from([0.0, 0.2, 0.9, 1.0]))
        cells = np.flatnonzero(mine.ravel())
        if data.draw(st.booleans()):
            rng.shuffle(cells)
        grid = Grid(shape, cells, 0, cells.size, "test")
    elif kind == "range":
        first, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, mine.size)])))
        mine.ravel()[first:end] = True
        grid = Grid(shape, None, first, end - first, "test")
    else:
        mine[tuple(slice(*both) for both in ends)] = True
        box = tuple(low for low, _ in ends), tuple(high - low for low, high in ends)
        grid = Grid(shape, None, 0, int(mine.sum()), "test", box=box)  # type: ignore[arg-type]
    # Of others too; 0 in the halo.
    values = data.draw(st.sampled_from([1, 3, 8, 9, 255]))
    s_index = np.pad(rng.integers(0, values + 1, shape), 1).astype(np.uint8)
    table = np.zeros(256, np.uint8)
    table[1 : values + 1] = rng.permutation(np.arange(1, 256))[:values]
    expected = np.where(np.pad(mine, 1), table[s_index], s_index)
    renumber_own(grid, s_index, table)
    np.testing.assert_array_equal(s_index, expected)
