"""Media of high contrast: they are what they say, training coarsens them as a solve would, others stay as they are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from petsc_dcdm.cli import main
from petsc_dcdm.grid.faces import connected
from petsc_dcdm.grid.layout import coarse_box
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.network import weights
from petsc_dcdm.network.initial import initial_tensors
from petsc_dcdm.stencil.plan import plan_coarsening
from petsc_dcdm.training import domains, losses, media, multigrid_run, train, validation
from petsc_dcdm.training.finetune import piece_shape, pieces

SHAPES: list[Shape] = [(10, 12, 9), (1, 25, 18)]


def made(name: str, shape: Shape, seed: int) -> domains.System:
    return media.MEDIA[name][0](shape, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(media.MEDIA))
def test_media_are_sound(name: str, shape: Shape) -> None:
    """Non-negative, symmetric by what they hold, open, connected, of contrasts that single precision bears."""
    for seed in range(4):
        system, again = made(name, shape, seed), made(name, shape, seed)
        other = made(name, shape, seed + 100)
        assert all((x == y).all() for x, y in zip((*system.w, system.s), (*again.w, again.s), strict=True))
        assert any((x != y).any() for x, y in zip(system.w, other.w, strict=True))
        assert system.s.dtype == np.float32 and system.shape == shape and not system.closed
        assert min(float(x.min()) for x in (*system.w, system.s)) >= 0
        assert float(system.diagonal().max()) == pytest.approx(1)
        assert (connected(system.s > 0, system.w) == system.active).all()
        conducts = np.concatenate([face[face > 0] for face in system.w])
        assert np.log10(conducts.max() / conducts.min()) < media.MOST_DECADES + 3
        if seed == 0:
            matrix = losses.dense(train.multigrid.operator_from_arrays(system.w, system.s, shape))
            assert torch.equal(matrix, matrix.T)
            torch.linalg.cholesky(matrix)  # positive definite


@pytest.mark.parametrize("shape", [(16, 16, 16), (1, 64, 64)])
def test_contrasts_are_those_that_are_promised(shape: Shape) -> None:
    """Of 40 media of a family, the largest deviation or ratio of neighbouring conductances."""
    most = {}
    for name in media.MEDIA:
        spread, steps = [], []
        for seed in range(40):
            system = made(name, shape, seed)
            x = system.w[0][:, :, 1:].astype(float)
            both = (x[:, :, 1:] > 0) & (x[:, :, :-1] > 0)
            steps.append(np.abs(np.log(x[:, :, 1:][both] / x[:, :, :-1][both])).max())
            spread.append(np.log(x[x > 0]).std())
        most[name] = (max(spread), max(steps))
    assert most["lognormal"][0] > 2.0 and most["lognormal"][1] > np.log(1e4)  # of harmonic means
    assert most["correlated"][0] > 2.0
    assert most["layered"][0] > 2.0 and most["channelled"][0] > 1.5
    assert most["drops"][1] > np.log(1e3) and most["bubbles"][1] > np.log(1e3)
    assert most["stretched"][0] > 0.5 and most["stretched"][1] <= np.log(1.3) + 1e-3


def test_correlated_fields_have_their_deviation_and_length() -> None:
    rng = np.random.default_rng(5)
    fields = np.stack([media.correlated((1, 60, 64), rng, np.array([8.0, 4.0, 3.0])) for _ in range(60)])
    assert fields.std() == pytest.approx(1.0, abs=0.05)
    x, y = (np.mean(fields[..., :, shift:] * fields[..., :, :-shift]) for shift in (2, 12))
    assert x > 0.8 and abs(y) < 0.1


def test_cells_with_a_coefficient_along_each_axis() -> None:
    """A stretched grid: the flux between two cells is area over distance of their centres."""
    shape, rng = (4, 5, 6), np.random.default_rng(2)
    z, y, x = (rng.uniform(0.5, 2.0, n).reshape([-1 if j == i else 1 for j in range(3)]) for i, n in enumerate(shape))
    k = np.stack(np.broadcast_arrays(y * z / x, x * z / y, x * y / z))
    none = np.zeros(shape, bool)
    system = domains.assemble(~none, none, np.full((3, 2), 2.0), k)
    want = (y * z * np.ones(shape))[:, :, 1:] / (0.5 * (x[:, :, 1:] + x[:, :, :-1]))
    scale = want[0, 0, 0] / system.w[0][0, 0, 1]
    np.testing.assert_allclose(system.w[0][:, :, 1:] * scale, want, rtol=1e-5)
    upright = (x * y * np.ones(shape))[1:] / (0.5 * (z[1:] + z[:-1]))
    np.testing.assert_allclose(system.w[2][1:] * scale, upright, rtol=1e-5)


def test_training_ends_where_a_solve_leaves_the_grid() -> None:
    """The plan of a solve, cut where few cells are left, and gone on with only where too many would be."""
    noise = np.exp(3.0 * np.random.default_rng(1).standard_normal((16, 16, 16)))
    none = np.zeros(noise.shape, bool)
    wild = domains.assemble(~none, none, np.full((3, 2), 2.0), noise)
    calm = domains.assemble(~none, none, np.full((3, 2), 2.0))
    assert train.solve_plan(wild, 2.5) == ()
    assert train.solve_plan(calm, 2.5) == plan_coarsening(calm.shape, train.mean_conductances(calm), 2.5, 100)
    assert train.training_plan(replace(wild, plan=()), 2.5, 100) == ((0, 1, 2),)
    assert len(train.training_plan(wild, 2.5, 100)) == 2  # without one: to the bottom
    one = replace(calm, plan=((0, 1),))
    assert train.training_plan(one, 2.5, 100)[0] == (0, 1)
    assert train.training_plan(replace(calm, plan=((0, 1, 2),) * 4), 2.5, 600) == ((0, 1, 2),)


def test_media_come_beside_the_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without them the others are the same, and media are drawn as often as the settings say."""
    seen: list[bytes] = []
    kinds: list[bool] = []

    def recorded(weights, system, *rest):  # type: ignore[no-untyped-def]
        kinds.append(system.plan is not None)
        if system.plan is None:
            seen.append(system.s.tobytes())
        return prepare(weights, system, *rest)

    prepare = train.prepare
    monkeypatch.setattr(train, "prepare", recorded)
    monkeypatch.setattr(domains, "SHAPES_2D", ((1, 32, 34),))
    monkeypatch.setattr(media, "SHAPES_2D", ((1, 32, 36),))
    runs = []
    for share in (0.0, 0.5, 1.0):
        seen.clear(), kinds.clear()
        tensors = train.train_multigrid(
            train.Settings(steps=5, batch=1, smoothing=2, hidden=4, media=share, share_2d=1.0)
        )
        assert all(np.isfinite(a).all() for a in tensors.values())
        runs.append((list(seen), sum(kinds)))
    assert runs[0][0] == runs[1][0] == runs[2][0] and len(runs[0][0]) == 5
    assert runs[0][1] == 0 and 0 < runs[1][1] < 5 and runs[2][1] == 5


