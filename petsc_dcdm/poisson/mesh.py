"""Surface meshes: reading them, placing them in the domain, and turning them into solid cells.

Lengths are in domain units: the longest edge of the grid is 1, cells are cubes of edge ``1 / max(shape)``,
and the corner of the grid is the origin. Nothing here communicates: every rank voxelises the cells of its own
box.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson.flags import Box

if TYPE_CHECKING:
    import trimesh

CANDIDATES_PER_CHUNK = 2_000_000  # (triangle, column) pairs tested at a time: bounds the memory at about 200 MB


class MeshError(ValueError):
    """A mesh that cannot be read or encloses no volume; the message is one sentence for the user."""


def load(path: str | Path) -> trimesh.Trimesh:
    """Read a closed surface from an OBJ, STL or PLY file (or whatever else trimesh reads).

    A surface with gaps (scans have them) gets a flat cap, a fan around its centre, on every open boundary loop; their
    number of open edges is then in ``metadata["open_edges"]``, and :func:`gaps` says so.
    Raises MeshError when the file is missing, unreadable or empty, or does not enclose a volume.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise MeshError(f"There is no mesh file {path}.")
    try:
        loaded = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # trimesh raises anything from KeyError to struct.error on a damaged file
        raise MeshError(f"{path} cannot be read as a surface mesh ({type(error).__name__}: {error}).") from error
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise MeshError(f"{path} holds no triangles.")
    if not np.isfinite(loaded.vertices).all():
        raise MeshError(f"{path} has vertices that are not finite numbers.")
    loaded.merge_vertices()
    a, b, c = loaded.faces.T
    loaded.update_faces((a != b) & (b != c) & (c != a))
    if not closed(loaded.faces):
        open_edges = len(_open_edges(loaded.faces))
        loaded = _capped(loaded)
        loaded.metadata["open_edges"] = open_edges
        if not closed(loaded.faces) or abs(loaded.volume) < 1e-9 * loaded.scale**3:
            raise MeshError(
                f"{path} is not watertight ({open_edges} open edges) and encloses no volume when its gaps are closed: "
                "repair it in a mesh editor."
            )
    return loaded


def gaps(mesh: trimesh.Trimesh) -> str:
    """A sentence about the gaps that :func:`load` has closed, empty if there were none."""
    if "open_edges" not in mesh.metadata:
        return ""
    return f"The mesh is not watertight ({mesh.metadata['open_edges']} open edges): its gaps are closed by flat caps."


def closed(faces: np.ndarray) -> bool:
    """Whether every edge of the triangles (n, 3) belongs to an even number of them."""
    return len(_open_edges(faces)) == 0


def _directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _open_edges(faces: np.ndarray) -> np.ndarray:
    """The directed edges (n, 2) of the triangles that an odd number of them share."""
    edges = _directed_edges(np.asarray(faces))
    _, first, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    return edges[first[count % 2 == 1]]


