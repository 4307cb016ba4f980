"""Pictures of smoke and water from whole fields on rank 0: what a camera sees that looks along y (along z in 2D)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

BACKGROUND = np.array([[0.06, 0.07, 0.10], [0.16, 0.18, 0.24]])  # below and above
SMOKE, BODY, WATER = np.array([0.92, 0.93, 0.96]), np.array([0.86, 0.55, 0.30]), np.array([0.25, 0.55, 0.85])
LIGHT = np.array([-0.5, -0.6, 0.62])
ABSORPTION = 14.0
"""Optical depth of a domain that is full of smoke."""


def smoke_picture(density: np.ndarray, solid: np.ndarray, pixels: int = 480) -> np.ndarray:
    """uint8 (height, width, 3) of smoke (nz, ny, nx) lit from the upper left, with solid cells (bool) as bodies."""
    if density.shape[0] == 1:
        return _enlarged(_flat(density[0], solid[0], SMOKE), pixels)
    nz, ny, _ = density.shape
    per_cell = ABSORPTION / ny
    thickness = np.where(solid, 0.0, np.clip(density, 0.0, 1.0)) * per_cell
    above = np.flip(np.cumsum(np.flip(thickness, 0), 0), 0) - thickness
    lit = 0.25 + 0.75 * np.exp(-0.6 * above)
    in_front = np.cumsum(thickness, axis=1) - thickness
    hit = solid.any(axis=1)
    first = np.where(hit, solid.argmax(axis=1), ny)
    seen = np.arange(ny)[None, :, None] < first[:, None, :]
    light = ((1 - np.exp(-thickness)) * np.exp(-in_front) * lit * seen).sum(axis=1)
    through = np.exp(-(thickness * seen).sum(axis=1))
    height = np.linspace(0, 1, nz)[:, None, None]
    behind = np.broadcast_to((1 - height) * BACKGROUND[0] + height * BACKGROUND[1], (*hit.shape, 3))
    behind = np.where(hit[..., None], _shaded(_smoothed(first.astype(float), hit)), behind)
    return _enlarged(behind * through[..., None] + SMOKE * light[..., None], pixels)


def water_picture(level: np.ndarray, pixels: int = 480) -> np.ndarray:
    """The same of water, where the level is negative."""
    depth = np.clip(0.5 - level, 0.0, 1.0)
    if level.shape[0] == 1:
        return _enlarged(_flat(depth[0], np.zeros(depth.shape[1:], bool), WATER), pixels)
    share = depth.mean(axis=1)
    return _enlarged(_flat(share, np.zeros(share.shape, bool), WATER), pixels)


def _flat(share: np.ndarray, solid: np.ndarray, colour: np.ndarray) -> np.ndarray:
    height = np.linspace(0, 1, share.shape[0])[:, None, None]
    behind = (1 - height) * BACKGROUND[0] + height * BACKGROUND[1]
    mixed = behind + np.clip(share, 0, 1)[..., None] * (colour - behind)
    return np.where(solid[..., None], BODY, mixed)


def _smoothed(depth: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Depths without the steps of the cells; nothing is taken from outside of the body."""
    for _ in range(4):
        total, count = np.zeros(depth.shape), np.zeros(depth.shape)
        for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            inside = np.roll(hit, shift, (0, 1))
            total += np.where(inside, np.roll(depth, shift, (0, 1)), 0.0)
            count += inside
        depth = np.where(hit, total / np.maximum(count, 1), depth)
    return depth


def _shaded(depth: np.ndarray) -> np.ndarray:
    """A body's colour by the angle of its surface to the light."""
    dz, dx = np.gradient(depth)
    normal = np.stack([dx, -np.ones_like(depth), dz], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    towards = LIGHT / np.linalg.norm(LIGHT)
    return np.asarray(BODY * (0.25 + 0.75 * np.clip(normal @ towards, 0.0, 1.0))[..., None])


def _enlarged(colours: np.ndarray, pixels: int) -> np.ndarray:
    """As uint8, the last row at the bottom, the longer edge of so many pixels."""
    from PIL import Image

    image = Image.fromarray((255 * np.clip(colours[::-1], 0, 1)).astype(np.uint8))
    scale = pixels / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Not collective."""
    from PIL import Image

    Image.fromarray(picture).save(path)


def write_gif(path: str | Path, pictures: list[np.ndarray], seconds: float) -> None:
    """An animated file that shows each picture for the same part of so many seconds and begins again."""
    from PIL import Image

    frames = [Image.fromarray(p).quantize(128, dither=Image.Dither.NONE) for p in pictures]
    each = max(20, round(1000 * seconds / max(len(frames), 1)))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=each, loop=0, optimize=False)
