"""Fast diagonalisation of a coarsest level: the same iterations and answer on ranks as on one."""

from __future__ import annotations

import numpy as np
from check_node import compare
from petsc4py import PETSc
from systems import conductances, matrix, relative_residual, right_hand_side, solve

from petsc_dcdm.solver.coarse.separable import SeparableCoarseSolver

RANKS = (4,)
SHAPE = (20, 22, 26)


def widths():
    """Cells that grow twofold from all sides, of which no axis is the strong one of most; sides closed but for x+."""
    z, y, x = np.ix_(*(2.0 ** np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in SHAPE))
    w, s = conductances(SHAPE, walls=0.0)
    for axis, k in enumerate((y * z / x, x * z / y, x * y / z)):
        inner, before = ((slice(None),) * (2 - axis) + (part,) for part in (slice(1, None), slice(None, -1)))
        k = np.broadcast_to(k, SHAPE)
        w[axis][inner] = 2 * k[inner] * k[before] / (k[inner] + k[before])
    s[..., -1] = 2.0 * np.broadcast_to(y * z, SHAPE)[..., -1]
    return w, s


def solved(w, s, kind):
    grid = ",".join(str(n) for n in SHAPE[::-1])
    its = []
    for comm in (PETSc.COMM_SELF, PETSc.COMM_WORLD):
        for box in ("rank", "auto"):
            A = matrix(w, s, comm=comm)
            b = right_hand_side(A)
            ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid=grid, pc_dcdm_box=box, pc_dcdm_net="none")
            assert relative_residual(A, x, b) <= 1.1e-8
            assert (type(ksp.getPC().getPythonContext()._coarse) is SeparableCoarseSolver) == kind
            its.append(ksp.getIterationNumber())
    assert max(its) - min(its) <= 1, its
    return its


def test_a_stretched_grid():
    assert max(solved(*widths(), True)) <= 4


def test_one_face_of_one_rank_makes_it_another_medium():
    w, s = widths()
    w[0][3, 4, 5] *= 10.0
    solved(w, s, False)


def test_the_box_of_a_node():
    assert compare(*widths(), pc_dcdm_net="none") == SeparableCoarseSolver.name
