"""PETSc's solver on the kernels of GPUs, interpreted: from the options to the view, on ranks, on vectors of devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness import ROOT
from petsc4py import PETSc
from ring_systems import assembled, conductances, to_petsc
from systems import relative_residual, right_hand_side, solve
from triton_interpreter import MISSING, WHY

if MISSING:
    pytest.skip(WHY, allow_module_level=True)

from petsc_dcdm.backends.gpu.limits import why_not
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.solver import device_vectors

SHAPE = (1, 34, 36)


def matrix(shape: tuple[int, int, int] = SHAPE) -> PETSc.Mat:
    k = np.ones(shape)
    k[:, 10:20, 12:24] = 0.0  # solid
    return to_petsc(assembled(*conductances(shape, (False,) * 3, coefficient=k)))


def test_a_solve_takes_as_many_iterations_as_on_the_cpu(tmp_path: Path) -> None:
    """Fixed rows, a guess, and a second solve with other values; the view says what runs where."""
    A = matrix()
    b = right_hand_side(A)
    found = []
    for device in ("cpu", "cuda"):
        ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_device=device)
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-8
        its = ksp.getIterationNumber()
        ksp.setInitialGuessNonzero(True)
        x.scale(1.001)
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-8
        found.append((its, ksp.getIterationNumber()))
    assert np.abs(np.subtract(*found)).max() <= 1
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view"))
    ksp.view(viewer)
    viewer.flush()
    text = (tmp_path / "view").read_text()
    assert "Triton kernels on the CPU, interpreted; a step is one CUDA graph" in text
    assert "dense inverse" in text and "level 1: " in text


def test_vectors_on_a_gpu_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of the host stand in for them, by the same calls."""
    monkeypatch.setattr(device_vectors, "on_gpu", lambda vec: True)
    monkeypatch.setattr("petsc_dcdm.solver.loop.steps.on_gpu", lambda vec: True)
    A = to_petsc(assembled(*conductances(SHAPE, (False,) * 3)))
    b = right_hand_side(A)
    modes = []
    tensor = device_vectors.VecBox._tensor
    monkeypatch.setattr(
        device_vectors.VecBox, "_tensor", lambda self, mode: (modes.append(mode), tensor(self, mode))[1]
    )
    before = b.getArray().copy()
    ksp, x = solve(A, b, ksp_rtol=1e-8, pc_dcdm_device="cuda")
    assert modes == ["r", "w"]  # b, once; x, once
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) < 1e-8 and (b.getArray() == before).all()
    z = b.duplicate()
    ksp.getPC().apply(b, z)
    assert modes[2:] == ["r", "w"] and z.norm() > 0
    seen = []
    ksp.setMonitor(lambda ksp, its, norm: seen.append(relative_residual(A, x, b)))
    ksp.setConvergenceHistory(reset=True)
    ksp.solve(b, x)
    norms = ksp.getConvergenceHistory()
    assert np.allclose(seen, norms / norms[0], rtol=1e-6)  # x is that of the iteration wherever somebody looks
    ksp.monitorCancel()
    ksp.destroy()


def test_auto_follows_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mat:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def getVecType(self) -> str:
            return self.kind

    knows = SimpleNamespace(Sys=SimpleNamespace(hasExternalPackage=lambda name: name == "cuda"))
    wanted = device_vectors.device_wanted
    assert wanted("auto", Mat("seq")) == "auto"  # a PETSc without GPUs beside one
    monkeypatch.setattr(device_vectors, "PETSc", knows)
    assert wanted("auto", Mat("seqcuda")) == "auto" and wanted("auto", Mat("seq")) == "cpu"
    assert wanted("cuda:1", Mat("seq")) == "cuda:1" and wanted("cpu", Mat("seqcuda")) == "cpu"


def test_what_is_not_served_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(SerialLayout((8, 8, 8), ((0, 1, 2),))) is None
    assert "use more GPUs" in str(why_not(SerialLayout((2048, 2048, 1024), ())))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "Triton is not installed" in str(why_not(SerialLayout((8, 8, 8), ((0, 1, 2),))))


