"""The net on ranks: taken after the same step as on one, remembered on all of them."""

from __future__ import annotations

import os
import tempfile

import numpy as np
from petsc4py import PETSc
from systems import conductances, matrix, random_solids, relative_residual, right_hand_side, solve

from petsc_dcdm.network import weights

RANKS = (2, 4)
SHAPE = (16, 20, 24)


def bad_weights():
    """A file of random weights, that rank 0 writes and reads."""
    path = os.path.join(tempfile.mkdtemp(), "bad.safetensors")
    if PETSc.COMM_WORLD.getRank() == 0:
        shipped, rng = weights.load("multigrid"), np.random.default_rng(5)
        hyper = {name: shipped.meta[name] for name in ("steps", "hidden", "threshold")}
        tensors = {name: rng.standard_normal(t.shape).astype(np.float32) for name, t in shipped.tensors.items()}
        about = {"training_domain": "none", "seed": 0, "command": "none", "hyper": hyper}
        weights.save(path, "multigrid", (2, 3), tensors, **about)
    return PETSc.COMM_WORLD.tompi4py().bcast(path)


def test_the_same_as_on_one():
    path, found = bad_weights(), []
    for comm in (PETSc.COMM_SELF, PETSc.COMM_WORLD):
        A = matrix(*conductances(SHAPE, random_solids(SHAPE, 3)), comm=comm)
        b = right_hand_side(A)
        ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_grid="24,20,16", pc_dcdm_model=path)
        net = ksp.getPC().getPythonContext()._net
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8 and net.pc is not None
        found.append((net.why, ksp.getConvergenceHistory()[:5]))
        history = len(ksp.getConvergenceHistory())
        A.scale(2.0)
        ksp.solve(b, x)
        assert net.pc is not None and ksp.getIterationNumber() < history
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-8
        comm.tompi4py().Barrier()
    (why, first), (why_ranks, first_ranks) = found
    assert why == why_ranks
    np.testing.assert_allclose(first[:4], first_ranks[:4], rtol=1e-2)
