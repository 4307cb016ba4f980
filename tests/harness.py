"""Running things under mpirun for the tests: never hangs, shows the output when something fails.

``mpirun(2, "check.py")`` and ``mpirun(2, "print(1)")`` run Python, through ``tests/mpi/runner.py``, which
finalises PETSc before Python ends and aborts every rank when one fails; ``mpirun_program(2, ["./ex45",
"-python"])`` runs a program.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "tests" / "mpi" / "runner.py"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a program under test: one thread, this venv first in PATH, no PETSc options of the caller's.

    Open MPI looks for no networks, which takes a quarter of a second, and ranks that wait let others have their core.
    """
    env = dict(os.environ)
    for name in ("PETSC_OPTIONS", "PYTHONSTARTUP", "TRITON_INTERPRET"):
        env.pop(name, None)
    env.update(
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_pml="ob1",
        OMPI_MCA_mpi_yield_when_idle="1",
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        MPLBACKEND="Agg",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
    )
    env.update(extra or {})
    return env


def run_program(
    argv: Sequence[str | Path],
    *,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    expect: int | None = 0,
) -> str:
    """Runs a program and returns its stdout and stderr together.

    ``expect`` is the exit status it must have (None: any). Raises AssertionError, with the whole output, on
    another status or when ``timeout`` seconds have passed; then nothing of the program is left running.
    """
    command = [str(a) for a in argv]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(env),
            cwd=cwd,
            start_new_session=True,
        )
        late = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
            started = descendants(process.pid)
            # mpirun passes SIGTERM on to its ranks, which are in process groups of their own
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pid in started:  # ranks that PETSc's handler of SIGTERM keeps alive
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        output.seek(0)
        text = output.read().decode(errors="replace")
    shown = f"$ {' '.join(command)[:2000]}\n{text}"
    assert not late, f"still running after {timeout} s\n{shown}"
    assert expect is None or process.returncode == expect, f"exit status {process.returncode}\n{shown}"
    return text


def descendants(pid: int) -> list[int]:
    """The processes that one has started, and that those have started."""
    parent = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:
        found += [child for child, of in parent.items() if of == known]
    return found[1:]


def mpirun_program(
    ranks: int,
    argv: Sequence[str | Path],
    *,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    expect: int | None = 0,
) -> str:
    """:func:`run_program` under ``mpirun -n ranks``: more ranks than cores allowed, no binding."""
    launcher = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none"]
    return run_program([*launcher, *argv], timeout=timeout, env=env, cwd=cwd, expect=expect)


def mpirun(
    ranks: int,
    script_or_code: str | Path,
    *args: str | Path,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    expect: int | None = 0,
) -> str:
    """Runs a Python file (a Path, or a string that ends in ``.py``) or Python source text on ``ranks`` ranks.

    Functions of the file named ``test_*`` are called, in order, on all ranks. An exception on any rank aborts
    them all. Returns the output of all ranks together; see :func:`run_program` for the errors.
    """
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(script_or_code, Path) or script_or_code.endswith(".py"):
            script = Path(script_or_code)
        else:
            script = Path(folder) / "code.py"
            script.write_text(script_or_code)
        argv = [sys.executable, RUNNER, script, *args]
        return mpirun_program(ranks, argv, timeout=timeout, env=env, cwd=cwd, expect=expect)


def iterations(output: str) -> int:
    """Iterations, from the last line of ``-ksp_converged_reason``; fails if that solve did not converge."""
    line = r"Linear (?:\S+ )?solve (converged|did not converge) due to (\w+) iterations (\d+)"
    found = re.findall(line, output)
    assert found, f"no -ksp_converged_reason line in:\n{output}"
    assert found[-1][0] == "converged", f"{found[-1]} in:\n{output}"
    return int(found[-1][2])


def true_residuals(output: str) -> list[float]:
    """The relative true residuals that ``-ksp_monitor_true_residual`` printed, iteration 0 first."""
    return [float(x) for x in re.findall(r"\|\|r\(i\)\|\|/\|\|b\|\|\s+(\S+)", output)]


def clear_options() -> None:
    """Empties PETSc's options database, if PETSc is loaded (``Options().clear()`` does not on 3.18)."""
    petsc = sys.modules.get("petsc4py.PETSc")
    if petsc is not None:
        options = petsc.Options()
        for name in options.getAll():
            options.delValue(name)
