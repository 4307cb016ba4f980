"""Fine-tuning on your own operators

The shipped network goes on learning on a matrix of your own, here one of layers whose coefficients jump by 1000, for as
many `-steps` as there is time. A model that got worse is not written; what is solved with either is true.
"""

import sys
import tempfile
from pathlib import Path

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc
from picture import right, save

from petsc_dcdm.cli import main

options = PETSc.Options()
n, steps = options.getInt("n", 48), options.getInt("steps", 40)
layers = 1000.0 ** np.random.default_rng(0).integers(0, 2, n // 8).repeat(8)[:, None] * np.ones(n)
D = sp.diags([-np.ones(n), np.ones(n)], [0, -1], shape=(n + 1, n))
G = sp.vstack([sp.kron(sp.identity(n), D), sp.kron(D, sp.identity(n))])
faces = 1 / np.maximum(abs(G) @ (1 / layers.ravel()) / 2, 1e-12)  # harmonic means
matrix = sp.csr_matrix(G.T @ sp.diags(faces) @ G)
A = PETSc.Mat().createAIJ(matrix.shape, csr=(matrix.indptr, matrix.indices, matrix.data))
x, b = A.createVecs()
b.setRandom()


def iterations(model):
    ksp = PETSc.KSP().create()
    options["pc_dcdm_model"] = model
    ksp.setOperators(A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-8)
    ksp.setFromOptions()
    ksp.solve(b, x)
    return ksp.getIterationNumber()


with tempfile.TemporaryDirectory() as folder:
    own = Path(folder) / "own.safetensors"
    A.view(PETSc.Viewer().createBinary(f"{folder}/A.bin", "w"))
    words = ["train", "multigrid", "--matrix", f"{folder}/A.bin", "--steps", str(steps), "--out", str(own)]
    written = main(words) == 0
    before, after = iterations("multigrid"), iterations(str(own) if written else "multigrid")
error = (A * x - b).norm() / b.norm()
save(x.array_r.reshape(n, n), "Answer of the tuned network")
right(error, 1.01e-8, f"{before} iterations before, {after} after {steps} steps, residual {error:.1e}")
