"""Makes the surface meshes of this folder: all are our own, deterministic, watertight and smaller than 400 KB.

.venv/bin/python meshes/make_meshes.py [FOLDER]

fox.obj        bulky, with ears, legs, a tail and the concavities between them
propeller.ply  thin twisted blades on a hub
knot.stl       a trefoil knot: a tube with a hole through it
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

Field = Callable[[np.ndarray], np.ndarray]  # points (n, 3) -> signed value (n,), negative inside


def surface_net(field: Field, low: np.ndarray, high: np.ndarray, cells: int) -> trimesh.Trimesh:
    """The zero surface of a field: one vertex per grid cell that it crosses, one quad per grid edge (Gibson 1998).

    cells: along the longest edge of the box [low, high], outside of which the field must be positive.
    """
    h = (high - low).max() / cells
    n = np.ceil((high - low) / h).astype(int) + 1
    axes = [low[a] + h * np.arange(n[a]) for a in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = fill_diagonals((field(grid.reshape(-1, 3)) < 0).reshape(n))
    corners = [inside[dx : n[0] - 1 + dx, dy : n[1] - 1 + dy, dz : n[2] - 1 + dz]
               for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)]  # fmt: skip
    count = np.sum(corners, axis=0)
    crossed = (count > 0) & (count < 8)
    number = np.full(crossed.shape, -1)
    number[crossed] = np.arange(crossed.sum())
    quads = []
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        start, end = [slice(None)] * 3, [slice(None)] * 3
        start[a], end[a] = slice(0, -1), slice(1, None)
        cut = inside[tuple(start)] != inside[tuple(end)]
        at = np.argwhere(cut)
        flip = inside[tuple(start)][cut]
        unit = np.eye(3, dtype=int)
        ring = np.stack([number[tuple((at - s).T)] for s in (0 * unit[b], unit[b], unit[b] + unit[c], unit[c])], axis=1)
        quads.append(np.where(flip[:, None], ring, ring[:, ::-1]))
    quad = np.concatenate(quads)
    points = np.argwhere(crossed) * h + low + h / 2
    points = project(field, points, h)
    # Cut every quad along its shorter diagonal.
    p = points[quad]
    short = np.linalg.norm(p[:, 0] - p[:, 2], axis=1) < np.linalg.norm(p[:, 1] - p[:, 3], axis=1)
    faces = np.where(short[:, None], quad[:, [0, 1, 2, 0, 2, 3]], quad[:, [0, 1, 3, 1, 2, 3]]).reshape(-1, 3)
    return trimesh.Trimesh(points, faces, process=False)


def fill_diagonals(inside: np.ndarray) -> np.ndarray:
    """Fill grid faces with two opposite corners inside: there two sheets would share an edge (not a manifold)."""
    while True:
        before = inside.copy()
        for a in range(3):
            view = np.moveaxis(inside, a, 0)
            p, q, r, s = view[:, :-1, :-1], view[:, 1:, 1:], view[:, 1:, :-1], view[:, :-1, 1:]
            bad = (p == q) & (r == s) & (p != r)
            for corner in (p, q, r, s):
                corner |= bad
        if np.array_equal(before, inside):
            return inside


def project(field: Field, points: np.ndarray, h: float, steps: int = 8) -> np.ndarray:
    """Move points onto the zero surface by Newton's method, none farther than 0.9 of a grid cell."""
    start = points.copy()
    for _ in range(steps):
        value, eps = field(points), 1e-4 * h
        slope = np.stack([field(points + eps * e) - field(points - eps * e) for e in np.eye(3)], axis=1) / (2 * eps)
        move = value[:, None] * slope / np.maximum((slope**2).sum(axis=1), 1e-12)[:, None]
        points = points - np.clip(move, -0.5 * h, 0.5 * h)
        points = start + np.clip(points - start, -0.9 * h, 0.9 * h)
    return points


def blend(values: list[np.ndarray], radius: float) -> np.ndarray:
    """Smooth minimum of signed distances: parts grow together over ``radius``."""
    stack = np.stack(values) / -radius
    top = stack.max(axis=0)
    return -radius * (top + np.log(np.exp(stack - top).sum(axis=0)))


def capsule(p: np.ndarray, a: tuple, b: tuple, ra: float, rb: float) -> np.ndarray:
    """Distance to a tapered capsule from a (radius ra) to b (radius rb)."""
    start, axis = np.array(a, float), np.array(b, float) - np.array(a, float)
    t = np.clip(((p - start) @ axis) / (axis @ axis), 0, 1)
    return np.linalg.norm(p - start - t[:, None] * axis, axis=1) - (ra + (rb - ra) * t)


