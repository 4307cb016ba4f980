"""The net: where the network's directions do not suit a matrix, another preconditioner's take their place."""

from __future__ import annotations

import re

import numpy as np
import pytest
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

from petsc_dcdm.network import weights
from petsc_dcdm.solver.loop.net import SLOW, STEPS, Rate
from petsc_dcdm.solver.loop.steps import Outcome

SHAPE = (16, 20, 24)
MAKE = {
    "random": lambda rng, t: rng.standard_normal(t.shape),
    "zeros": lambda rng, t: np.zeros(t.shape),
    "large": lambda rng, t: 30.0 * rng.standard_normal(t.shape),
    "reversed": lambda rng, t: -2.0 * t,
}


@pytest.fixture(scope="module")
def bad_weights(tmp_path_factory):
    """Files of weights that nobody has trained, by how they are made."""
    shipped = weights.load("multigrid")
    hyper = {name: shipped.meta[name] for name in ("steps", "hidden", "threshold")}
    paths = {}
    for how, make in MAKE.items():
        rng = np.random.default_rng(5)
        tensors = {name: make(rng, t).astype(np.float32) for name, t in shipped.tensors.items()}
        paths[how] = str(tmp_path_factory.mktemp("weights") / f"{how}.safetensors")
        about = {"training_domain": "none", "seed": 0, "command": "none", "hyper": hyper}
        weights.save(paths[how], "multigrid", (2, 3), tensors, **about)
    return paths


def system(**kind):
    A = matrix(*conductances(SHAPE, random_solids(SHAPE, 3)), **kind)
    return A, right_hand_side(A)


def net_of(ksp):
    return ksp.getPC().getPythonContext()._net


def view(ksp, path):
    viewer = PETSc.Viewer().createASCII(str(path))
    ksp.view(viewer)
    viewer.destroy()
    return path.read_text()


def steps(*gains):
    rate = Rate()
    for gain in gains:
        rate.add(Outcome(energy=1.0, slope=gain**0.5))
    return rate


def falling(*left):
    """Gains of steps that leave so much of the error each."""
    return np.cumprod([1.0, *left]) ** 2


def test_the_rate_is_that_of_the_error():
    assert steps(1.0, *falling(*[0.3] * STEPS)).left == pytest.approx(0.3)
    assert not steps(1.0, *falling(*[0.9] * (STEPS - 1))).slow  # nothing is known yet
    assert not steps(1.0, *falling(*[0.98 * SLOW] * STEPS)).slow
    assert steps(1.0, *falling(1e-3, *[0.9] * STEPS)).slow
    assert not steps(1.0, *falling(0.8, 2.9, 1.3, *[0.2] * (STEPS - 3))).slow  # they were few
    assert not steps(1.0, *[0.0] * (STEPS + 1)).slow


def test_good_weights_need_none(tmp_path):
    ksp, _ = solve(*system(), ksp_rtol=1e-10)
    assert ksp.getConvergedReason() > 0 and net_of(ksp).pc is None
    assert "directions are those of" not in view(ksp, tmp_path / "view")


@pytest.mark.parametrize("how, compiled", [(how, "auto") for how in MAKE] + [("random", "off"), ("large", "off")])
def test_any_weights_reach_what_amg_reaches(bad_weights, how, compiled):
    A, b = system()
    ksp, x = solve(A, b, ksp_rtol=1e-10, pc_dcdm_model=bad_weights[how], pc_dcdm_compile=compiled)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-10
    assert net_of(ksp).pc is not None or how == "zeros"  # weights of 0 are not far from Jacobi's
    assert ksp.getIterationNumber() <= 30  # BoomerAMG alone takes 14


def test_off_it_is_not_there(bad_weights):
    A, b = system()
    ksp, _ = solve(A, b, ksp_max_it=12, pc_dcdm_model=bad_weights["large"], pc_dcdm_net="none")
    assert ksp.getConvergedReason() < 0 and net_of(ksp).pc is None


