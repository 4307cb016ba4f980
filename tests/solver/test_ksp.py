"""The DCDM loop: PETSc's fcg with the same PC, a direct solve, and what the method promises for any network."""

from __future__ import annotations

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, poisson, random_solids, refused, relative_residual, right_hand_side, solve

from petsc_dcdm.backends.cpu.loop import DirectionLoop

Reason = PETSc.KSP.ConvergedReason


class RandomPC:
    """A network of random weights: not linear, not symmetric, not definite, different at each call."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)

    def apply(self, pc, r, z):
        values = r.getArray(readonly=True)
        z.setArray(np.tanh(values * self.random.standard_normal(values.size)) + 0.3 * values)


def random_pc_solver(A, history, seed=0):
    PETSc.Options()["ksp_dcdm_history"] = history
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(RandomPC(seed))
    ksp.setFromOptions()
    return ksp


@pytest.fixture(scope="module")
def obstacle():
    shape = (20, 24, 28)
    A = matrix(*conductances(shape, random_solids(shape, fraction=0.1)))
    return A, right_hand_side(A)


def test_solution_against_a_direct_solve(obstacle):
    A, b = obstacle
    _, x = solve(A, b, ksp_rtol=1e-11, pc_dcdm_grid="28,24,20")
    direct = PETSc.KSP().create()
    direct.setOperators(A)
    direct.setType("preonly")
    direct.getPC().setType("cholesky")
    y = b.duplicate()
    direct.solve(b, y)
    assert (x - y).norm() < 1e-9 * y.norm()


@pytest.mark.parametrize("operator", ["mat", "stencil"])
@pytest.mark.parametrize("truncation", ["standard", "notay"])
def test_residual_history_is_that_of_fcg(obstacle, truncation, operator):
    """Down to 1e-8; below, the rounding of b - A x and of the network's input is seen in the sixth digit."""
    A, b = obstacle
    ours, _ = solve(A, b, ksp_rtol=1e-8, ksp_dcdm_operator=operator)
    theirs = PETSc.KSP().create()
    theirs.setOperators(A)
    theirs.setType("fcg")
    theirs.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    options = PETSc.Options()
    options["ksp_fcg_mmax"] = 2
    options["ksp_fcg_truncation_type"] = truncation
    options["pc_type"] = "python"
    options["pc_python_type"] = "petsc_dcdm.PC"
    theirs.setTolerances(rtol=1e-8)
    theirs.setConvergenceHistory()
    theirs.setFromOptions()
    theirs.solve(b, b.duplicate())
    a, c = ours.getConvergenceHistory()[:11], theirs.getConvergenceHistory()[:11]
    np.testing.assert_allclose(a, c, rtol=1e-6)


@pytest.mark.parametrize("history", [0, 1, 2, 4])
def test_error_never_grows_in_the_energy_norm_whatever_the_network(history):
    A = poisson((5, 6, 7))
    exact = right_hand_side(A, seed=3)
    b = A.createVecLeft()
    A.mult(exact, b)
    energies = []
    for steps in range(12):
        ksp = random_pc_solver(A, history)
        ksp.setTolerances(rtol=0.0, atol=0.0, max_it=steps)
        x = b.duplicate()
        ksp.solve(b, x)
        e = exact - x
        energies.append(np.sqrt(e.dot(A * e)))
    assert all(new <= old * (1 + 1e-12) for old, new in zip(energies, energies[1:], strict=False))
    assert energies[-1] < 0.9 * energies[0]


def test_directions_are_a_orthogonal_to_the_two_before():
    A = poisson((5, 6, 7))
    b = right_hand_side(A)
    ksp = random_pc_solver(A, 2)
    points = []
    ksp.setMonitor(lambda ksp, its, norm: points.append(ksp.getSolution().copy()))
    ksp.setTolerances(rtol=1e-30, atol=0.0, max_it=12)
    ksp.solve(b, b.duplicate())
    steps = [new - old for old, new in zip(points, points[1:], strict=False)]
    for k, d in enumerate(steps):
        for p in steps[max(0, k - 2) : k]:
            assert abs(d.dot(A * p)) < 1e-6 * np.sqrt(d.dot(A * d) * p.dot(A * p))
    assert len(steps) == 12


