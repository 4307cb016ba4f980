"""Rows that were scaled one by one: a matrix A = D S, D a positive diagonal and S symmetric. D is found here.

Finite differences on stretched, cylindrical and spherical grids are of this form, and rows divided by areas, volumes or
time steps. d_j / d_i = a_ji / a_ij along a spanning tree of the coupled rows; that all other couplings agree is the
test of symmetry that S has to pass like any matrix (:mod:`petsc_dcdm.stencil.system`).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from petsc_dcdm.grid.reductions import over_all
from petsc_dcdm.native.build import KernelsUnavailable, library
from petsc_dcdm.native.memory import address_of, aligned_zeros
from petsc_dcdm.stencil.local_csr import LocalRows, local_csr

SAMPLES = 64
"""Rows of a rank that are looked at to guess whether the rows were scaled."""


@dataclass(frozen=True)
class RowFactors:
    """The diagonal of D.

    Attributes
    ----------
    values
        float64 [local rows], positive; 1 in rows that are coupled to none, or turn out to be fixed. Among rows that are
        coupled their geometric mean is between 1/2 and 2
    spread
        the largest over the smallest, on all ranks
    """

    values: np.ndarray
    spread: float

    def divide(self, v: PETSc.Vec) -> None:
        """v = D^-1 v."""
        with v as values:
            values /= self.values

    def multiply(self, v: PETSc.Vec) -> None:
        """v = D v."""
        with v as values:
            values *= self.values

    def null_vector(self, like: PETSc.Vec) -> PETSc.Vec:
        """D^-1 1, a new vector: what A' takes to zero where S takes constants to zero."""
        ones = like.duplicate()
        ones.set(1.0)
        self.divide(ones)
        return ones

    def divided(self, local: LocalRows, threads: int) -> LocalRows:
        """The rows of S, with values of their own."""
        values = _divided(local.indptr, local.values, self.values, threads)
        if local.other is None:
            return local._replace(values=values)
        indptr, indices, others, columns = local.other
        others = _divided(indptr, others, self.values, threads)
        return local._replace(values=values, other=(indptr, indices, others, columns))


def weighted_square(weight: np.ndarray, v: np.ndarray, threads: int) -> float:
    """The sum of (weight v)^2 where weight is not 0; float64, C-contiguous, of one shape."""
    sums = np.zeros(threads)
    library().dcdm_weighted_squares(
        ctypes.c_int64(v.size), *(ctypes.c_void_p(address_of(a)) for a in (weight, v, sums)), threads
    )
    return float(sums.sum())


def looks_scaled(A: PETSc.Mat, tolerance: float) -> bool:
    """Whether a few couplings of an AIJ matrix are not the same from both sides, relative to the larger: False proves
    nothing. Collective.
    """
    differ = False
    c = _kernels()
    if c is not None:
        with local_csr(A) as local:
            rows = _Rows(A, local)
            differ = bool(c.dcdm_rows_differ(*rows.arguments, ctypes.c_int64(SAMPLES), ctypes.c_double(tolerance)))
    return bool(over_all(A.getComm().tompi4py(), differ, op=MPI.LOR))


def find_row_factors(A: PETSc.Mat) -> RowFactors | None:
    """D of an AIJ matrix that may be D S; None where the couplings along the tree give none that double precision
    holds. Collective.
    """
    comm = A.getComm().tompi4py()
    with local_csr(A) as local:
        rows = _Rows(A, local)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            d, label, count, exponents = rows.components()
            if comm.Get_size() > 1:
                factor, exponents, count = _joined(A, rows.interface(d, label), exponents, count)
            else:
                factor = np.ones(count.size)
            factor *= np.exp2(-np.rint(exponents / np.maximum(count, 1)))
            if factor.size == 1:
                d *= factor[0]
            elif (factor != 1.0).any():
                d *= factor[label]
    ends = np.empty(2)
    comm.Allreduce(np.array([d.max(initial=0.0), -d.min(initial=np.inf)]), ends, op=MPI.MAX)
    largest, least = ends[0], -ends[1]
    return RowFactors(d, float(largest / least)) if 0 < least and largest < np.inf else None  # NaN: neither


def _kernels() -> ctypes.CDLL | None:
    try:
        c = library()
    except KernelsUnavailable:
        return None
    c.dcdm_row_factors.restype = ctypes.c_int64
    return c


def _divided(indptr: np.ndarray, values: np.ndarray, d: np.ndarray, threads: int) -> np.ndarray:
    c = _kernels()
    if c is None:
        return values / np.repeat(d, np.diff(indptr))
    out = aligned_zeros(values.size, np.float64)
    c.dcdm_divide_rows(
        ctypes.c_int64(d.size),
        *(ctypes.c_void_p(address_of(a)) for a in (indptr, values)),
        int(indptr.dtype == np.int64),
        *(ctypes.c_void_p(address_of(a)) for a in (d, out)),
        threads,
    )
    return out