def test_command_says_what_media_it_saw_and_gained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(domains, "SHAPES_2D", ((1, 32, 34),))
    monkeypatch.setattr(media, "SHAPES_2D", ((1, 32, 36),))
    monkeypatch.setattr(multigrid_run, "VALIDATION_SHAPES", ((1, 36, 32),))
    monkeypatch.setattr(validation, "FAMILIES", {"box": validation.box})
    out = tmp_path / "w.safetensors"
    words = "--steps 1 --batch 1 --media 1 --share-2d 1 --hidden 4".split()
    assert main(["train", "multigrid", *words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    file = weights.load(out)
    assert "--media 1.0" in file.meta["command"]
    assert f"media of high contrast in 100% of the steps: {', '.join(media.MEDIA)}; " in file.meta["training_domain"]
    for name, make in {**validation.FAMILIES, **validation.MEDIA}.items():
        row = re.search(rf"{name} .*?(\d+) > (\d+) / (\d+) > (\d+)", said)
        assert row, said
        system = make((1, 36, 32), 0)
        system = replace(system, plan=train.solve_plan(system, 2.5)) if name in validation.MEDIA else system
        assert int(row[2]) == multigrid_run.count(file.tensors, 2.5, system, "random")


def test_a_step_on_media_lowers_their_loss() -> None:
    """Gradients of the loss go down-hill on each family, through the plan of a solve."""
    weights = {name: torch.from_numpy(a).requires_grad_() for name, a in initial_tensors(2, 8, 1).items()}
    for name in media.MEDIA:
        system = made(name, (1, 40, 36), 3)
        system = replace(system, plan=train.solve_plan(system, 2.5))
        b = None
        values = []
        for _ in range(2):
            op, precondition = train.prepare(weights, system, 2.5, 100)
            b = train.right_hand_sides(op, precondition, False, np.random.default_rng(1)) if b is None else b
            loss = losses.unrolled_loss(op, precondition, b, 2)
            values.append(float(loss.detach()))
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            size = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
            assert 0 < size < math.inf
            with torch.no_grad():
                for w, g in zip(weights.values(), gradients, strict=True):
                    w -= 1e-3 / size * (g if g is not None else 0.0)
        assert values[1] < values[0], name


def test_pieces_are_coarsened_as_the_whole() -> None:
    none = np.zeros((40, 40, 40), bool)
    whole = domains.assemble(~none, none, np.full((3, 2), 2.0))
    plan = ((0, 1, 2),)
    assert piece_shape(whole) == (24, 24, 24)
    assert piece_shape(replace(whole, plan=plan)) == (16, 16, 16)
    assert piece_shape(replace(whole, plan=plan * 3)) == (24, 24, 24)
    drawn = pieces([replace(whole, plan=plan)])(np.random.default_rng(0))
    assert train.training_plan(drawn, 2.5, 100) == plan
    shape = drawn.shape
    for axes in plan:
        shape, _ = coarse_box(shape, (0, 0, 0), axes)
    assert math.prod(shape) <= train.MOST_DENSE
