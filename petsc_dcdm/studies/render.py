"""A small picture maker in numpy: a surface, planes of a field and stream lines, from_camera from afar.

Orthographic projection and a depth buffer, so that what is behind something is hidden; nothing else is needed to show
a flow, and matplotlib's 3D plots cannot hide. Positions are in the domain's units, fields (nz, ny, nx) hold cell
values of a grid of cubes whose longest edge is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import map_coordinates


@dataclass
class Camera:
    """Looks at ``target`` along azimuth and elevation (degrees; azimuth 0 looks towards +y); ``width`` fills the image.

    pixels: (width, height) of the image.
    """

    target: tuple[float, float, float]
    azimuth: float
    elevation: float
    width: float
    pixels: tuple[int, int]
    axes: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        az, el = np.radians([self.azimuth, self.elevation])
        ahead = np.array([np.sin(az) * np.cos(el), np.cos(az) * np.cos(el), -np.sin(el)])
        right = np.array([np.cos(az), -np.sin(az), 0.0])
        self.axes = np.stack([right, np.cross(right, ahead), ahead])

    @property
    def scale(self) -> float:
        """Pixels per unit of length."""
        return self.pixels[0] / self.width

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) to (column, row, depth) in pixels, pixels and lengths; row 0 is the top."""
        from_camera = (points - np.array(self.target)) @ self.axes.T
        column = from_camera[..., 0] * self.scale + self.pixels[0] / 2
        row = self.pixels[1] / 2 - from_camera[..., 1] * self.scale
        return np.stack([column, row, from_camera[..., 2]], axis=-1)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Start (height, width, 3), at depth 0, of the ray through every pixel, and the common direction."""
        width, height = self.pixels
        x = (np.arange(width) + 0.5 - width / 2) / self.scale
        y = (height / 2 - np.arange(height) - 0.5) / self.scale
        start = x[None, :, None] * self.axes[0] + y[:, None, None] * self.axes[1] + np.array(self.target)
        return start, self.axes[2]


def draw_surface(
    camera: Camera, vertices: np.ndarray, faces: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(depth (height, width), values interpolated to the pixels (height, width, n)); depth inf where there is none.

    values: (vertices, n), anything per vertex: colours, normals.
    """
    width, height = camera.pixels
    corner = camera.project(vertices)[faces]
    first = np.clip(np.ceil(corner[..., :2].min(axis=1) - 0.5), 0, [width, height]).astype(int)
    last = np.clip(np.floor(corner[..., :2].max(axis=1) - 0.5), -1, [width - 1, height - 1]).astype(int)
    extent = np.maximum(last - first + 1, 0)
    total = extent.prod(axis=1)
    owner = np.repeat(np.arange(len(faces)), total)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(total) - total, total)
    column = first[owner, 0] + rank % np.maximum(extent[owner, 0], 1)
    row = first[owner, 1] + rank // np.maximum(extent[owner, 0], 1)
    a, b, c = (corner[owner, n] for n in range(3))
    u, v = b - a, c - a
    x, y = column + 0.5 - a[:, 0], row + 0.5 - a[:, 1]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    area = np.where(area == 0, np.inf, area)
    s, t = (x * v[:, 1] - y * v[:, 0]) / area, (u[:, 0] * y - u[:, 1] * x) / area
    hit = np.flatnonzero((s >= 0) & (t >= 0) & (s + t <= 1) & np.isfinite(area))
    owner, s, t = owner[hit], s[hit], t[hit]
    pixel = row[hit] * width + column[hit]
    z = a[hit, 2] + s * u[hit, 2] + t * v[hit, 2]
    nearest = np.lexsort((z, pixel))
    pixel, where = np.unique(pixel[nearest], return_index=True)
    chosen = nearest[where]
    depth = np.full(width * height, np.inf)
    depth[pixel] = z[chosen]
    image = np.zeros((width * height, values.shape[1]))
    p, q, r = (values[faces[owner[chosen], n]] for n in range(3))
    s, t = s[chosen, None], t[chosen, None]
    image[pixel] = p * (1 - s - t) + q * s + r * t
    return depth.reshape(height, width), image.reshape(height, width, -1)


def draw_plane(
    camera: Camera, axis: int, at: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(depth (height, width), points (height, width, 3)) of the part within [low, high] of the plane x_axis = at."""
    start, ahead = camera.rays()
    depth = (at - start[..., axis]) / ahead[axis]
    points = start + depth[..., None] * ahead
    others = [n for n in range(3) if n != axis]
    inside = ((points >= low) & (points <= high))[..., others].all(axis=-1)
    return np.where(inside, depth, np.inf), points


def sample(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Cell values (nz, ny, nx) at points (..., 3), linear between the centres, constant beyond the outermost."""
    index = points[..., ::-1] * max(values.shape[:3]) - 0.5
    return map_coordinates(values, np.moveaxis(index, -1, 0), order=1, mode="nearest")


def fill_solids(values: np.ndarray, fluid: np.ndarray) -> np.ndarray:
    """The field with the value of the nearest fluid cell in the others, so that it can be sampled at the surface."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~fluid, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def stream_lines(velocity: np.ndarray, seeds: np.ndarray, step: float, count: int) -> np.ndarray:
    """Lines (seeds, count, 3) of steps of equal length along a velocity (nz, ny, nx, 3), by the midpoint rule."""

    def direction(points: np.ndarray) -> np.ndarray:
        u = np.stack([sample(velocity[..., a], points) for a in range(3)], axis=-1)
        return u / np.maximum(np.linalg.norm(u, axis=-1, keepdims=True), 1e-9)

    lines = [seeds]
    for _ in range(count - 1):
        p = lines[-1]
        lines.append(p + step * direction(p + 0.5 * step * direction(p)))
    return np.stack(lines, axis=1)
