"""Pictures of smoke and water from whole fields on rank 0: what a camera sees that looks along y (along z in 2D)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

BACKGROUND = np.array([[0.05, 0.06, 0.09], [0.17, 0.21, 0.30]])  # below and above
SMOKE, BODY, WATER = np.array([0.97, 0.97, 0.98]), np.array([0.90, 0.52, 0.25]), np.array([0.25, 0.55, 0.85])
LIGHT, SKY = np.array([0.95, 0.89, 0.80]), np.array([0.17, 0.21, 0.30])
TOWARDS_LIGHT = np.array([-0.5, -0.5, 0.70])
"""From the upper left, behind the camera, as (x, y, z)."""
ABSORPTION = 14.0
"""Optical depth of a domain that is full of smoke."""
SHADOW = 0.8
"""Of that, how much of the light is lost on its way in: the rest is scattered forwards."""
FINER = 4
"""Points of the picture along the edge of a cell, before it is enlarged."""
SKIN = 0.4
"""Share of a body that is smoothed at its surface; less than a half, so that what is a cell thick stays."""


def smoke_picture(density: np.ndarray, solid: np.ndarray, pixels: int = 480) -> np.ndarray:
    """uint8 (height, width, 3) of smoke (nz, ny, nx) lit from the upper left, with solid cells (bool) as bodies, which
    throw their shadow into it.
    """
    if density.shape[0] == 1:
        return _enlarged(_flat(density[0], solid[0], SMOKE), pixels)
    density = np.where(solid, 0.0, np.clip(density, 0.0, 1.0)).astype(np.float32)
    per_cell = ABSORPTION / density.shape[1]
    lit = _finer(np.exp(-SHADOW * _towards_light(density * per_cell + 3.0 * solid)))
    thickness = _finer(density) * per_cell
    body = _finer(_smoothed(solid.astype(np.float32)), smooth=True)
    first, shaded = _surface(body)
    seen = np.arange(density.shape[1])[None, :, None] < first[:, None, :]
    in_front = np.cumsum(thickness, axis=1) - thickness
    share = (1 - np.exp(-thickness)) * np.exp(-in_front) * seen
    by_light, by_sky = (share * lit).sum(axis=1)[..., None], share.sum(axis=1)[..., None]
    through = np.exp(-(thickness * seen).sum(axis=1))[..., None]
    height = np.linspace(0, 1, first.shape[0])[:, None, None]
    behind = np.broadcast_to((1 - height) * BACKGROUND[0] + height * BACKGROUND[1], (*first.shape, 3))
    arrives = np.take_along_axis(lit, np.clip(first.astype(int) - 2, 0, None)[:, None, :], axis=1)[:, 0]
    behind = np.where(shaded[..., None] < 0, behind, BODY * (LIGHT * (arrives * shaded)[..., None] + SKY))
    return _enlarged(behind * through + SMOKE * (LIGHT * by_light + SKY * by_sky), pixels)


def _towards_light(thickness: np.ndarray) -> np.ndarray:
    """Optical depth between each cell and the light, layer by layer from the top."""
    dx, dy, dz = TOWARDS_LIGHT / TOWARDS_LIGHT[2]
    length = np.linalg.norm([dx, dy, dz])
    depth = np.zeros_like(thickness)
    for k in range(len(thickness) - 2, -1, -1):
        depth[k] = _shifted(_shifted(depth[k + 1] + length * thickness[k + 1], dx, 1), dy, 0)
    return depth


def _shifted(layer: np.ndarray, by: float, axis: int) -> np.ndarray:
    """The values that are found `by` of a cell further, 0 beyond the ends; |by| <= 1."""
    there = np.roll(layer, -int(np.sign(by)), axis)
    ends = [slice(None)] * 2
    ends[axis] = slice(-1, None) if by > 0 else slice(0, 1)
    there[tuple(ends)] = 0.0
    return np.asarray((1 - abs(by)) * layer + abs(by) * there)


def _finer(values: np.ndarray, smooth: bool = False) -> np.ndarray:
    """Along z and x FINER times as many points, by cubics: through the values (Catmull and Rom), or B-splines, which
    round the corners of cells.
    """
    for axis in (0, 2):
        values = np.moveaxis(np.tensordot(_cubics(values.shape[axis], smooth), values, (1, axis)), 0, axis)
    return values if smooth else np.clip(values, 0.0, 1.0)


def _cubics(n: int, smooth: bool) -> np.ndarray:
    """(FINER n, n) weights of n cells at the points."""
    at = (np.arange(FINER * n) + 0.5) / FINER - 0.5
    t = np.abs(at[:, None] - np.arange(n))
    if smooth:
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    else:
        weights = np.where(t < 1, 1 - 2.5 * t**2 + 1.5 * t**3, 2 - 4 * t + 2.5 * t**2 - 0.5 * t**3) * (t < 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _smoothed(body: np.ndarray) -> np.ndarray:
    """A body's cells along y, as the splines smooth them along z and x."""
    padded = np.pad(body, ((0, 0), (1, 1), (0, 0)))
    return np.asarray((padded[:, :-2] + 4 * padded[:, 1:-1] + padded[:, 2:]) / 6)


def _surface(body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(height, width) how many cells lie in front of the body, all where there is none, and how much of the light its
    surface turns to the camera, negative where there is none.
    """
    inside = body > SKIN
    hit = inside.any(axis=1)
    cell = inside.argmax(axis=1)
    before = np.maximum(cell - 1, 0)
    low, high = (np.take_along_axis(body, at[:, None, :], axis=1)[:, 0] for at in (before, cell))
    rise = np.where(high > low, high - low, 1.0)
    first = np.where(hit, cell - np.clip((high - SKIN) / rise, 0.0, 1.0), body.shape[1])
    slopes = [np.gradient(body, axis=axis) * scale for axis, scale in ((2, FINER), (1, 1.0), (0, FINER))]
    normal = -np.stack([np.take_along_axis(slope, cell[:, None, :], axis=1)[:, 0] for slope in slopes], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    light = TOWARDS_LIGHT / np.linalg.norm(TOWARDS_LIGHT)
    half = light - np.array([0.0, 1.0, 0.0])
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0.0, 1.0) ** 24
    shaded = 0.08 + 0.92 * np.clip(normal @ light, 0.0, 1.0) + 0.25 * shine
    return first, np.where(hit, shaded, -1.0)


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

    frames: list[Image.Image] = []
    for before, picture in zip([None, *pictures], pictures, strict=False):
        same = before is not None and np.array_equal(before, picture)
        frames.append(frames[-1] if same else Image.fromarray(picture).quantize(128, dither=Image.Dither.NONE))
    each = max(20, round(1000 * seconds / max(len(frames), 1)))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=each, loop=0, optimize=False)
