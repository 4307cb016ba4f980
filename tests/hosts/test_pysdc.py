"""pySDC from PyPI, unmodified: its forced heat equation, with a DMDA, by spectral deferred corrections.

Skipped where it is not installed (pip install pySDC; --no-deps keeps numpy, and wants qmat and dill beside it).
"""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
from harness import mpirun_program

MISSING = [name for name in ("pySDC", "qmat", "dill") if importlib.util.find_spec(name) is None]
pytestmark = [pytest.mark.hosts, pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")]

PROGRAM = """
from petsc4py import PETSc
from pySDC.implementations.controller_classes.controller_nonMPI import controller_nonMPI
from pySDC.implementations.problem_classes.HeatEquation_2D_PETSc_forced import heat2d_petsc_forced
from pySDC.implementations.sweeper_classes.imex_1st_order import imex_1st_order

problem = dict(nu=1.0, freq=2, cnvars=(33, 33), refine=1, comm=PETSc.COMM_WORLD, sol_tol=1e-10, sol_maxiter=500)
description = dict(
    problem_class=heat2d_petsc_forced,
    problem_params=problem,
    sweeper_class=imex_1st_order,
    sweeper_params=dict(quad_type="RADAU-RIGHT", num_nodes=2),
    level_params=dict(restol=1e-8, dt=0.1),
    step_params=dict(maxiter=8),
)
controller = controller_nonMPI(num_procs=1, controller_params=dict(logger_level=30), description=description)
heat = controller.MS[0].levels[0].prob
u, _ = controller.run(u0=heat.u_exact(0.0), t0=0.0, Tend=0.2)
error = abs(heat.u_exact(0.2) - u)
print(f"{heat.ksp.getType()} error {error:.9e} iterations {heat.ksp_itercount} solves {heat.ksp_ncalls}", flush=True)
"""
LINE = re.compile(r"(\w+) error (\S+) iterations (\d+) solves (\d+)")


def run(ranks: int, options: str) -> tuple[str, float, float]:
    """The solver, the error of the heat equation's solution and the iterations per solve."""
    output = mpirun_program(ranks, [sys.executable, "-c", PROGRAM], env={"PETSC_OPTIONS": options})
    found = LINE.findall(output)
    assert len(found) == ranks, output
    kind, error, its, solves = found[0]
    return kind, float(error), int(its) / int(solves)


@pytest.mark.parametrize("ranks", [1, 2])
def test_forced_heat_equation(ranks: int) -> None:
    kind, error, its = run(ranks, "-ksp_type python -ksp_python_type petsc_dcdm.KSP")
    theirs, their_error, _ = run(ranks, "")
    assert (kind, theirs) == ("python", "gmres")
    assert error == pytest.approx(their_error, rel=1e-4) and its <= 9, (error, their_error, its)