def test_it_is_in_the_view_and_remembered_for_the_pattern(bad_weights, tmp_path):
    A, b = system()
    options = {"ksp_rtol": 1e-8, "pc_dcdm_model": bad_weights["random"], "pc_dcdm_net": "sor"}
    ksp, x = solve(A, b, **options)
    text = view(ksp, tmp_path / "view")
    caught = STEPS + 2
    assert re.search(rf"the network is not in use, for at step {caught} its directions left (0\.[5-9]|1)", text)
    assert "type: sor" in text
    first = ksp.getConvergenceHistory()
    again = A.copy()
    again.scale(3.0)
    again.copy(A, structure=PETSc.Mat.Structure.SAME_NONZERO_PATTERN)  # other values
    ksp.setConvergenceHistory(reset=True)
    ksp.solve(b, x)
    assert net_of(ksp).pc is not None and relative_residual(A, x, b) <= 1e-8
    second = ksp.getConvergenceHistory()
    assert second[1] < first[caught]  # no step along the network's directions any more
    ksp.getPC().getPythonContext().set(model="multigrid")
    ksp.solve(b, x)
    assert net_of(ksp).pc is None and ksp.getIterationNumber() < 8


@pytest.mark.parametrize("guess", [False, True])
def test_natural_norms_are_those_of_the_net(bad_weights, guess):
    """What the tolerance is relative to as well."""
    A, b = system()
    bad = bad_weights["random"]
    ksp, x = solve(A, b, ksp_norm_type="natural", ksp_rtol=1e-6, pc_dcdm_net="jacobi", pc_dcdm_model=bad)
    assert net_of(ksp).pc is not None
    if guess:
        ksp.getPC().getPythonContext().set(model=str(bad))  # which is caught once more
        x.set(1.0)
        ksp.setInitialGuessNonzero(True)
        ksp.solve(b, x)
    r, z = b.duplicate(), b.duplicate()
    A.mult(x, r)
    r.aypx(-1.0, b)
    norms = []
    for v in (r, b):
        ksp.getPC().apply(v, z)
        norms.append(np.sqrt(v.dot(z)))
    assert ksp.getConvergedReason() > 0 and norms[0] <= 1.01e-6 * norms[1]
    assert ksp.getTolerances()[0] == 1e-6


def test_natural_norms_beyond_single_precision_are_no_fault_of_the_right_hand_side(bad_weights, capfd):
    ksp, _ = solve(*system(), ksp_norm_type="natural", pc_dcdm_model=bad_weights["large"])
    assert ksp.getConvergedReason() == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF
    assert "the natural norm became NaN or Inf" in capfd.readouterr().err


def negative_with_odd_rows():
    """A negative definite matrix with an empty row and Dirichlet rows of positive diagonal that others couple to."""
    A, b = system(sign=-1.0)
    A.setOption(PETSc.Mat.Option.KEEP_NONZERO_PATTERN, True)
    A.zeroRows([5, 6, 700, 1500], diag=1.0)
    A.setValue(6, 6, 0.0)
    A.assemble()
    b.setValue(6, 0.0)
    b.assemble()
    return A, b


def closed():
    A = matrix(*conductances(SHAPE, walls=0.0))
    b = right_hand_side(A)
    b.shift(-b.sum() / b.getSize())
    return A, b


def scaled():
    A, b = system()
    factors = A.createVecLeft()
    factors.setArray(np.random.default_rng(2).uniform(0.01, 100.0, b.getSize()))
    A.diagonalScale(factors)
    return A, b


@pytest.mark.parametrize("make", [negative_with_odd_rows, closed, scaled])
def test_under_every_kind_of_matrix(bad_weights, make):
    A, b = make()
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_model=bad_weights["random"])
    assert net_of(ksp).pc is not None
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8
    assert ksp.getIterationNumber() <= 24


def test_transposed(bad_weights):
    A, b = scaled()
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_model=bad_weights["random"])
    ksp.solveTranspose(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 24
    assert relative_residual(PETSc.Mat().createTranspose(A), x, b) <= 1e-8
