"""Poisson's equation in curvilinear coordinates: finite volumes, which are symmetric, and the volumes that finite
differences divide their rows by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from petsc4py import PETSc

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Shape = tuple[int, int, int]


def stretched(n: int, ratio: float) -> np.ndarray:
    """Widths of n cells that grow from both ends to the middle, of a line of length 1."""
    h = ratio ** np.minimum(np.arange(n), np.arange(n)[::-1])
    return h / h.sum()


def even(n: int, length: float = 1.0) -> np.ndarray:
    return np.full(n, length / n)


def finite_volumes(
    widths: list[np.ndarray],
    areas: tuple[Metric, Metric, Metric] | None = None,
    volume: Metric | None = None,
    walls: float = 2.0,
) -> tuple[sp.csr_matrix, np.ndarray]:
    """The symmetric matrix, x fastest, and the volumes of the cells.

    widths: of the cells along x, y, z; areas, volume: metric factors at faces across each axis and at centres, which
    come as coordinates that broadcast; walls: 2 for Dirichlet values on all walls, 0 for closed ones
    """
    shape = tuple(len(w) for w in reversed(widths))
    edges = [np.concatenate(([0.0], np.cumsum(w))) for w in widths]
    centres = [(e[1:] + e[:-1]) / 2 for e in edges]

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        return values.reshape([-1 if a == 2 - axis else 1 for a in range(3)])

    def at(axis: int, coordinate: np.ndarray) -> list[np.ndarray]:
        return [along(coordinate if a == axis else centres[a], a) for a in range(3)]

    h = [np.broadcast_to(along(np.asarray(w), a), shape) for a, w in enumerate(widths)]
    cells = h[0] * h[1] * h[2]
    volumes = cells if volume is None else cells * volume(*at(0, centres[0]))
    index = np.arange(volumes.size).reshape(shape)
    rows, columns, values, diagonal = [], [], [], np.zeros(shape)
    for axis in range(3):
        n = shape[2 - axis]
        if n == 1:
            continue

        def cut(part: slice, a: int = axis) -> tuple[slice, ...]:
            return tuple(part if i == 2 - a else slice(None) for i in range(3))

        metric = np.ones([n + 1 if i == 2 - axis else 1 for i in range(3)])
        if areas is not None:
            metric = metric * areas[axis](*at(axis, edges[axis]))
        distance = np.concatenate(([widths[axis][0]], widths[axis][1:] + widths[axis][:-1], [widths[axis][-1]])) / 2
        across = (cells / h[axis])[cut(slice(0, 1))]
        conductance = across * metric / along(distance, axis)
        inner = conductance[cut(slice(1, -1))]
        low, high = index[cut(slice(0, -1))], index[cut(slice(1, None))]
        rows += [low.ravel(), high.ravel()]
        columns += [high.ravel(), low.ravel()]
        values += [-inner.ravel()] * 2
        diagonal[cut(slice(0, -1))] += inner
        diagonal[cut(slice(1, None))] += inner
        for end in (slice(0, 1), slice(-1, None)):
            diagonal[cut(end)] += walls / 2 * conductance[cut(end)]
    rows.append(index.ravel())
    columns.append(index.ravel())
    values.append(diagonal.ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sp.coo_matrix(entries, shape=(index.size,) * 2).tocsr(), volumes.ravel()


def cylinder(nr: int, nz: int, nphi: int = 1, **options: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """r, z and a wedge in phi, from the axis on."""
    areas = (
        lambda r, z, p: r + 0 * z + 0 * p,
        lambda r, z, p: r + 0 * z + 0 * p,
        lambda r, z, p: 1 / r + 0 * z + 0 * p,
    )
    widths = [even(nr), even(nz), even(nphi, 1.5 if nphi > 1 else 1.0)]
    return finite_volumes(widths, areas, lambda r, z, p: r + 0 * z + 0 * p, **options)


def sphere(nr: int, ntheta: int, nphi: int = 1, **options: float) -> tuple[sp.csr_matrix, np.ndarray]:
    """A shell in r, from pole to pole in theta, a wedge in phi."""
    inner = 0.3
    areas = (
        lambda r, t, p: (r + inner) ** 2 * np.sin(t) + 0 * p,
        lambda r, t, p: np.sin(t) + 0 * r + 0 * p,
        lambda r, t, p: 1 / np.sin(t) + 0 * r + 0 * p,
    )
    widths = [even(nr), even(ntheta, np.pi), even(nphi, 1.5 if nphi > 1 else 1.0)]
    return finite_volumes(widths, areas, lambda r, t, p: (r + inner) ** 2 * np.sin(t) + 0 * p, **options)


def divided(S: sp.csr_matrix, d: np.ndarray) -> sp.csr_matrix:
    """The rows of S divided by d."""
    return (sp.diags(1 / d) @ S).tocsr()


def aij(A: sp.csr_matrix, comm: PETSc.Comm = PETSc.COMM_WORLD) -> PETSc.Mat:
    """The matrix with PETSc's even split of the rows."""
    A = A.tocsr()
    A.sort_indices()
    n, size, rank = A.shape[0], comm.getSize(), comm.getRank()
    rows = n // size + (rank < n % size)
    first = rank * (n // size) + min(rank, n % size)
    own = A[first : first + rows]
    csr = own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data
    return PETSc.Mat().createAIJ(((rows, n), (rows, n)), csr=csr, comm=comm)


def vector(A: PETSc.Mat, values: np.ndarray) -> PETSc.Vec:
    """This rank's part of a vector."""
    v = A.createVecRight()
    v.setArray(values[slice(*v.getOwnershipRange())])
    return v


def grid(shape):
    return ",".join(str(n) for n in reversed(shape) if n > 1)


def random_vector(n, seed=1):
    return np.random.default_rng(seed).standard_normal(n)


def error(A, x, b):
    """Against LU."""
    exact = spla.splu(A.tocsc()).solve(b)
    return np.linalg.norm(x.getArray() - exact) / np.linalg.norm(exact)


def divided_by_r(**options):
    S, volume = cylinder(48, 40, **options)
    return (1, 40, 48), S, volume, divided(S, volume)
