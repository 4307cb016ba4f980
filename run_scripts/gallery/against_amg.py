"""Compared with algebraic multigrid

Any solvers on the same matrix, in fresh processes in turn: set-up and solve, medians, all to one true residual. A rival
of your own is a line of PETSc options.

The times below were taken on a busy machine, those of [performance](../measurements/performance.md) on an idle one.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
from petsc4py import PETSc
from picture import right

from petsc_dcdm.compare.baselines import resolve
from petsc_dcdm.compare.driver import compare
from petsc_dcdm.compare.job import SystemSpec

options = PETSc.Options()
n, runs = options.getInt("n", 64), options.getInt("runs", 3)
system = SystemSpec("family", "mixed", shape=(n, n, n))
solvers = [resolve("dcdm"), resolve("GAMG=-ksp_type cg -pc_type gamg"), resolve("boomeramg-tuned")]
results = [
    found for found in compare([system], solvers, [1], rtol=1e-6, max_it=200, runs=runs, solves=1) if not found.problem
]

name = options.getString("picture", "")
if name:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.8, 2.6), layout="constrained")
    rows = np.arange(len(results))
    setup, solve = ([getattr(found, part) for found in results] for part in ("setup_s", "solve_s"))
    axes.barh(rows, setup, label="set-up")
    axes.barh(rows, solve, left=setup, label="solve")
    axes.set(yticks=rows, yticklabels=[found.solver.name for found in results], xlabel="s")
    axes.invert_yaxis()
    axes.set_title(f"mixed domain, {n}³, one rank", fontsize=10)
    axes.legend()
    figure.savefig(name, dpi=90)

error = max(found.true_relative_residual for found in results)
times = ", ".join(f"{found.solver.name} {found.iterations} iterations {found.total_s:.2f} s" for found in results)
right(error, 1.01e-6, f"{times}; true residuals at most {error:.1e}")
