"""The flow solver on ranks: the same flow as on one, and a checkpoint of other ranks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.flow import checkpoint
from petsc_dcdm.flow.scenes import SCENES, Wishes
from petsc_dcdm.flow.tank import Tank

RANKS = (4,)
COMM = PETSc.COMM_WORLD.tompi4py()


def whole(state):
    """Velocities, and smoke or the distance to the surface, on rank 0."""
    carried = state.level if isinstance(state, Tank) else state.density
    return [state.grid.gather(values) for values in (*(state.u[a] for a in state.grid.axes), carried)]


def test_the_same_flow_as_on_one_rank():
    for scene, shape in (("plume", (16, 14, 14)), ("tunnel", (1, 16, 24)), ("sloshing", (1, 18, 18))):
        many = SCENES[scene](Wishes(shape, moving=True))
        alone = SCENES[scene](Wishes(shape, moving=True, comm=PETSc.COMM_SELF)) if COMM.rank == 0 else None
        for _ in range(12):
            dt = COMM.bcast(alone.longest_step() if alone else None)
            many.step(dt)
            if alone:
                alone.step(dt)
        found = whole(many)
        if alone:
            for a, b in zip(found, whole(alone), strict=True):
                error = np.abs(a - b).max() / max(1.0, np.abs(b).max())
                assert error <= 1e-6, (scene, error)
            alone.destroy()
        many.destroy()


def test_a_checkpoint_of_one_rank_goes_on_here():
    with tempfile.TemporaryDirectory() as folder:
        path = COMM.bcast(Path(folder) / "state.npz")
        if COMM.rank == 0:
            alone = SCENES["tunnel"](Wishes((1, 16, 24), comm=PETSc.COMM_SELF))
            for _ in range(3):
                alone.step()
            checkpoint.save(path, alone)
        COMM.barrier()
        many = SCENES["tunnel"](Wishes((1, 16, 24)))
        checkpoint.load(path, many)
        assert many.steps == 3
        found = whole(many)
        if COMM.rank == 0:
            for a, b in zip(found, whole(alone), strict=True):
                assert (a == b).all()
            alone.destroy()
        many.destroy()
        COMM.barrier()
