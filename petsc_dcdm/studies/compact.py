"""Compact 9- and 27-point stencils against AMG, and how far it goes: ``python -m petsc_dcdm.studies.compact``.

The table against AMG: all solvers in turn, so many times, and the least set-up and solve of each. The others take the
limits of :mod:`petsc_dcdm.stencil.forms.nearest` away and show what becomes of iterations and time beyond them. One
rank; seconds are those of the processor, of all threads (OMP_NUM_THREADS=1 for one), which say the same on a machine
that others work on. Needs scipy.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

from petsc_dcdm.compare.baselines import AMG, BASELINES
from petsc_dcdm.solver import sweeps
from petsc_dcdm.stencil.forms import nearest

PREFIX = "compact_"


def elements(
    cells: tuple[int, ...],
    coefficient: np.ndarray | float = 1.0,
    size: tuple[float, ...] = (1.0, 1.0, 1.0),
    shear: float = 0.0,
) -> Any:
    """Stiffness matrix of Q1 elements on all nodes, x fastest: Gauss points, element by element.

    Parameters
    ----------
    cells
        (z, y, x) or (y, x)
    coefficient
        of every cell, an array of that shape or a number
    size
        of a cell along x, y, z
    shear
        x moves by so much of the height with y: parallelograms

    Returns a scipy CSR matrix.
    """
    dim, n = len(cells), cells[::-1]
    corners = [corner[::-1] for corner in itertools.product((0, 1), repeat=dim)]
    jacobian = np.diag(np.array(size[:dim], float) / 2)
    jacobian[0, 1] = shear * size[1] / 2
    inverse = np.linalg.inv(jacobian)
    own = np.zeros((2**dim, 2**dim))
    for point in itertools.product((-(3**-0.5), 3**-0.5), repeat=dim):
        slopes = np.empty((2**dim, dim))
        for c, corner in enumerate(corners):
            shape = [(1 + (2 * side - 1) * at) / 2 for side, at in zip(corner, point, strict=True)]
            for d in range(dim):
                slopes[c, d] = (2 * corner[d] - 1) / 2 * np.prod(shape[:d] + shape[d + 1 :])
        along = slopes @ inverse
        own += along @ along.T * np.linalg.det(jacobian)
    node = np.arange(np.prod([m + 1 for m in n])).reshape([m + 1 for m in cells])
    places = [tuple(slice(side, side + m) for side, m in zip(corner[::-1], cells, strict=True)) for corner in corners]
    number = np.array([node[place].ravel() for place in places])
    rows = np.repeat(number[:, None, :], 2**dim, axis=1)
    values = own[:, :, None] * np.broadcast_to(coefficient, cells).ravel()
    A = sp.coo_matrix((values.ravel(), (rows.ravel(), rows.transpose(1, 0, 2).ravel())), (node.size, node.size))
    return A.tocsr()


def sides(cells: tuple[int, ...]) -> np.ndarray:
    """bool, of every node: on a side of the grid."""
    inner = np.zeros([n + 1 for n in cells], bool)
    inner[(slice(1, -1),) * len(cells)] = True
    return ~inner.ravel()


def eliminated(A: Any, fixed: np.ndarray) -> Any:
    """Without the fixed rows and columns."""
    free = np.flatnonzero(~fixed)
    return A[free][:, free].tocsr()


def mehrstellen(n: int, dim: int) -> Any:
    """The compact operators of fourth order, 9 points in 2D and 19 in 3D, all sides fixed."""
    one, both = sp.identity(n), sp.diags([np.ones(n - 1)] * 2, [-1, 1])
    if dim == 2:
        faces = sp.kron(one, both) + sp.kron(both, one)
        return (20 * sp.identity(n**2) - 4 * faces - sp.kron(both, both)).tocsr() / 6
    line = (sp.kron(one, sp.kron(one, both)), sp.kron(one, sp.kron(both, one)), sp.kron(both, sp.kron(one, one)))
    edges = sp.kron(one, sp.kron(both, both)) + sp.kron(both, sp.kron(one, both)) + sp.kron(both, sp.kron(both, one))
    return (24 * sp.identity(n**3) - 2 * sum(line) - edges).tocsr() / 6


def with_signs(A: Any, share: float) -> Any:
    """That share of the couplings with the other sign, the diagonal as before."""
    upper = sp.triu(A, 1).tocoo()
    upper.data = np.where(np.random.default_rng(1).random(upper.nnz) < share, -upper.data, upper.data)
    return (upper + upper.T + sp.diags(A.diagonal())).tocsr()


def five_points(n: int) -> Any:
    """The usual Laplacian of n x n unknowns, all sides fixed."""
    line = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1])
    return (sp.kron(line, sp.identity(n)) + sp.kron(sp.identity(n), line)).tocsr()


def run(A: PETSc.Mat, name: str, b: PETSc.Vec, rtol: float) -> tuple[int, float, float, int]:
    """Iterations, processor seconds of set-up and of the solve, and the converged reason of a solver by its name."""
    options = PETSc.Options()
    options.prefixPush(PREFIX)
    options.insertString(BASELINES[name].on(1, 1))
    options.prefixPop()
    ksp = PETSc.KSP().create()
    ksp.setOptionsPrefix(PREFIX)
    ksp.setOperators(A)
    ksp.setTolerances(rtol=rtol, max_it=500)
    ksp.setFromOptions()
    x = b.duplicate()
    begin = time.process_time()
    ksp.setUp()
    ksp.getPC().setUp()
    ready = time.process_time()
    ksp.solve(b, x)
    end = time.process_time()
    found = ksp.getIterationNumber(), ready - begin, end - ready, int(ksp.getConvergedReason())
    for part in (ksp, x):
        part.destroy()
    for option in options.getAll():
        if option.startswith(PREFIX):
            options.delValue(option)
    return found


def best(A: PETSc.Mat, names: tuple[str, ...], b: PETSc.Vec, rtol: float, runs: int) -> dict[str, tuple[float, ...]]:
    """Of each solver, all in turn ``runs`` times: iterations, least set-up, least solve, reason."""
    found: dict[str, list[tuple[int, float, float, int]]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            found[name].append(run(A, name, b, rtol))
    return {
        name: (these[0][0], min(t[1] for t in these), min(t[2] for t in these), these[0][3])
        for name, these in found.items()
    }


def rhs(A: PETSc.Mat, kind: str) -> PETSc.Vec:
    b = A.createVecLeft()
    b.setArray(np.random.default_rng(0).standard_normal(b.getSize()) if kind == "random" else np.ones(b.getSize()))
    return b


def to_petsc(A: Any) -> PETSc.Mat:
    A.sort_indices()
    integers = A.indptr.astype(PETSc.IntType), A.indices.astype(PETSc.IntType)
    return PETSc.Mat().createAIJ(A.shape, csr=(*integers, A.data))


def against_amg(n: int, rtol: float, runs: int) -> None:
    A = to_petsc(eliminated(elements((n + 1,) * 3), sides((n + 1,) * 3)))
    print(f"\n27-point trilinear elements, {n}^3 unknowns, rtol {rtol:g}, seconds\n")
    print("| solver | right-hand side | iterations | set-up | solve | total |\n| --- | --- | --- | --- | --- | --- |")
    for kind in ("random", "smooth"):
        for name, (its, ready, solve, reason) in best(A, ("dcdm", *AMG), rhs(A, kind), rtol, runs).items():
            text = its if reason > 0 else f"failed ({reason})"
            print(f"| {name} | {kind} | {text} | {ready:.3f} | {solve:.3f} | {ready + solve:.3f} |", flush=True)


def sweep_counts(n: int, rtol: float, runs: int) -> None:
    A = to_petsc(eliminated(elements((n + 1,) * 3), sides((n + 1,) * 3)))
    b, usual = rhs(A, "random"), sweeps.SWEEPS
    print(f"\nSweeps before and after the network, {n}^3\n")
    print("| sweeps | iterations | solve |\n| --- | --- | --- |")
    found: dict[int, list[tuple[int, float, float, int]]] = {count: [] for count in (1, 2, 3, 4)}
    for _, count in itertools.product(range(runs), found):
        sweeps.SWEEPS = count
        found[count].append(run(A, "dcdm", b, rtol))
    sweeps.SWEEPS = usual
    for count, these in found.items():
        print(f"| {count} | {these[0][0]} | {min(t[2] for t in these):.3f} |", flush=True)


def far_systems(flat: int, solid: int) -> Iterator[tuple[str, Any]]:
    for cells in ((flat, flat), (solid,) * 3):
        dim, fixed = len(cells), sides(cells)
        for aspect in (1, 3, 10):
            yield f"{dim}D, cells {aspect} : 1", eliminated(elements(cells, size=(aspect, 1.0, 1.0)), fixed)
        for shear in (0.2, 0.5, 1.0, 1.5, 2.0):
            yield f"{dim}D, shear {shear:g}", eliminated(elements(cells, shear=shear), fixed)
        for spread in (0.5, 1.0):
            k = 10 ** (spread * np.random.default_rng(0).standard_normal(cells))
            yield f"{dim}D, k = 10^({spread:g} normal)", eliminated(elements(cells, k), fixed)
    for share in (0.01, 0.1, 0.2):
        yield f"5 points, {share:.0%} of the couplings positive", with_signs(five_points(flat), share)
    lowest = 2 * (math.pi / (flat + 1)) ** 2
    for part in (0.3, 0.9, 1.4, 3.0):
        yield (
            f"5 points - {part:g} lowest eigenvalue",
            (five_points(flat) - part * lowest * sp.identity(flat**2)).tocsr(),
        )


def how_far(cells: tuple[int, int], rtol: float, runs: int) -> None:
    nearest._refuse_far = lambda *_: None
    names = ("dcdm", "boomeramg", "gamg", "ml")
    print(f"\nWithout limits, random b, {cells[0]}^2 and {cells[1]}^3 cells, iterations and total in seconds\n")
    print(f"| system | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for title, matrix in far_systems(*cells):
        A = to_petsc(matrix)
        found = best(A, names, rhs(A, "random"), rtol, runs)
        texts = [f"{its} {a + b:.3f}" if reason > 0 else "fails" for its, a, b, reason in found.values()]
        print(f"| {title} | {' | '.join(texts)} |", flush=True)
        A.destroy()


def main(argv: list[str]) -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.compact", description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="unknowns along each axis, against AMG (default 64)")
    parser.add_argument("--far", type=int, nargs=2, default=(192, 40), help="cells in 2D and 3D, beyond the limits")
    parser.add_argument("--rtol", type=float, default=1e-6)
    parser.add_argument("--runs", type=int, default=5, help="of which the least counts (default 5)")
    args = parser.parse_args(argv)
    run(to_petsc(mehrstellen(8, 3)), "dcdm", rhs(to_petsc(mehrstellen(8, 3)), "random"), 1e-6)  # compiled once
    against_amg(args.size, args.rtol, args.runs)
    sweep_counts(args.size, args.rtol, args.runs)
    how_far((args.far[0], args.far[1]), args.rtol, min(args.runs, 2))


if __name__ == "__main__":
    main(sys.argv[1:])
