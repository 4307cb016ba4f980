"""The rows of one rank of several, whose columns are partly those of others."""

from __future__ import annotations

import numpy as np
import pytest
from csr_systems import assemble, csr_rows, random_system
from hypothesis import given, settings
from hypothesis import strategies as st

from petsc_dcdm.grid.shape import Shape


@pytest.mark.parametrize("lone", [0.0, 0.2])
def test_parts_of_a_matrix_with_ghost_columns(lone: float) -> None:
    """Two halves read apart say what the whole says; their checksums cancel."""
    shape = (6, 5, 40)
    rng = np.random.default_rng(3)
    w, s, present, fixed = random_system(shape, rng, 0.2, lone)
    m = assemble(w, s, present, fixed)
    cells = np.flatnonzero(present)
    whole = csr_rows(m.indptr, m.indices, m.data, shape, cells=cells)
    flags = whole.find_dirichlet()
    total = np.zeros((4, cells.size))
    whole.extract(list(total[:3]), total[3])
    symmetry = 0
    half = cells.size // 2
    for first, last in ((0, half), (half, cells.size)):
        part = m[first:last]
        own = cells[first:last]
        rows = csr_rows(part.indptr, part.indices, part.data, shape, first_column=first, cells=own)
        assert np.array_equal(rows.find_dirichlet(), flags[first:last])
        ghosts = rows.ghost_columns()
        outside = part.indices[(part.indices < first) | (part.indices >= last)]
        assert np.array_equal(ghosts, np.unique(outside))
        rows.set_ghosts(ghosts, cells[ghosts], flags[ghosts])
        found = np.zeros((4, last - first))
        symmetry += rows.extract(list(found[:3]), found[3]).symmetry
        assert np.array_equal(found, total[:, first:last])
    assert symmetry % 2**64 == 0


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(6, 5, 40), (4, 16, 16), (1, 9, 30)]),
    solid=st.sampled_from([0.0, 0.1]),
    lone=st.sampled_from([0.0, 0.02, 0.2]),
    bare=st.booleans(),
    piece=st.sampled_from([0, 3, 17]),
    cut=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
    wide=st.booleans(),
)
def test_packed_parts_in_two_blocks(
    shape: Shape, solid: float, lone: float, bare: bool, piece: int, cut: float, seed: int, wide: bool
) -> None:
    """As PETSc keeps the rows of a rank: the columns of others, some of them of Dirichlet rows, in a block of their
    own. Two parts say what the whole says, at whatever row it is cut, and in whatever order its pieces of grid lines
    are.
    """
    rng = np.random.default_rng(seed)
    w, s, present, fixed = random_system(shape, rng, solid, lone)
    if bare:  # most rows are all alike, those beside Dirichlet rows too
        s[...] = np.where(present, 0.25, 0.0)
    m = assemble([np.where(wa > 0, c, 0.0) for wa, c in zip(w, (0.5, 1.5, 2.5), strict=True)], s, present, fixed)
    cells, order = np.flatnonzero(present), np.arange(m.shape[0])
    if piece:
        pieces = np.array_split(order, max(1, order.size // piece))
        order = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        m, cells = m[order][:, order], cells[order]
        m.sort_indices()
    numbered = solid > 0 or piece > 0
    kind = np.int64 if wide else np.int32
    plain = csr_rows(m.indptr, m.indices, m.data, shape, cells=cells)
    flags, arrays = plain.find_dirichlet(), np.zeros((4, cells.size))
    plain.extract(list(arrays[:3]), arrays[3])
    middle, number = int(cut * cells.size), np.arange(cells.size)
    for first, last in ((0, middle), (middle, cells.size)):
        columns = np.flatnonzero((number < first) | (number >= last))
        own, off = m[first:last, first:last], m[first:last][:, columns]
        other = off.indptr.astype(kind), off.indices.astype(kind), off.data, columns
        part = own.indptr.astype(kind), own.indices.astype(kind), own.data
        where = {"cells": cells[first:last]} if numbered else {"first_cell": first}
        rows = csr_rows(*part, shape, first_column=first, other=other, **where)
        rows.find_dirichlet()
        rows.set_ghosts(columns, cells[columns], flags[columns])
        found = rows.extract_packed(box=((0, 0, 0), shape))
        assert found is not None
        w_low, s_low = found[0].arrays()
        for a, b in zip((*w_low, s_low), arrays, strict=True):
            assert np.array_equal(a[1:-1, 1:-1, 1:-1].ravel()[cells[first:last]], b[first:last])
            assert np.count_nonzero(a) == np.count_nonzero(b[first:last])
        if lone == 0 and off.nnz > 8 and not numbered:  # one that is not like the others
            off.data[off.nnz // 2] *= 0.5
            assert rows.extract_packed() is None