def test_claims_convergence_on_the_true_residual_only():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-13)
    assert ksp.getConvergedReason() == Reason.CONVERGED_RTOL
    assert relative_residual(A, x, b) <= 1e-13
    # to rounding: the two products add up in different order
    np.testing.assert_allclose(ksp.getResidualNorm() / b.norm(), relative_residual(A, x, b), rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("change", ["none", "diagonal", "one side"])
def test_the_stencil_stands_in_for_the_matrix_only_where_it_is_the_matrix(change, monkeypatch):
    """Set-up takes negative row sums of 1e-10 of the diagonal for rounding, and couplings that differ by 1e-8 for
    symmetric.
    """
    A = poisson((18, 19, 20))
    if change == "diagonal":
        d = A.getDiagonal()
        A.setDiagonal(d * (1 - 1e-10))
    elif change == "one side":
        A.setValue(4000, 4001, A.getValue(4000, 4001) * (1 + 1e-8))
    A.assemble()
    asked = []
    residual = DirectionLoop.residual
    monkeypatch.setattr(DirectionLoop, "residual", lambda *a: asked.append(1) or residual(*a))
    b = A.createVecLeft()
    b.set(1.0)
    ksp, x = solve(A, b, ksp_rtol=1e-11)
    assert ksp.getConvergedReason() == Reason.CONVERGED_RTOL
    assert relative_residual(A, x, b) <= 1e-11
    assert bool(asked) is (change == "none")


@pytest.mark.parametrize("shape", [(18, 19, 20), (1, 50, 60), (40, 1, 60)])
@pytest.mark.parametrize("order", ["lexicographic", "any"])
@pytest.mark.parametrize("guess", [None, "boundary", "everywhere"])
def test_first_residual_where_rows_couple_to_dirichlet_rows(shape, order, guess, monkeypatch):
    """As in PETSc's tutorial ex45: it is taken without the matrix, and is that of a guess that solves those rows."""
    random = np.random.default_rng(5)
    w, s = conductances(shape, random_solids(shape, fraction=0.01))
    cells = None if order == "lexicographic" else random.permutation(s.size)
    A = matrix(w, s, cells=cells)
    rows = np.sort(random.choice(s.size, s.size // 50, replace=False)).astype(PETSc.IntType)
    A.zeroRows(rows, diag=2.0)
    if cells is not None:
        A.compose("dcdm_cells", PETSc.IS().createGeneral(cells.astype(PETSc.IntType)))
    b, x = right_hand_side(A), None
    if guess:
        x = right_hand_side(A, 3)
        x.setArray(np.where(np.isin(np.arange(s.size), rows) | (guess == "everywhere"), x.getArray(), 0.0))
    start = x.copy() if guess else b.duplicate()
    single = np.flatnonzero(np.diff(A.getValuesCSR()[0]) == 1)
    with start as values:
        values[single] = b.getArray()[single] / A.getDiagonal().getArray()[single]
    asked = []
    residual = DirectionLoop.residual
    monkeypatch.setattr(DirectionLoop, "residual", lambda *a: asked.append(1) or residual(*a))
    nz, ny, nx = shape
    ksp, x = solve(A, b, x, ksp_rtol=1e-10, pc_dcdm_grid=f"{nx},{ny},{nz}")
    np.testing.assert_allclose(ksp.getConvergenceHistory()[0], relative_residual(A, start, b) * b.norm(), rtol=1e-12)
    assert ksp.getConvergedReason() == Reason.CONVERGED_RTOL
    assert len(asked) >= 2 and relative_residual(A, x, b) <= 1e-10
    alone = int(np.setdiff1d(single, rows)[0])  # solid: nothing couples to it
    b.setValue(alone, np.nan)
    b.assemble()
    ksp, _ = solve(A, b, pc_dcdm_grid=f"{nx},{ny},{nz}")
    assert ksp.getConvergedReason() == Reason.DIVERGED_NANORINF


def test_initial_guess_monitors_and_history():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    _, x = solve(A, b, ksp_rtol=1e-6)
    seen = []
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setInitialGuessNonzero(True)
    ksp.setTolerances(rtol=1e-10)
    ksp.setConvergenceHistory()
    ksp.setMonitor(lambda ksp, its, norm: seen.append((its, norm)))
    ksp.setFromOptions()
    ksp.solve(b, x)
    history = ksp.getConvergenceHistory()
    assert [its for its, _ in seen] == list(range(len(history)))
    np.testing.assert_array_equal([norm for _, norm in seen], history)
    assert history[0] < 1.1e-6 * b.norm() and history[-1] < 1e-10 * b.norm()
    assert ksp.getIterationNumber() == len(history) - 1


def test_iteration_limit_and_no_norm():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    ksp, _ = solve(A, b, ksp_max_it=2, ksp_rtol=1e-12)
    assert ksp.getConvergedReason() == Reason.DIVERGED_MAX_IT and ksp.getIterationNumber() == 2
    ksp, x = solve(A, b, ksp_max_it=4, ksp_norm_type="none")
    assert ksp.getConvergedReason() == Reason.CONVERGED_ITS and ksp.getIterationNumber() == 4
    assert relative_residual(A, x, b) < 1e-2


def test_the_norm_type_of_the_command_line_counts_when_the_type_comes_from_there_too():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    options = PETSc.Options()
    for name, value in (("type", "python"), ("python_type", "petsc_dcdm.KSP"), ("norm_type", "none"), ("max_it", 3)):
        options[f"ksp_{name}"] = value
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setFromOptions()
    ksp.solve(b, b.duplicate())
    assert ksp.getConvergedReason() == Reason.CONVERGED_ITS and ksp.getIterationNumber() == 3


def test_the_unpreconditioned_norm_stands_in_for_the_preconditioned_one(capfd):
    A = poisson((3, 4, 5))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_norm_type="preconditioned")
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-5
    assert "unpreconditioned norm" in capfd.readouterr().err


def test_the_natural_norm_is_that_of_the_preconditioner():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_norm_type="natural", ksp_rtol=1e-9)
    assert ksp.getConvergedReason() == Reason.CONVERGED_RTOL
    norms = []
    for v in (b, b - A * x):
        z = v.duplicate()
        ksp.getPC().apply(v, z)
        norms.append(np.sqrt(v.dot(z)))
    np.testing.assert_allclose(norms[1], ksp.getResidualNorm(), rtol=1e-3)
    assert norms[1] <= 1e-9 * norms[0]


def test_the_loop_on_the_grid_needs_its_own_preconditioner_and_matrix(obstacle):
    A, b = obstacle
    for options, why in (
        ({"pc_type": "jacobi"}, "the preconditioner is not petsc_dcdm.PC"),
        ({"pc_dcdm_compile": "off"}, "does not run compiled"),
        ({"ksp_dcdm_history": 20}, "at most 8 directions"),
    ):
        with refused(f"-ksp_dcdm_operator stencil: .*{why}"):
            solve(A, b, ksp_dcdm_operator="stencil", **options)
        ksp, _ = solve(A, b, **options)
        assert ksp.getConvergedReason() > 0


def test_a_reused_preconditioner_does_not_bring_its_old_matrix():
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    ksp.getPC().setReusePreconditioner(True)
    A.scale(3.0)
    A.shift(0.1)
    ksp.solve(b, x)
    assert relative_residual(A, x, b) <= 1e-5 and ksp.getConvergedReason() > 0


@pytest.mark.parametrize("kind", ["python", "fcg"])
def test_the_transposed_system(kind):
    """KSPSolveTranspose, as adjoint codes call it."""
    A = poisson((18, 19, 20))
    b = right_hand_side(A)
    ksp, x = solve(A, b, ksp_rtol=1e-9)
    if kind != "python":
        ksp.setType(kind)
        ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    y = x.duplicate()
    ksp.solveTranspose(b, y)
    assert ksp.getConvergedReason() > 0 and 2 < ksp.getIterationNumber() < 10
    assert relative_residual(A, y, b) <= 1e-9


@pytest.mark.parametrize("operator", ["mat", "stencil"])
def test_ends_where_rounding_keeps_the_residual_and_says_so(obstacle, operator, capsys):
    A, b = obstacle
    ksp, x = solve(A, b, ksp_rtol=1e-17, ksp_max_it=300, ksp_dcdm_operator=operator, pc_dcdm_grid="28,24,20")
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN and ksp.getIterationNumber() < 40
    assert "x holds no more in double precision" in capsys.readouterr().err
    assert relative_residual(A, x, b) < 1e-14


def test_steps_that_gain_nothing_for_a_while_are_not_taken_for_rounding():
    """A plain preconditioner at strong contrasts: the residual stays for many steps, far above rounding."""
    k = np.exp(3.0 * np.random.default_rng(0).standard_normal((1, 30, 30)))
    A = matrix(*conductances((1, 30, 30), coefficient=k))
    b = right_hand_side(A)
    ksp, x = solve(A, b, pc_type="jacobi", ksp_rtol=1e-11, ksp_max_it=1000)
    assert ksp.getConvergedReason() == Reason.CONVERGED_RTOL and relative_residual(A, x, b) <= 1e-11


def test_zero_right_hand_side_and_nan(capsys):
    A = poisson((3, 4, 5))
    b = A.createVecLeft()
    ksp, x = solve(A, b)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() == 0 and x.norm() == 0
    b.setValue(7, np.nan)
    b.assemble()
    ksp, _ = solve(A, b)
    assert ksp.getConvergedReason() == Reason.DIVERGED_NANORINF
    assert "right-hand side or the initial guess has NaN or Inf" in capsys.readouterr().err


def test_a_preconditioner_that_gives_nothing_is_a_breakdown(capsys):
    A = poisson((3, 4, 5))
    ksp = random_pc_solver(A, 2)
    ksp.getPC().setPythonContext(type("Zero", (), {"apply": lambda self, pc, r, z: z.set(0.0)})())
    ksp.solve(right_hand_side(A), A.createVecRight())
    assert ksp.getConvergedReason() == Reason.DIVERGED_BREAKDOWN
    assert "no direction" in capsys.readouterr().err


def test_true_residual_every_step_changes_nothing_but_rounding(obstacle):
    A, b = obstacle
    often, _ = solve(A, b, ksp_rtol=1e-8, ksp_dcdm_true_residual_every=1)
    seldom, _ = solve(A, b, ksp_rtol=1e-8, ksp_dcdm_true_residual_every=0)
    np.testing.assert_allclose(often.getConvergenceHistory(), seldom.getConvergenceHistory(), rtol=1e-6)


@pytest.mark.parametrize("option, value", [("ksp_dcdm_history", "-1"), ("ksp_dcdm_true_residual_every", "often")])
def test_bad_option_values(option, value):
    A = poisson((3, 4, 5))
    with refused(f"-{option} is '{value}'; it must be an integer of at least 0"):
        solve(A, right_hand_side(A), **{option: value})


@pytest.mark.parametrize("operator", ["auto", "mat"])
def test_nothing_to_solve_for_without_a_norm(operator):
    """As an inner solver of so many steps: b = 0 leaves x = 0."""
    A = poisson((1, 6, 7))
    ksp, x = solve(A, A.createVecLeft(), ksp_norm_type="none", ksp_max_it=3, ksp_dcdm_operator=operator)
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.CONVERGED_ITS and x.norm() == 0
    ksp.destroy()
