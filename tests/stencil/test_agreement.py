"""Plans are made from means; they end where most cells see other axes as the strong ones."""

from __future__ import annotations

import numpy as np
from grid_operators import padded
from systems import conductances, matrix, right_hand_side, solve

from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.stencil.agreement import most_agree, strong_cells
from petsc_dcdm.stencil.walls import _Faces, keep_walls

SHAPE = (30, 30, 30)


def agree(w, axes, shape=SHAPE):
    faces = [padded(face) for face in w]

    level, layout, found = _Faces(faces, 1), SerialLayout(shape, ()), []

    def in_numpy(first, stride, threshold):
        return strong_cells(faces, first, stride, threshold)

    for count in (in_numpy, level.strong_cells):
        found.append(most_agree(count, axes, 2.5, (0, 0, 0), shape, layout))
    assert found[0] == found[1]
    return found[0]


def test_uniform_media_agree_with_their_means():
    for ratio, axes in (((1.0, 1.0, 1.0), (0, 1, 2)), ((1.0, 100.0, 100.0), (1, 2)), ((1.0, 2.0, 2.0), (0, 1, 2))):
        w, _ = conductances(SHAPE, ratio=ratio)
        assert agree(w, axes)
        assert not agree(w, (0,) if axes == (1, 2) else axes[:2])


def test_a_few_strong_cells_do_not_decide():
    """One layer in ten conducts along x and y a million times as well; all others along z."""
    w, _ = conductances(SHAPE, ratio=(1.0, 1.0, 10.0))
    strong = np.arange(SHAPE[0]) % 10 == 0
    w[0][strong], w[1][strong] = 1e6, 1e6
    assert w[0].mean() > 1e4 * w[2].mean()
    assert not agree(w, (0, 1)) and agree(w, (2,))


def layers(shape, seed=13):
    """Layers of a few cells that differ by decades, vertically a hundredth."""
    rng = np.random.default_rng(seed)
    of_layer = np.exp(4.0 * rng.standard_normal(shape[0]))
    k = np.broadcast_to(np.repeat(of_layer, 4)[: shape[0], None, None], shape).copy()
    return conductances(shape, coefficient=k, ratio=(1.0, 1.0, 0.01))


def test_the_plan_of_layers_ends_where_layers_come_in():
    w, _ = layers((40, 40, 40))
    faces, plan = [padded(face) for face in w], ((0, 1),) * 5
    layout = SerialLayout((40, 40, 40), plan)
    kept, _ = keep_walls(faces, layout, plan, (1.0, 1.0, 1e-4), 2.5, 1)
    assert kept == ((0, 1),) * 3  # then a coarse cell is eight times as wide as high, and sees up and down


def test_layers_are_solved_in_few_steps():
    A = matrix(*layers((24, 32, 32)))
    b = right_hand_side(A)
    ksp, _ = solve(A, b, ksp_rtol=1e-6)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 9


def kept_of(w, plan, mean):
    layout = SerialLayout(SHAPE, plan)
    return keep_walls([padded(face) for face in w], layout, plan, mean, 2.5, 1)


def test_where_the_strong_axis_turns_from_place_to_place_the_plan_does_not_begin():
    z, y, x = np.ix_(*(1.3 ** np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in SHAPE))
    w = [np.broadcast_to(face, SHAPE).copy() for face in (y * z / x, x * z / y, x * y / z)]
    for axis, face in enumerate(w):
        face[(slice(None),) * (2 - axis) + (0,)] = 0.0
    assert kept_of(w, ((0, 1, 2),) * 2, (1.0, 1.0, 1.0)) == ((), 1)


def test_where_the_means_are_those_of_few_cells_the_plan_does_not_begin():
    """Above z is the strongest and y a sixth of it, below a tenth of y: the means say z."""
    plan = ((2,), (1, 2), (0, 1, 2))
    for below, kept in [(15, ()), (6, ((2,),))]:
        w, _ = conductances(SHAPE, ratio=(1.0, 5.0, 30.0))
        w[2][:below] = 0.5
        assert kept_of(w, plan, (1.0, 5.0, 15.0))[0][:1] == kept
