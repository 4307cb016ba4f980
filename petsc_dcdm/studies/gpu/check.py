"""The GPU backend on the card of this machine, in minutes: is it right, and how fast? For run_scripts/gpu_check.py.

Every part is written down as soon as it is over, and a part that fails says why and does not stop the others.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.network.weights import ModelFile
from petsc_dcdm.studies.gpu import problems, rivals
from petsc_dcdm.studies.gpu.solves import OnDevice, Reference, made_ready, solve, timed, wait


class Check:
    """All parts, for one device. ``limit``: seconds after which no further part begins."""

    def __init__(
        self, file: ModelFile, device: torch.device, out: Path, limit: float, born: float, rtol: float
    ) -> None:
        self._file, self._device, self._out, self._limit, self._born = file, device, out, limit, born
        self._rtol = rtol
        self.found: dict[str, Any] = {"parts": {}, "failed": {}, "left_out": []}

    def part(self, name: str, work: Callable[[], Any]) -> Any:
        """Run it, and write down what it returns or why it failed."""
        if time.time() - self._born > self._limit:
            self.found["left_out"].append(name)
            return None
        begin, value = time.perf_counter(), None
        try:
            value = work()
            self.found["parts"][name] = value
        except Exception as error:  # the others are still worth their time
            self.found["failed"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        print(f"[{time.time() - self._born:6.1f} s] {name}: {time.perf_counter() - begin:.1f} s", flush=True)
        self._out.write_text(json.dumps(self.found, indent=1) + "\n")
        return value

    # The parts -------------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, Any]:
        import triton

        cuda = self._device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self._device) if cuda else "the CPU, interpreted",
            "memory_gb": torch.cuda.get_device_properties(self._device).total_memory / 1e9 if cuda else None,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "triton": triton.__version__,
            "python": platform.python_version(),
        }

    def cold_start(self, n: int) -> dict[str, float]:
        """From the start of the process: kernels compiled or found in Triton's cache, first set-up and solve."""
        problem, active = problems.tank(n, self._device)
        begin = time.time()
        _, loop = made_ready(self._file, problem, self._device)
        wait(self._device)
        ready = time.time()
        solve(loop, problems.right_hand_side(active, False, False), self._rtol)
        return {"setup_s": ready - begin, "solve_s": time.time() - ready, "since_start_s": time.time() - self._born}

    def bandwidth(self) -> float:
        """GB/s of copies on the device, bytes read and written."""
        n = 1 << (28 if self._device.type == "cuda" else 22)
        a, b = (torch.zeros(n, device=self._device) for _ in range(2))
        return 8e-9 * n / timed(self._device, lambda: b.copy_(a), 20)

    def correctness(self, n: int) -> dict[str, float]:
        """Of the cycle against torch on the CPU, of x and r against each other in double precision, there and here."""
        shape = (n, n - 1, n + 3)
        problem, active = problems.family("tank", shape)
        reference = Reference(self._file, problem)
        backend, loop = made_ready(self._file, problem, self._device)
        r = np.random.default_rng(0).standard_normal(shape) * active
        outs = np.empty((2, *shape))
        backend.hierarchy.apply(r, outs[0], 1.0, 1.0)
        reference.network.apply(r, outs[1], 1.0, 1.0)
        norm = float(np.sqrt((r * r).sum()))
        arrays = [OnDevice(torch.zeros(shape, dtype=torch.float64, device=self._device)) for _ in range(2)]
        b = torch.from_numpy(r).to(self._device)
        loop.start(arrays[0], arrays[1], OnDevice(b), guess=False)
        for _ in range(3):
            norm = loop.step(norm).norm
        loop.store(residual=True)
        x, rest = (a.tensor.cpu() for a in arrays)
        true = torch.from_numpy(r) - reference.multiply(x)
        again = loop.residual(OnDevice(b))
        return {
            "cycle_relative_difference": float(np.abs(outs[0] - outs[1]).max() / np.abs(outs[1]).max()),
            "residual_relative_difference": float((true - rest).abs().max() / np.abs(r).max()),
            "norm_relative_difference": abs(again / float(torch.linalg.vector_norm(true)) - 1.0),
        }

    def families(self, n: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Iterations here and in double precision on the CPU, with a random and a smooth right-hand side."""
        found = {}
        for name in names:
            problem, active = problems.family(name, (n, n, n))
            reference = Reference(self._file, problem)
            _, loop = made_ready(self._file, problem, self._device)
            there = torch.from_numpy(active)
            row: dict[str, Any] = {}
            for kind in ("random", "smooth"):
                b = problems.right_hand_side(there, kind == "smooth", problem.closed > 0)
                here, cpu = solve(loop, b.to(self._device), self._rtol), reference.solve(b, self._rtol)
                true = b - reference.multiply(here.x.cpu())
                row[kind] = {
                    "iterations": here.iterations,
                    "cpu_iterations": cpu.iterations,
                    "true_relative_residual": float(torch.linalg.vector_norm(true) / torch.linalg.vector_norm(b)),
                }
            row["agrees"] = all(abs(v["iterations"] - v["cpu_iterations"]) <= 1 for v in row.values())
            found[name] = row
        return found

    def size(self, n: int, copy: float | None) -> dict[str, Any]:
        """Times of set-up, cycle, step and solve of n^3 cells on the device, from packed stencils on the host."""
        device, cuda = self._device, self._device.type == "cuda"
        problem, active = problems.tank(n, device)
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if cuda else 0
        parts: list[Any] = []

        def set_up() -> None:
            parts.clear()
            parts.extend(made_ready(self._file, problem, device))

        set_up_s = timed(device, set_up, 3 if cuda and n <= 256 else 1)
        backend, loop = parts
        kept = torch.cuda.memory_allocated(device) - before if cuda else 0
        peak = torch.cuda.max_memory_allocated(device) - before if cuda else 0
        cycle = LaunchSequence(device)
        backend.hierarchy.add_cycle(cycle)
        cycle.run()
        cycle.capture()
        repeats = 20 if cuda else 1

        def cycles() -> None:
            for _ in range(repeats):
                cycle.run()

        cycle_s = timed(device, cycles) / repeats
        b = problems.right_hand_side(active, False, False)
        solves = [solve(loop, b, self._rtol) for _ in range(4 if cuda else 1)]
        host = b.cpu().numpy()
        x = np.zeros(host.shape)

        def from_host() -> None:
            norm = first = float(np.linalg.norm(host))
            loop.start(x, x, host, guess=False)
            while norm > self._rtol * first:
                norm = loop.step(norm).norm
            loop.residual(host)
            loop.store()

        from_host_s = timed(device, from_host, 2 if cuda else 1)
        step_s = min(s.seconds for s in solves) / solves[0].iterations
        return {
            "unknowns": backend.hierarchy.levels[0].unknowns,
            "levels": len(backend.hierarchy.levels),
            "iterations": solves[0].iterations,
            "same_every_time": len({tuple(s.history) for s in solves}) == 1,
            "setup_s": set_up_s,
            "cycle_s": cycle_s,
            "solve_s": min(s.seconds for s in solves),
            "solve_per_iteration_s": step_s,
            "solve_from_host_s": from_host_s,
            "launches_a_step": loop.sequence.launches,
            "cycle_gb": cycle.bytes / 1e9,
            "step_gb": loop.sequence.bytes / 1e9,
            "cycle_share_of_copies": cycle.bytes / 1e9 / cycle_s / copy if copy else None,
            "kept_gb": kept / 1e9,
            "peak_gb": peak / 1e9,
        }

    def rivals(self, n: int) -> dict[str, Any]:
        """Other weights in the same loop and conjugate gradients, on the tank of n^3 cells."""
        problem, active = problems.tank(n, self._device)
        b = problems.right_hand_side(active, False, False)
        found: dict[str, Any] = {}
        files = {"ours": self._file, "chebyshev": rivals.chebyshev(), "geometric v-cycle": rivals.damped_jacobi()}
        for name, file in files.items():
            _, loop = made_ready(file, problem, self._device)
            if self._device.type == "cuda":
                solve(loop, b, self._rtol, 200)  # which compiles
            solved = solve(loop, b, self._rtol, 200)
            found[name] = {"iterations": solved.iterations, "solve_s": solved.seconds, "reached": solved.history[-1]}
        found["jacobi cg, csr"] = rivals.conjugate_gradients(problem, b, self._rtol)
        return found


def run(
    file: ModelFile,
    device: torch.device,
    out: Path,
    *,
    sizes: Sequence[int],
    small: int,
    names: Sequence[str],
    limit: float,
    born: float,
    rtol: float,
    compiled: bool,
) -> dict[str, Any]:
    """All parts in the order of what they are worth; what was found is in ``out`` as well."""
    check = Check(file, device, out, limit, born, rtol)
    check.part("environment", check.environment)
    check.part("cold start", lambda: check.cold_start(small))
    copy = check.part("copies, GB/s", check.bandwidth)
    check.part("correctness", lambda: check.correctness(small))
    for n in sizes:
        check.part(f"size {n}", lambda n=n: check.size(n, copy))  # type: ignore[misc]
    check.part("families", lambda: check.families(small, names))
    middle = sizes[min(1, len(sizes) - 1)]
    check.part("rivals", lambda: check.rivals(middle))
    problem = check.part("eager torch", lambda: rivals.in_torch(file, problems.tank(middle, device)[0], device, False))
    if compiled and problem is not None:
        check.part("torch.compile", lambda: rivals.in_torch(file, problems.tank(middle, device)[0], device, True))
    check.found["seconds"] = time.time() - born
    out.write_text(json.dumps(check.found, indent=1) + "\n")
    return check.found


def verdict(found: dict[str, Any], rtol: float) -> list[str]:
    """What is wrong; nothing if all is well."""
    parts, wrong = found["parts"], [f"{name} failed: {why}" for name, why in found["failed"].items()]
    right = parts.get("correctness", {})
    limits = {
        "cycle_relative_difference": 0.03,
        "residual_relative_difference": 1e-11,
        "norm_relative_difference": 1e-9,
    }
    wrong += [f"{name} is {right[name]:.1e}" for name, most in limits.items() if right.get(name, 0.0) > most]
    for name, row in parts.get("families", {}).items():
        if not row["agrees"]:
            wrong.append(f"{name}: other iterations than on the CPU: {row}")
        elif max(row[kind]["true_relative_residual"] for kind in ("random", "smooth")) > 1.01 * rtol:
            wrong.append(f"{name}: the residual that was claimed is not there: {row}")
    wrong += [f"{name}: not the same every time" for name, row in parts.items() if name.startswith("size ")
              and not row["same_every_time"]]  # fmt: skip
    return wrong


if __name__ == "__main__":
    sys.exit("run_scripts/gpu_check.py runs this")
