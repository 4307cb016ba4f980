"""Pieces of a matrix to train on are parts of the whole, and have work for the network."""

from __future__ import annotations

import numpy as np
import pytest
from systems import conductances

from petsc_dcdm.training.domains import finish
from petsc_dcdm.training.finetune import piece, pieces


def test_a_piece_is_part_of_the_operator():
    shape = (12, 14, 10)
    w, s = conductances(shape)
    rng = np.random.default_rng(3)
    whole = finish(tuple(face * rng.uniform(0.5, 2.0, shape) for face in w), s)
    part = piece(whole, (2, 3, 1), (8, 8, 9))
    box = np.s_[2:10, 3:11, 1:10]
    d = whole.diagonal()[box]
    np.testing.assert_allclose(part.diagonal(), d / d.max(), rtol=1e-5)
    assert piece(whole, (0, 0, 0), shape).closed == whole.closed


def test_systems_without_a_second_level_are_a_sentence():
    """They are solved exactly at once: nothing in the loss depends on the network."""
    w, s = conductances((1, 24, 24))
    with pytest.raises(ValueError, match="no level for the network"):
        pieces([finish(w, s)])(np.random.default_rng(0))
