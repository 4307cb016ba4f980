"""Fast diagonalisation: which media are products of functions of x, y and z, and whether they are solved."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, relative_residual, right_hand_side, solve

from petsc_dcdm.backends.cpu.separable import SeparableSolver, _eigen
from petsc_dcdm.backends.cpu.separable_fit import Factors, factors_of
from petsc_dcdm.solver.coarse.parts import PartsCoarseSolver
from petsc_dcdm.solver.coarse.separable import SeparableCoarseSolver


def stretched(shape, growth=1.3, walls=1.0, time=0.0):
    """Cells whose widths grow from all sides, between sides of a fixed value; ``time``: a multiple of their volumes."""
    at = [np.arange(n) for n in shape]
    z, y, x = np.ix_(*(growth ** np.minimum(i, n - 1 - i) for i, n in zip(at, shape, strict=True)))
    if shape[0] == 1:
        z = np.ones((1, 1, 1))
    k = [np.broadcast_to(face, shape) for face in (y * z / x, x * z / y, x * y / z)]
    w, s = [], time * x * y * z
    for axis, face in enumerate(k):
        low = np.zeros(shape)
        if shape[2 - axis] > 1:
            inner, before = ((slice(None),) * (2 - axis) + (part,) for part in (slice(1, None), slice(None, -1)))
            low[inner] = 2 * face[inner] * face[before] / (face[inner] + face[before])
            for side in (0, -1):
                s = s + walls * 2 * face * (np.arange(shape[2 - axis]) == np.arange(shape[2 - axis])[side]).reshape(
                    [-1 if i == 2 - axis else 1 for i in range(3)]
                )
        w.append(low)
    return w, s


def inverse_of(w, s, threads=2):
    factors = factors_of(w, s)
    assert factors is not None
    solver = SeparableSolver(factors, threads)

    def solved(r):
        x = np.empty(s.shape, np.float32)
        solver.solve(r.astype(np.float32).reshape(s.shape), x)
        return x.astype(float)

    return solved


@pytest.mark.parametrize("shape", [(9, 13, 17), (1, 70, 66), (5, 1, 129), (64, 3, 4)])
def test_the_inverse_of_a_product_is_exact_but_for_single_precision(shape):
    for arguments in ({}, {"growth": 1.05, "walls": 0.0, "time": 0.1}):
        w, s = stretched(shape, **arguments)
        A = matrix(w, s)
        b = right_hand_side(A)
        x = b.duplicate()
        x.setArray(inverse_of(w, s)(b.getArray()).ravel())
        assert relative_residual(A, x, b) <= 3e-5


def test_the_constant_of_a_closed_box_is_left_out():
    w, s = stretched((6, 12, 20), walls=0.0)
    r = np.random.default_rng(1).standard_normal(s.shape)
    solved = inverse_of(w, s)
    x, with_constant = solved(r - r.mean()), solved(r)
    assert np.isfinite(with_constant).all() and np.abs(x).max() < 1e3
    A = matrix(w, s)
    b, y = A.createVecs()
    b.setArray((r - r.mean()).ravel()), y.setArray(x.ravel())
    assert relative_residual(A, y, b) <= 1e-4


def test_small_eigenvalues_are_accurate_beside_large_ones():
    """Widths of 1 : 10^7, in 128 cells, as 30 digits have them: the inverse's trace by elimination."""
    n, growth = 128, 10 ** (7 / 63)
    m = growth ** np.minimum(np.arange(n), n - 1 - np.arange(n)).astype(float)
    m /= m.max()
    a = np.append(0.0, 2 / (m[1:] + m[:-1]))
    s = np.zeros(n)
    s[[0, -1]] = 2 / m[[0, -1]]
    values, vectors = _eigen(Factors(m, a, s))
    assert values[-1] > 1e14 * values[0]
    assert np.abs(vectors.T @ vectors - np.eye(n)).max() < 1e-12
    # Resistances to both ends give the diagonal of the inverse: no differences are taken.
    low = np.cumsum(np.append(1 / s[0], 1 / a[1:]))
    high = np.cumsum(np.append(1 / s[-1], 1 / a[:0:-1]))[::-1]
    assert np.sum(1 / values) == pytest.approx(np.sum(m * low * high / (low + high)), rel=1e-9)


def test_nearly_a_product_serves_and_others_are_told():
    shape = (9, 14, 20)
    w, s = stretched(shape)
    noise = np.random.default_rng(0).uniform(0.85, 1.2, (4, *shape))
    near = [face * by for face, by in zip(w, noise, strict=False)]
    A = matrix(near, s * noise[3])
    b = right_hand_side(A)
    solved = inverse_of(near, s * noise[3])
    x, r = b.duplicate(), b.duplicate()
    before = None
    for _ in range(9):  # conjugate directions by hand
        A.mult(x, r)
        r.aypx(-1.0, b)
        d = b.duplicate()
        d.setArray(solved(r.getArray()).ravel())
        if before is not None:
            d.axpy(-d.dot(before[1]) / before[0].dot(before[1]), before[0])
        image = b.duplicate()
        A.mult(d, image)
        x.axpy(r.dot(d) / d.dot(image), d)
        before = d, image
    assert relative_residual(A, x, b) <= 1e-5
    for change in ("face", "contrast", "hole", "extra"):
        faces, extra = [face.copy() for face in w], s.copy()
        if change == "face":
            faces[1][4, 7, 9] *= 3.0
        elif change == "contrast":
            faces[0][3:6, 2:5, 4:9] *= 10.0
        elif change == "hole":
            faces[2][4, 3, 3] = 0.0
        else:
            extra[4, 5, 6] += 0.1 * sum(face[4, 5, 6] for face in faces)
        assert factors_of(faces, extra) is None, change


@pytest.mark.parametrize("shape", [(20, 22, 26), (1, 90, 100)])
def test_stretched_grids_take_two_iterations(shape, tmp_path):
    A = matrix(*stretched(shape, growth=2.0 if shape[0] > 1 else 1.3))
    b = right_hand_side(A)
    grid = ",".join(str(n) for n in shape[::-1])
    ksp, x = solve(A, b, ksp_rtol=1e-9, pc_dcdm_grid=grid)
    pc = ksp.getPC().getPythonContext()
    assert isinstance(pc._coarse, SeparableCoarseSolver) and pc.layout.plan == ()
    assert 0 < ksp.getIterationNumber() <= 3 and relative_residual(A, x, b) <= 1.1e-9
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.destroy()
    assert "fast diagonalisation" in (tmp_path / "view").read_text()
    A.scale(2.0)
    ksp.solve(b, x)
    assert isinstance(pc._coarse, SeparableCoarseSolver) and relative_residual(A, x, b) <= 1.1e-9


def test_values_that_are_no_product_any_more_get_another_solver():
    shape = (20, 22, 26)
    A = matrix(*stretched(shape, growth=2.0))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-6, pc_dcdm_grid="26,22,20")
    assert isinstance(ksp.getPC().getPythonContext()._coarse, SeparableCoarseSolver)
    k = np.exp(3.0 * np.random.default_rng(2).standard_normal(shape))
    noise = matrix(*conductances(shape, coefficient=k))
    noise.copy(A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
    ksp.solve(b, x)
    assert type(ksp.getPC().getPythonContext()._coarse) is PartsCoarseSolver
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1.1e-6
