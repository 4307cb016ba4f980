"""Training on periodic systems: the operator, its exact solve and the gradients are those of the ring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ring_systems import assembled, conductances

from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.grid.shape import Periodic, Shape
from petsc_dcdm.network.initial import initial_tensors
from petsc_dcdm.network.multigrid import apply_operator, build, cycle, operator_from_arrays
from petsc_dcdm.training.domains import System, finish
from petsc_dcdm.training.finetune import piece, pieces
from petsc_dcdm.training.losses import dense, exact_solver, unrolled_loss
from petsc_dcdm.training.train import Settings, exchange_of, train_multigrid

XYZ: Periodic = (True, True, True)


def ring(shape: Shape, periodic: Periodic, walls: float = 2.0) -> System:
    rng = np.random.default_rng(1)
    k = np.where(rng.random(shape) < 0.1, 0.0, rng.uniform(0.5, 2.0, shape))
    w, s = conductances(shape, periodic, walls, coefficient=k)
    return finish((w[0], w[1], w[2]), s, periodic)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 2, 7), (3, 2, 2)])
@pytest.mark.parametrize("periodic", [XYZ, (False, False, True), (True, False, False)])
def test_operator_and_matrix_are_those_of_the_ring(shape: Shape, periodic: Periodic) -> None:
    system = ring(shape, periodic)
    op = operator_from_arrays(system.w, system.s, shape, exchange_of(system), dtype=torch.float64)
    want = assembled([face.astype(float) for face in system.w], system.s.astype(float)).toarray()
    cells = np.flatnonzero(system.active)
    np.testing.assert_allclose(dense(op).numpy(), want[np.ix_(cells, cells)], atol=1e-12)
    x = np.random.default_rng(2).standard_normal(shape) * system.active
    got = apply_operator(op, torch.from_numpy(x), exchange_of(system)).numpy()
    np.testing.assert_allclose(got.ravel()[cells], (want @ x.ravel())[cells], atol=1e-12)
    np.testing.assert_allclose(system.diagonal().ravel()[cells], want.diagonal()[cells], rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 9, 8), (1, 16, 18)])
def test_gradients_go_round(shape: Shape) -> None:
    """Those of the weights, against differences of the loss in double precision."""
    system = ring(shape, XYZ, 0.0)
    assert system.closed
    exchange = exchange_of(system)
    op = operator_from_arrays(system.w, system.s, shape, exchange, dtype=torch.float64)
    b = torch.from_numpy(np.random.default_rng(5).standard_normal((2, *shape))) * op.active
    b = b - op.active * (b.sum(dim=(1, 2, 3), keepdim=True) / op.active.sum())
    weights = {name: torch.from_numpy(a).double() for name, a in initial_tensors(2, 4, 3).items()}
    layout = SerialLayout(shape, ((0, 1, 2),) * 2 if shape[0] > 1 else ((0, 1),) * 2, periodic=XYZ)

    def loss() -> torch.Tensor:
        smoothers, coarse, _ = build(weights, op, layout, exchange)
        solve = exact_solver(coarse, True)
        return unrolled_loss(op, lambda r: cycle(smoothers, solve, r, exchange), b, 2, exchange)

    for name in ("log_c", "out.bias", "conv.bias"):
        weights[name].requires_grad_(True)
    loss().backward()
    for name in ("log_c", "out.bias", "conv.bias"):
        gradient, value = weights[name].grad, weights[name].detach().clone()
        assert gradient is not None
        at, found = int(gradient.abs().argmax()), []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                weights[name].copy_(value)
                weights[name][at] += step
                found.append(float(loss()))
            weights[name].copy_(value)
        assert found[0] - found[1] == pytest.approx(2e-5 * float(gradient[at]), rel=1e-3), name


def test_pieces_of_a_ring() -> None:
    """One that has all of an axis stays a ring; where it is cut the outside counts, round the end as well."""
    shape = (12, 14, 10)
    whole = ring(shape, XYZ)
    part = piece(whole, (4, 0, 2), (8, 14, 8))  # up to the end along z and x
    assert part.periodic == (False, True, False)
    d = whole.diagonal()[4:, :, 2:]
    np.testing.assert_allclose(part.diagonal(), d / d.max(), rtol=1e-5)
    assert piece(whole, (0, 0, 0), shape).periodic == XYZ
    tensors = train_multigrid(
        Settings(steps=2, batch=1, smoothing=2, hidden=4), draw=pieces([ring((10, 9, 8), XYZ, 0.0)])
    )
    assert all(np.isfinite(a).all() for a in tensors.values())


def test_parts_that_meet_round_the_end_are_one() -> None:
    """A wall across a ring leaves one room, across a line two."""
    rooms = []
    for periodic in ((False, False, True), (False, False, False)):
        w, s = conductances((1, 6, 10), periodic, 0.0)
        for face in (w[0][:, :, 4], w[0][:, :, 5], w[1][:, :, 4]):
            face[...] = 0.0
        s[0, 2, 1] = 1.0
        rooms.append(int(finish((w[0], w[1], w[2]), s, periodic).active.sum()))
        closed = finish((w[0], w[1], w[2]), 0 * s, periodic)
        assert closed.closed
        rooms.append(int(closed.active.sum()))
    assert rooms == [54, 54, 24, 30]
