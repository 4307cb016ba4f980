"""Parts on media that none of the families resembles."""

from __future__ import annotations

import numpy as np
import pytest
from systems import conductances, matrix, relative_residual, right_hand_side, solve

from petsc_dcdm.solver.coarse.parts import PartsCoarseSolver


def labyrinth(shape):
    """Cells of which a third conduct, the others a millionth; the ends along x are open."""
    k = np.where(np.random.default_rng(11).random(shape) < 0.35, 1.0, 1e-6)
    w, s = conductances(shape, coefficient=k, walls=0.0)
    for end in (0, -1):
        s[..., end] += 2.0 * k[..., end]
    return w, s


def turning(shape):
    """Blocks of 6 cells, each with a strong axis of its own."""
    blocks = np.random.default_rng(3).integers(0, 3, [-(-n // 6) for n in shape])
    strong = blocks.repeat(6, 0).repeat(6, 1).repeat(6, 2)[tuple(slice(n) for n in shape)]
    w, s = conductances(shape, walls=2.0)
    for axis, face in enumerate(w):
        k = np.where(strong == axis, 1000.0, 1.0)
        before = np.roll(k, 1, 2 - axis)
        face *= 2.0 * k * before / (k + before)
    return w, s


def stiff_cells(shape):
    """Single ones of 1e7, a twentieth of all; the end along x is open."""
    k = np.where(np.random.default_rng(5).random(shape) < 0.05, 1e7, 1.0)
    w, s = conductances(shape, coefficient=k, walls=0.0)
    s[..., -1] += 2.0 * k[..., -1]
    return w, s


@pytest.mark.parametrize(
    "make, shape, most",
    [
        (labyrinth, (24, 24, 24), 18),
        (labyrinth, (1, 96, 100), 14),
        (turning, (24, 24, 24), 12),
        (stiff_cells, (24, 24, 24), 10),
        (stiff_cells, (1, 96, 96), 11),
    ],
)
def test_media_that_none_of_the_families_resembles(make, shape, most):
    """Over 30 iterations where stiff cells at an open side follow others, or where a median tells what is halved; 12
    and 13 where single stiff cells are smoothed for small eigenvalues as well, which the coarse cells see to.
    """
    w, s = make(shape)
    A = matrix(w, s)
    b = right_hand_side(A)
    size = ",".join(str(n) for n in shape[::-1] if n > 1)
    ksp, x = solve(A, b, ksp_rtol=1e-6, ksp_max_it=40, pc_dcdm_grid=size, pc_dcdm_net="none")
    assert isinstance(ksp.getPC().getPythonContext()._coarse, PartsCoarseSolver)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-6
    assert ksp.getIterationNumber() <= most