def ellipsoid(p: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """About the distance to an ellipsoid."""
    r = np.array(radii, float)
    q = (p - np.array(centre, float)) / r
    k = np.linalg.norm(q, axis=1)
    return k * (k - 1) / np.maximum(np.linalg.norm(q / r, axis=1), 1e-9)


def fox(p: np.ndarray) -> np.ndarray:
    """A standing fox that looks towards -x; z is up, y is across; about 1.6 long."""
    side = np.stack([p[:, 0], np.abs(p[:, 1]), p[:, 2]], axis=1)  # mirror symmetric
    body = blend(
        [
            ellipsoid(p, (0.05, 0, 0.0), (0.42, 0.2, 0.22)),
            ellipsoid(p, (-0.25, 0, 0.04), (0.2, 0.18, 0.22)),
            capsule(p, (-0.32, 0, 0.1), (-0.46, 0, 0.34), 0.15, 0.13),
            ellipsoid(p, (-0.52, 0, 0.4), (0.19, 0.19, 0.16)),
            capsule(p, (-0.6, 0, 0.37), (-0.8, 0, 0.31), 0.09, 0.045),
            capsule(side, (-0.25, 0.11, -0.05), (-0.28, 0.12, -0.5), 0.1, 0.055),
            capsule(side, (0.3, 0.11, -0.02), (0.36, 0.12, -0.24), 0.13, 0.075),
            capsule(side, (0.36, 0.12, -0.24), (0.31, 0.12, -0.5), 0.075, 0.055),
            ellipsoid(side, (-0.3, 0.12, -0.53), (0.09, 0.06, 0.05)),
            ellipsoid(side, (0.28, 0.12, -0.53), (0.09, 0.06, 0.05)),
            capsule(p, (0.42, 0, 0.06), (0.62, 0, 0.12), 0.07, 0.1),
            capsule(p, (0.62, 0, 0.12), (0.82, 0, 0.34), 0.12, 0.1),
            capsule(p, (0.82, 0, 0.34), (0.87, 0, 0.5), 0.1, 0.03),
        ],
        0.025,
    )
    ears = capsule(side, (-0.48, 0.11, 0.5), (-0.46, 0.17, 0.73), 0.085, 0.018)
    cups = ellipsoid(side, (-0.535, 0.15, 0.6), (0.06, 0.045, 0.1))
    return blend([body, np.maximum(ears, -cups)], 0.012)


def propeller(p: np.ndarray, blades: int = 5) -> np.ndarray:
    """A hub along x and twisted blades of radius 1, 0.07 thick at the root and half of that at the tip."""
    radius = np.hypot(p[:, 1], p[:, 2])
    hub = ellipsoid(p, (-0.06, 0, 0), (0.32, 0.2, 0.2))
    parts = [hub]
    for n in range(blades):
        angle = 2 * np.pi * n / blades
        # Coordinates of the blade: u outwards, v across it, x along the shaft.
        u = np.cos(angle) * p[:, 1] + np.sin(angle) * p[:, 2]
        v = -np.sin(angle) * p[:, 1] + np.cos(angle) * p[:, 2]
        twist = np.radians(62 - 38 * np.clip(u, 0, 1))
        chord = np.cos(twist) * v + np.sin(twist) * p[:, 0]
        height = -np.sin(twist) * v + np.cos(twist) * p[:, 0]
        reach = np.clip((u - 0.56) / 0.44, -1, 1)
        half = 0.27 * np.sqrt(np.clip(1 - reach**2, 0, 1)) * (0.75 + 0.25 * np.clip(u, 0, 1)) + 0.01
        outline = np.maximum(np.abs(chord) - half, radius - 1.0)
        outline = np.maximum(outline, 0.1 - u)
        thick = 0.035 - 0.016 * np.clip(u, 0, 1)
        # Round edges: the distance to a plate of half thickness `thick` minus its rounding.
        rim = np.maximum(outline + thick, 0)
        parts.append(np.hypot(rim, height) - thick)
    return blend(parts, 0.008)


def knot(segments: int = 220, around: int = 16, radius: float = 0.34) -> trimesh.Trimesh:
    """A tube along a trefoil knot, with a frame that closes on itself."""
    t = 2 * np.pi * np.arange(segments) / segments

    def curve(t: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=1)

    eps = 1e-5
    centre = curve(t)
    tangent = curve(t + eps) - curve(t - eps)
    tangent /= np.linalg.norm(tangent, axis=1)[:, None]
    # The vertical direction is never along this curve, so it gives a frame without transport.
    normal = np.cross(tangent, [0.0, 0.0, 1.0])
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    binormal = np.cross(tangent, normal)
    phi = 2 * np.pi * np.arange(around) / around
    ring = np.cos(phi)[None, :, None] * normal[:, None] + np.sin(phi)[None, :, None] * binormal[:, None]
    points = (centre[:, None] + radius * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(segments), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = (a + around) % (segments * around), (b + around) % (segments * around)
    faces = np.stack([a, c, b, b, c, d], axis=-1).reshape(-1, 3)
    mesh = trimesh.Trimesh(points, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    box = np.array([[-1.0, -0.35, -0.7], [1.1, 0.35, 0.85]])
    meshes = {
        "fox.obj": surface_net(fox, *box, cells=74),
        "propeller.ply": surface_net(propeller, np.array([-0.5, -1.1, -1.1]), np.array([0.5, 1.1, 1.1]), cells=82),
        "knot.stl": knot(),
    }
    for name, mesh in meshes.items():
        if not (mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0):
            raise SystemExit(f"{name} is not a watertight surface that is oriented outwards.")
        if name.endswith(".obj"):
            lines = ["# a fox of implicit balls, made by make_meshes.py"]
            lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.vertices]
            lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
            (folder / name).write_text("\n".join(lines) + "\n")
        else:
            mesh.export(folder / name)
        size = (folder / name).stat().st_size
        print(f"{name}: {len(mesh.faces)} triangles, genus {1 - mesh.euler_number // 2}, {size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
