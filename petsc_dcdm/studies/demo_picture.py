"""The picture of the demo: pressure around the obstacle, stream lines, and how the solvers converge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import MaxNLocator

from petsc_dcdm.poisson.solving import Result
from petsc_dcdm.studies import render

if TYPE_CHECKING:
    import trimesh

SMOOTH = 2  # the scene is drawn this many times larger and averaged: smooth edges
PIXELS = (1240, 860)
PRESSURE = LinearSegmentedColormap.from_list(
    "pressure", ["#0b3c6f", "#2f7fb8", "#8cc3df", "#f4f1ea", "#f6b48a", "#d9583b", "#7d1128"]
)
INK, PAPER = "#22303c", "#ffffff"
COLOURS = ("#d9583b", "#44617b")
LIGHT = np.array([-0.45, -0.75, 0.75]) / np.linalg.norm([-0.45, -0.75, 0.75])


def draw(
    path: Path,
    surface: trimesh.Trimesh,
    pressure: np.ndarray,
    fluid: np.ndarray,
    velocity: np.ndarray,
    results: Sequence[Result],
    curves: Sequence[Result],
    title: str,
) -> None:
    """Write the picture. pressure, fluid (nz, ny, nx) and velocity (nz, ny, nx, 3): whole fields. Not collective.

    results: for the captions; curves: whose histories are drawn.
    """
    figure = pyplot.figure(figsize=(15.5, 6.6), facecolor=PAPER)
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "text.color": INK, "axes.labelcolor": INK}):
        scene = figure.add_axes((0.0, 0.02, 0.63, 0.88))
        levels = _draw_scene(scene, surface, pressure, fluid, velocity)
        _colour_bar(figure.add_axes((0.37, 0.075, 0.2, 0.018)), levels)
        _residuals(figure.add_axes((0.69, 0.56, 0.285, 0.33)), curves, by_time=False)
        _residuals(figure.add_axes((0.69, 0.11, 0.285, 0.33)), curves, by_time=True)
        figure.text(0.02, 0.945, title, fontsize=15, weight="bold")
        figure.text(0.02, 0.9, f"{results[0].unknowns:,} unknowns to 1e-6:", fontsize=10.5, color="#5a6875")
        for n, (r, colour) in enumerate(zip(results, COLOURS, strict=True)):
            words = f"{r.name}: {r.iterations} iterations, {r.setup_s + r.solve_s:.2f} s with set-up"
            figure.text(0.165 + 0.24 * n, 0.9, words, fontsize=10.5, color=colour, weight="bold")
        figure.savefig(path, dpi=110, facecolor=PAPER)
    pyplot.close(figure)


def _draw_scene(
    axes: Any, surface: trimesh.Trimesh, pressure: np.ndarray, fluid: np.ndarray, velocity: np.ndarray
) -> tuple[float, float]:
    """Floor, middle plane, obstacle, stream lines. Returns the pressures at the ends of the colour scale."""
    edges = np.array(pressure.shape[::-1]) / max(pressure.shape)
    width, height = PIXELS[0] * SMOOTH, PIXELS[1] * SMOOTH
    camera = render.Camera(tuple(edges * [0.5, 0.42, 0.265]), 26.0, 17.0, 1.12 * edges[0], (width, height))
    filled = render.fill_solids(pressure, fluid)
    middle = filled[:, filled.shape[1] // 2]
    centre = float(np.median(filled[:, :, -max(1, filled.shape[2] // 8) :]))
    reach = float(np.percentile(np.abs(middle - centre), 99))

    def colour(points: np.ndarray) -> np.ndarray:
        return PRESSURE(0.5 + 0.5 * np.clip((render.sample(filled, points) - centre) / reach, -1, 1))[..., :3]

    image = np.ones((height, width, 3))
    depth = np.full((height, width), np.inf)
    low, high = edges * [0, 0.26, 0], edges * [1, 0.5, 0.66]
    for axis, at, fade in ((2, 0.0, 0.45), (1, 0.5 * edges[1], 0.15)):
        plane, points = render.draw_plane(camera, axis, at, low, high)
        visible = plane < depth
        values = render.sample(filled, points[visible])
        image[visible] = _levels(colour, points[visible], values, reach) * (1 - fade) + fade
        depth[visible] = plane[visible]
        if axis == 2:
            _shade(image, visible, points, surface)
    lines = _lines(velocity, edges)
    floor = depth.copy()
    depth, image = _obstacle(camera, surface, colour, depth, image)
    small = image.reshape(PIXELS[1], SMOOTH, PIXELS[0], SMOOTH, 3).mean(axis=(1, 3))
    axes.imshow(small, extent=(0, width, height, 0), interpolation="lanczos")
    _draw_lines(axes, camera, lines, np.minimum(depth, floor))
    axes.set_axis_off()
    return centre - reach, centre + reach


def _levels(colour: Any, points: np.ndarray, values: np.ndarray, reach: float) -> np.ndarray:
    """The colours with thin darker lines of equal pressure."""
    phase = np.abs((values / reach * 8 + 0.5) % 1 - 0.5)
    spread = np.maximum(np.abs(np.gradient(values / reach * 8)), 1e-4)
    line = np.clip(1.2 - phase / np.minimum(spread, 0.08), 0, 1)
    return colour(points) * (1 - 0.22 * line[:, None])


def _shade(image: np.ndarray, visible: np.ndarray, points: np.ndarray, surface: trimesh.Trimesh) -> None:
    """A soft shadow on the floor, under the obstacle."""
    from scipy.ndimage import gaussian_filter

    grid = np.zeros((256, 256))
    dots = surface.triangles_center[:, :2]
    x, y = np.clip((dots * 256).astype(int), 0, 255).T
    height = surface.triangles_center[:, 2]
    np.maximum.at(grid, (y, x), np.exp(-height / 0.12))
    shadow = gaussian_filter(np.maximum(grid, gaussian_filter(grid, 1.5) * 2).clip(0, 1), 2.5)
    index = np.clip((points[visible][:, 1::-1] * 256).astype(int), 0, 255)
    image[visible] *= 1 - 0.45 * shadow[index[:, 0], index[:, 1], None]


def _obstacle(
    camera: render.Camera, surface: trimesh.Trimesh, colour: Any, depth: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The surface, coloured by the pressure on it, lit from the upper left, with its outline."""
    normals = np.asarray(surface.vertex_normals)
    outside = np.asarray(surface.vertices) + 0.012 * normals
    values = np.concatenate([colour(outside), normals], axis=1)
    front, inside = render.draw_surface(camera, np.asarray(surface.vertices), np.asarray(surface.faces), values)
    visible = front < depth
    normal = inside[visible][:, 3:] / np.maximum(np.linalg.norm(inside[visible][:, 3:], axis=1, keepdims=True), 1e-9)
    lit = np.clip(normal @ LIGHT, 0, 1)
    half = LIGHT - camera.axes[2]
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 40
    rim = 1 - np.clip(-(normal @ camera.axes[2]), 0, 1)
    shaded = inside[visible][:, :3] * (0.50 + 0.55 * lit - 0.28 * rim**3)[:, None] + 0.28 * shine[:, None]
    out = image.copy()
    out[visible] = np.clip(shaded, 0, 1)
    edge = np.zeros_like(visible)
    for axis in (0, 1):
        for shift in (1, -1, 2, -2):
            edge |= visible & ~np.roll(visible, shift, axis)
    out[edge] *= 0.35
    return np.where(visible, front, depth), out