class _Rows:
    """The local rows of a matrix and what they are coupled to."""

    def __init__(self, A: PETSc.Mat, local: LocalRows) -> None:
        self.first, last = A.getOwnershipRange()
        self.rows, self._local = last - self.first, local
        self._shift = 0 if local.other is not None else self.first

    @property
    def arguments(self) -> tuple[ctypes.c_int64 | ctypes.c_void_p | int, ...]:
        local = self._local
        arrays = map(ctypes.c_void_p, map(address_of, (local.indptr, local.indices, local.values)))
        return ctypes.c_int64(self.rows), ctypes.c_int64(self._shift), *arrays, int(local.indptr.dtype == np.int64)

    def components(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the couplings among the local rows: d and the number of the component, for each row; for each component
        the number of its rows, and the sum of the binary exponents of their d.
        """
        c = _kernels()
        if c is None:
            return self._components_in_numpy()
        d, label, count, exponents = (np.empty(self.rows, kind) for kind in (float, np.int64, np.int64, float))
        arrays = (ctypes.c_void_p(address_of(a)) for a in (d, label, count, exponents))
        found = int(c.dcdm_row_factors(*self.arguments, *arrays))
        return d, label, count[:found].astype(float), exponents[:found]

    def _components_in_numpy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        row, column, value = self._entries()
        column = column - self.first
        inside = (column >= 0) & (column < self.rows)
        row, column, value = row[inside], column[inside], value[inside]
        low, high = column < row, column > row
        at, back = _matching(row[low], column[low], column[high], row[high])
        ratio = value[low][at] / value[high][back]
        usable = ratio > 0
        i, j = row[low][at][usable], column[low][at][usable]
        d, label = spanning_forest(self.rows, i, j, ratio[usable])
        _, label = np.unique(label, return_inverse=True)
        count = np.bincount(label)
        return d, label, count.astype(float), np.bincount(label, weights=np.frexp(d)[1] - 1.0)

    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row (local), column (global) and value of what is in the first block, where it is not 0."""
        local = self._local
        row = np.repeat(np.arange(self.rows), np.diff(local.indptr))
        some = local.values != 0
        return row[some], local.indices[some] + (self.first - self._shift), local.values[some]

    def interface(self, d: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of the couplings to rows of other ranks: row and column (global), value divided by d, component."""
        if self._local.other is None:
            row, column, value = self._entries()
            outside = (column < self.first) | (column >= self.first + self.rows)
            row, column, value = row[outside], column[outside], value[outside]
        else:
            indptr, indices, value, columns = self._local.other
            row = np.repeat(np.arange(self.rows), np.diff(indptr))
            some = value != 0
            row, column, value = row[some], columns[indices[some]], value[some]
        return row + self.first, column.astype(np.int64), value / d[row], label[row]


def _joined(
    A: PETSc.Mat, interface: tuple[np.ndarray, ...], exponents: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the d of each local component are to be multiplied by so that couplings between ranks agree as well, along a
    spanning tree; with it, of the whole components that they then are part of, the sum of exponents and the number of
    rows. Collective.
    """
    comm = A.getComm().tompi4py()
    row, column, scaled, component = interface
    ranges = np.asarray(A.getOwnershipRanges(), np.int64)
    name = component + sum(comm.allgather(count.size)[: comm.Get_rank()])
    owner = np.searchsorted(ranges, column, side="right") - 1
    parts = [np.flatnonzero(owner == rank) for rank in range(comm.Get_size())]
    received = comm.alltoall([(row[p], column[p], scaled[p], name[p]) for p in parts])
    their_row, their_column, their_scaled, their_name = (np.concatenate(a) for a in zip(*received, strict=True))
    at, back = _matching(row, column, their_column, their_row)
    ratio = scaled[at] / their_scaled[back]
    mine, theirs = name[at], their_name[back]
    use = (ratio > 0) & np.isfinite(ratio) & (mine > theirs)  # the other rank has the rest
    _, first = np.unique(np.stack([mine[use], theirs[use]]), axis=1, return_index=True)
    edges = mine[use][first], theirs[use][first], ratio[use][first]
    touching, where = np.unique(component, return_index=True)
    known = name[where], exponents[touching], count[touching]
    everyones = comm.allgather((edges, known))
    i, j, ratio = (np.concatenate([e[k] for e, _ in everyones]) for k in range(3))
    names, sums, counts = (np.concatenate([k[m] for _, k in everyones]) for m in range(3))
    # names rise from rank to rank and within each: a component is its place among them
    i, j = np.searchsorted(names, i), np.searchsorted(names, j)
    f, whole = spanning_forest(names.size, i, j, ratio)
    with_f = np.bincount(whole, weights=sums + counts * np.log2(f), minlength=names.size)
    rows = np.bincount(whole, weights=counts, minlength=names.size)
    factor, exponents, count = np.ones(count.size), exponents.copy(), count.copy()
    here = np.searchsorted(names, name[where])
    # the mean exponent, before a component's own factor
    factor[touching] = f[here]
    exponents[touching], count[touching] = with_f[whole[here]], rows[whole[here]]
    return factor, exponents, count


def _matching(i: np.ndarray, j: np.ndarray, k: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pairs (i, j) are among the pairs (k, m), which do not repeat: places in the first, in the second."""
    order = np.lexsort((m, k))
    stride = int(max((a.max(initial=0) for a in (j, m)), default=0)) + 1
    keys, wanted = (k * stride + m)[order], i * stride + j
    at = np.minimum(np.searchsorted(keys, wanted), max(keys.size - 1, 0))
    found = np.flatnonzero(keys[at] == wanted) if keys.size else np.zeros(0, np.int64)
    return found, order[at[found]]


def spanning_forest(n: int, i: np.ndarray, j: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d [n] with d_i / d_j = ratio along trees of the edges (i, j), i > j, and 1 at their roots; and the root of each
    node, the lowest that it is connected with.
    """
    d, root = np.ones(n), np.arange(n)
    while i.size:
        child, at = np.unique(i, return_index=True)
        above, up = np.arange(n), np.ones(n)
        above[child], up[child] = j[at], ratio[at]
        while (above[above] != above).any():
            up *= up[above]
            above = above[above]
        d *= up[root]
        root = above[root]
        ratio = ratio * up[j] / up[i]
        i, j = above[i], above[j]
        apart = i != j
        i, j, ratio = i[apart], j[apart], ratio[apart]
        swap = i < j
        i, j, ratio = np.where(swap, j, i), np.where(swap, i, j), np.where(swap, 1 / ratio, ratio)
    return d, root