def _capped(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with a fan, oriented as its surroundings, over every connected set of open edges."""
    import trimesh
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = _open_edges(mesh.faces)
    n = len(mesh.vertices)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    loops, loop = np.unique(label[edges[:, 0]], return_inverse=True)
    count = np.bincount(loop)
    centres = np.stack([np.bincount(loop, mesh.vertices[edges[:, 0], a]) / count for a in range(3)], axis=1)
    caps = np.stack([edges[:, 1], edges[:, 0], n + loop], axis=1)
    vertices = np.concatenate([mesh.vertices, centres[: len(loops)]])
    return trimesh.Trimesh(vertices, np.concatenate([mesh.faces, caps]), process=False)


def place(
    mesh: trimesh.Trimesh,
    shape: Shape,
    size: float = 0.5,
    position: tuple[float, float, float] = (0.5, 0.5, 0.5),
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> trimesh.Trimesh:
    """A copy of the mesh in the domain of a grid of ``shape`` (nz, ny, nx).

    rotation: degrees about x, then y, then z. size: longest edge of the rotated bounding box as a fraction of
    the shortest edge of the domain (axes one cell thick do not count). position: where the centre of that
    bounding box lies, as fractions of the domain's edges (x, y, z).
    """
    import trimesh

    if not size > 0:
        raise MeshError(f"The size of a mesh must be positive, not {size}.")
    edges = np.array(shape[::-1]) / max(shape)
    thick = edges[np.array(shape[::-1]) > 1] if max(shape) > 1 else edges
    ax, ay, az = np.radians(rotation)
    turn = trimesh.transformations.euler_matrix(ax, ay, az, "sxyz")[:3, :3]
    vertices = np.asarray(mesh.vertices, float) @ turn.T
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = size * thick.min() / (high - low).max()
    vertices = (vertices - (low + high) / 2) * scale + np.array(position) * edges
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def voxelise(mesh: trimesh.Trimesh, shape: Shape, box: Box) -> np.ndarray:
    """Which cells of ``box`` have their centre inside the closed surface: bool (box.shape), no communication.

    The winding number of the surface is summed along z in every column of cells (parity where the triangles
    are not oriented consistently), so overlapping closed parts are a union. A column that grazes an edge or a
    vertex is
    counted once: every edge decides by itself, from its ends in a fixed order, on which side of it the column
    is, so that the triangles that share it agree to the last bit.
    Cost: proportional to triangles plus covered columns, not to triangles times cells.
    """
    nz, ny, nx = box.shape
    if min(box.shape) == 0:
        return np.zeros(box.shape, bool)
    # Cell units relative to the box: the centre of cell (k, j, i) is at the integers (i, j, k).
    points = np.asarray(mesh.vertices) * max(shape) - 0.5 - np.array(box.offset[::-1])
    faces = np.asarray(mesh.faces)
    jump = np.zeros((nz + 1) * ny * nx, np.int16)
    for column, height, sign in _crossings(points, faces, nx, ny):
        # The first cell whose centre lies above the crossing; what lies above the box changes nothing in it.
        k = np.clip(np.ceil(height), 0, nz).astype(np.int64)
        np.add.at(jump, k * (ny * nx) + column, sign)
    winding = np.cumsum(jump.reshape(nz + 1, ny, nx)[:nz], axis=0, dtype=np.int16)
    return winding != 0 if _oriented(faces) else winding % 2 != 0


def _oriented(faces: np.ndarray) -> bool:
    """Whether every edge is used as often in one direction as in the other."""
    edges = _directed_edges(faces).astype(np.int64)
    n = int(faces.max()) + 1
    return bool(np.array_equal(np.sort(edges[:, 0] * n + edges[:, 1]), np.sort(edges[:, 1] * n + edges[:, 0])))


def _crossings(
    points: np.ndarray, faces: np.ndarray, nx: int, ny: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Where triangles cross the vertical lines through the integers (i, j), 0 <= i < nx, 0 <= j < ny.

    Yields chunks of (column j * nx + i, height of the crossing, winding sign +-1).
    """
    corners = points[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    first = np.maximum(np.ceil(low[:, :2]), 0).astype(np.int64)
    last = np.minimum(np.floor(high[:, :2]), [nx - 1, ny - 1]).astype(np.int64)
    extent = np.maximum(last - first + 1, 0)
    total = extent[:, 0] * extent[:, 1]
    hit = np.flatnonzero(total)
    bounds = np.searchsorted(np.cumsum(total[hit]), np.arange(0, total.sum(), CANDIDATES_PER_CHUNK), side="left")
    for chunk in np.split(hit, np.unique(bounds[1:])):
        if len(chunk) == 0:
            continue
        owner = np.repeat(chunk, total[chunk])
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(total[chunk]) - total[chunk], total[chunk])
        i = first[owner, 0] + rank % extent[owner, 0]
        j = first[owner, 1] + rank // extent[owner, 0]
        sign = np.zeros(len(owner), np.int16)
        for start, end in ((0, 1), (1, 2), (2, 0)):
            sign += _edge_crossing(points, faces[owner, start], faces[owner, end], i, j)
        inside = np.flatnonzero(sign)
        owner, i, j = owner[inside], i[inside], j[inside]
        yield j * nx + i, _height(corners[owner], i, j, low[owner, 2], high[owner, 2]), sign[inside]


def _edge_crossing(points: np.ndarray, a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """+1 or -1 where the ray from (i, j) towards +x crosses the edge a -> b upwards or downwards, else 0."""
    swap = a > b
    p, q = points[np.where(swap, b, a)], points[np.where(swap, a, b)]
    upward = (q[:, 1] > j).astype(np.int16) - (p[:, 1] > j)
    side = (q[:, 0] - p[:, 0]) * (j - p[:, 1]) - (q[:, 1] - p[:, 1]) * (i - p[:, 0])
    # Beyond the ends of the edge no arithmetic is needed; so a triangle never counts outside its bounding
    # box.
    right = np.where(upward > 0, side > 0, side < 0)
    right = (right | (i < np.minimum(p[:, 0], q[:, 0]))) & (i < np.maximum(p[:, 0], q[:, 0]))
    crossing = right * upward
    return np.where(swap, -crossing, crossing).astype(np.int16)


def _height(corner: np.ndarray, i: np.ndarray, j: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Height of the triangles (n, 3, 3) above (i, j); within the triangle even where it is steep."""
    u, v = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    area = np.where(area == 0, np.finfo(float).tiny, area)
    dx, dy = i - corner[:, 0, 0], j - corner[:, 0, 1]
    s = (dx * v[:, 1] - dy * v[:, 0]) / area
    t = (dy * u[:, 0] - dx * u[:, 1]) / area
    z = corner[:, 0, 2] + s * u[:, 2] + t * v[:, 2]
    return np.clip(np.nan_to_num(z, nan=0.0), low, high)
