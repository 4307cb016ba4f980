"""The published network gives the same direction on any number of ranks."""

from __future__ import annotations

import numpy as np
import torch
from mpi4py import MPI

from petsc_dcdm.grid.boxes import partition
from petsc_dcdm.grid.halo import BoxLayout
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.network.cnn import CnnHierarchy, DcdmNet, to_tensors
from petsc_dcdm.network.weights import ModelFile

RANKS = (4,)


def test_direction_does_not_depend_on_the_ranks():
    direction((12, 9, 11))


def test_ranks_that_have_no_cell():
    layout = direction((3, 2, 2))
    assert MPI.COMM_WORLD.allreduce(int(0 in layout.shape)) == max(MPI.COMM_WORLD.size - 2, 0)


def direction(shape):
    """Compares with one rank; returns the boxes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    file = ModelFile("cnn", (3,), to_tensors(DcdmNet("64")), {"variant": "64"})
    plan = ((0, 1, 2),)
    rng = np.random.default_rng(0)
    w = [rng.uniform(0.5, 1.0, shape) for _ in range(3)]
    for a in range(3):
        w[a].swapaxes(0, 2 - a)[0] = 0.0
    s, r = np.ones(shape), rng.standard_normal(shape)
    want = np.empty(shape)
    CnnHierarchy(file, w, s, SerialLayout(shape, plan)).apply(r, want, -0.5, 2.0)
    comm = MPI.COMM_WORLD
    layout = BoxLayout(comm, partition(shape, comm.size, plan), plan)
    mine = tuple(slice(o, o + n) for o, n in zip(layout.offset, layout.shape, strict=True))
    got = np.empty(layout.shape)
    operator = CnnHierarchy(file, [a[mine] for a in w], s[mine], layout)
    operator.apply(np.ascontiguousarray(r[mine]), got, -0.5, 2.0)
    assert np.allclose(got, want[mine], atol=1e-5)
    assert operator.levels[0].unknowns == r.size
    return layout