ON_RANKS = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import triton_interpreter
from petsc4py import PETSc
from ring_systems import assembled, conductances, to_petsc
from systems import relative_residual, right_hand_side
def solver(A, grid, device, kind):
    options = PETSc.Options()
    options["pc_dcdm_device"], options["pc_dcdm_grid"], options["ksp_rtol"] = device, grid, 1e-6
    ksp = PETSc.KSP().create()
    ksp.setOperators(A)
    ksp.setType(kind)
    part, ours = (ksp, "petsc_dcdm.KSP") if kind == "python" else (ksp.getPC(), "petsc_dcdm.PC")
    part.setType("python")
    part.setPythonType(ours)
    ksp.setFromOptions()
    return ksp
def check(ksp, A, b):
    x = b.duplicate()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and relative_residual(A, x, b) <= 1e-6
    PETSc.Sys.Print("iterations", ksp.getIterationNumber())
def on_kernels(ksp):
    return "Triton" in ksp.getPC().getPythonContext()._backend.description
"""


def iterations(said: str) -> list[int]:
    words = said.split()
    return [int(number) for word, number in zip(words, words[1:], strict=False) if word == "iterations"]


@pytest.mark.mpi
def test_two_ranks_take_the_steps_of_one(mpirun: Any) -> None:
    code = """
A = to_petsc(assembled(*conductances((1, 34, 36), (False,) * 3)), PETSc.COMM_WORLD)
for device in ("cpu", "cuda"):
    ksp = solver(A, "36,34", device, "python")
    check(ksp, A, right_hand_side(A))
    assert on_kernels(ksp) is (device == "cuda")
"""
    on_cpu, on_gpu = iterations(mpirun(2, ON_RANKS + code, timeout=300))
    assert abs(on_cpu - on_gpu) <= 1


@pytest.mark.mpi
def test_one_of_two_ranks_works_a_gpu_for_both(mpirun: Any) -> None:
    code = """
from petsc_dcdm.backends.gpu.launches import Launch
from petsc_dcdm.solver import pc
works = PETSc.COMM_WORLD.rank == 0
pc.choose_device = lambda wish, comm: ("interpreter" if works else "cpu", (0,))
run = Launch.run
def only_there(launch):
    assert works, launch.name + " on a rank without a GPU"
    run(launch)
Launch.run = only_there
A = to_petsc(assembled(*conductances((1, 20, 24), (False,) * 3)), PETSc.COMM_WORLD)
for kind in ("python", "fcg"):
    ksp = solver(A, "24,20", "cuda", kind)
    for _ in range(2):
        A.scale(2.0)
        ksp.setOperators(A)
        check(ksp, A, right_hand_side(A))
    assert on_kernels(ksp)
    ksp.view(PETSc.Viewer().createASCII("/dev/null", comm=PETSc.COMM_WORLD))
"""
    its = iterations(mpirun(2, ON_RANKS + code, timeout=300))
    assert len(its) == 4 and 0 < min(its) and max(its) <= 5


@pytest.mark.slow
def test_the_check_of_a_card_is_rehearsed(tmp_path: Path) -> None:
    """To the last line, without safetensors, PETSc and MPI; solves end early, the interpreter is slow."""
    blocked = "import sys; [sys.modules.__setitem__(m, None) for m in ('petsc4py', 'mpi4py', 'safetensors')]"
    (tmp_path / "sitecustomize.py").write_text(blocked)
    command = [sys.executable, "-W", "ignore", str(ROOT / "run_scripts" / "gpu_check.py"), "--interpret"]
    command += ["--size", "11", "--families", "tank", "--rtol", "0.3", "--out", str(tmp_path / "check.json")]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "check.json").read_text())
    assert not found["failed"] and not found["left_out"]
    assert found["parts"]["size 11"]["same_every_time"] and found["parts"]["families"]["tank"]["agrees"]
    assert (tmp_path / "check.md").read_text().rstrip().endswith("All that was checked is right.")
    assert (tmp_path / "check.png").stat().st_size > 1000
