"""The command `petsc-dcdm`: finds the subcommand and imports only what that one needs.

Bad input is one sentence on stderr and exit code 2; a solver that did not converge is exit code 1, a matrix that
`check` finds refused is exit code 3.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from importlib import import_module
from typing import NamedTuple

from petsc_dcdm import __version__
from petsc_dcdm.commands.arguments import split_petsc_options


class Command(NamedTuple):
    """Where a subcommand lives: ``module.add`` adds its parser, which carries the function to call as ``run``."""

    module: str
    add: str
    help: str
    petsc_options: bool = False  # whether options with a single dash are PETSc's (args.petsc_options)


COMMANDS = {
    "solve": Command("petsc_dcdm.commands.solve", "add_solve_parser", "solve one pressure system", True),
    "flow": Command("petsc_dcdm.commands.flow", "add_flow_parser", "simulate smoke or water", True),
    "check": Command("petsc_dcdm.commands.check", "add_check_parser", "will a matrix be served, and how", True),
    "compare": Command("petsc_dcdm.compare.cli", "add_compare_parser", "time any solvers on any system"),
    "train": Command("petsc_dcdm.commands.train", "add_train_parser", "train a network and write its weights file"),
    "info": Command("petsc_dcdm.commands.info", "add_info_parser", "show weights, kernels and what this machine has"),
    "warmup": Command("petsc_dcdm.commands.info", "add_warmup_parser", "compile the kernels ahead of the first solve"),
}

EXTRAS = {
    "rich": "rich",
    "trimesh": '"petsc-dcdm[mesh]"',
    "scipy": '"petsc-dcdm[mesh]"',
    "matplotlib": '"petsc-dcdm[plot]"',
    "torch": "torch",
}
"""Packages that a solve does without, and what brings them."""

PATIENCE = 5.0  # seconds that a rank with an error waits for the others to have it too


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit code. argv: without the program's name, sys.argv's if None."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="petsc-dcdm", description="Deep conjugate direction solver for PETSc: see petsc-dcdm COMMAND --help."
    )
    parser.add_argument("--version", action="version", version=f"petsc-dcdm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if name == chosen:
            getattr(import_module(command.module), command.add)(subparsers)
        else:
            subparsers.add_parser(name, help=command.help)
    petsc_options: list[str] = []
    if chosen in COMMANDS and COMMANDS[chosen].petsc_options:
        argv, petsc_options = split_petsc_options(argv)
    args = parser.parse_args(argv)
    args.petsc_options = petsc_options
    try:
        return int(args.run(args))
    except (ValueError, OSError) as error:  # what the package raises for bad input is a ValueError with a sentence
        _complain(error)
        return 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            _abort_if_parallel()
            raise
        install = f"pip install {EXTRAS[missing]}"
        _complain(ImportError(f"this command needs {missing}, which is not installed here: {install}"))
        return 2
    except Exception as error:
        if isinstance(error.__cause__, (ValueError, OSError)):  # newer versions of PETSc wrap what Python types raise
            _complain(error.__cause__)
            return 2
        _abort_if_parallel()
        raise


def _complain(error: Exception) -> None:
    """Say it once: rank 0 does, and a rank that is alone with its error, which then ends all of them."""
    mpi = sys.modules.get("mpi4py.MPI")
    comm = mpi.COMM_WORLD if mpi else None
    if comm is None or comm.rank == 0:
        print(f"petsc-dcdm: {error}", file=sys.stderr, flush=True)
    if comm is None or comm.size == 1:
        return
    met, deadline = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not met.Test():
        if time.monotonic() > deadline:
            if comm.rank:
                print(f"petsc-dcdm: rank {comm.rank}: {error}", file=sys.stderr, flush=True)
            comm.Abort(2)
        time.sleep(0.01)


def _abort_if_parallel() -> None:
    """Print the traceback and end all ranks, which would wait for this one for ever."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi and mpi.COMM_WORLD.size > 1:
        traceback.print_exc()
        sys.stderr.flush()
        mpi.COMM_WORLD.Abort(1)


if __name__ == "__main__":
    sys.exit(main())