def _lines(velocity: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Stream lines in front of the middle plane, from a curtain of seeds upstream."""
    heights = np.linspace(0.03, 0.6, 16) * edges[2]
    across = np.array([0.49, 0.44]) * edges[1]
    z, y = np.meshgrid(heights, across, indexing="ij")
    seeds = np.stack([np.full(z.size, 0.01), y.ravel(), z.ravel()], axis=1)
    return render.stream_lines(velocity, seeds, 0.004, 245)


def _draw_lines(axes: Any, camera: render.Camera, lines: np.ndarray, depth: np.ndarray) -> None:
    """The parts of the lines that nothing hides."""
    on_screen = camera.project(lines)
    height, width = depth.shape
    column, row = (np.clip(on_screen[..., n].astype(int), 0, size - 1) for n, size in ((0, width), (1, height)))
    visible = (on_screen[..., 2] < depth[row, column]) & (lines[..., 0] < 0.985) & (lines[..., 0] >= 0)
    runs = []
    for line, shown in zip(on_screen[..., :2], visible, strict=True):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], shown, [0]])))
        runs += [line[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True) if end - start > 3]
    axes.add_collection(LineCollection(runs, colors=[(*to_rgb(INK), 0.5)], linewidths=0.9, capstyle="round"))


def _colour_bar(axes: Any, levels: tuple[float, float]) -> None:
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=PRESSURE, extent=(*levels, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([levels[0], sum(levels) / 2, levels[1]], ["low", "pressure", "high"], fontsize=9.5, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _residuals(axes: Any, curves: Sequence[Result], by_time: bool) -> None:
    """Relative residual against the iteration, or against the seconds since set-up began."""
    for curve, colour in zip(curves, COLOURS, strict=True):
        seconds, values = np.array(curve.history).T
        x = seconds + curve.setup_s if by_time else np.arange(len(values))
        if by_time:
            axes.plot([0, x[0]], [1, values[0]], color=colour, lw=2.2, ls=(0, (1, 1.2)))
        axes.plot(x, values, color=colour, lw=2.2, marker="o", ms=4.2, label=curve.name)
    axes.set_yscale("log")
    axes.set_ylim(3e-11, 4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=not by_time))
    axes.set_xlabel("seconds, set-up (dotted) included" if by_time else "iterations", fontsize=10)
    axes.set_ylabel("|b - A x| / |b|", fontsize=10)
    axes.grid(True, color="#e3e7ea", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#5a6875", labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not by_time:
        axes.legend(frameon=False, fontsize=10, loc="upper right")
