"""Pictures of smoke: a body has its outline and is lit from the upper left, smoke hides it and throws a shadow."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")

from petsc_dcdm.flow import picture

N, RADIUS, PIXELS = 24, 6.0, 240
Z, Y, X = np.indices((N, N, N)) + 0.5 - N / 2
BALL = Z**2 + Y**2 + X**2 < RADIUS**2
NOTHING = np.zeros((N, N, N))


def brightness(density: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Of a picture, by the coordinates of cells from the centre, the lowest row first."""
    return picture.smoke_picture(density, solid, PIXELS)[::-1].mean(axis=2)


def test_a_ball_is_a_disc_that_is_lit_from_the_upper_left() -> None:
    shown = picture.smoke_picture(NOTHING, BALL, PIXELS)[::-1].astype(float)
    disc = shown[..., 0] > shown[..., 2]  # orange before blue
    assert disc.sum() == pytest.approx(np.pi * (RADIUS * PIXELS / N) ** 2, rel=0.1)
    row, column = np.argwhere(disc).mean(axis=0)
    assert (row, column) == pytest.approx((PIXELS / 2, PIXELS / 2), abs=1.0)
    middle, step = PIXELS // 2, int(0.5 * RADIUS * PIXELS / N)
    light = shown.mean(axis=2)
    assert light[middle + step, middle - step] > 1.5 * light[middle - step, middle + step]


def test_smoke_in_front_hides_a_body_and_that_behind_does_not() -> None:
    clear = brightness(NOTHING, BALL)
    front, back = (np.where(place, 1.0, 0.0) * (np.abs(X) < 3) for place in (Y < -RADIUS - 1, Y > RADIUS + 1))
    middle = (PIXELS // 2, PIXELS // 2)
    assert abs(brightness(front, BALL)[middle] - clear[middle]) > 20
    assert abs(brightness(back, BALL)[middle] - clear[middle]) <= 2


def test_a_body_throws_its_shadow_into_the_smoke() -> None:
    """Down and to the right of it."""
    fog = np.where(BALL, 0.0, 0.15)
    open_air, shaded = brightness(fog, np.zeros_like(BALL)), brightness(fog, BALL)
    at = slice(PIXELS // 2 - 90, PIXELS // 2 - 75), slice(PIXELS // 2 + 45, PIXELS // 2 + 60)
    across = slice(PIXELS // 2 - 90, PIXELS // 2 - 75), slice(PIXELS // 2 - 60, PIXELS // 2 - 45)
    assert shaded[at].mean() < open_air[at].mean() - 1
    assert shaded[across].mean() == pytest.approx(open_air[across].mean(), abs=1.0)
