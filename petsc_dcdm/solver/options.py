"""Every option of the package once: its name, default, help and check.

petsc4py has no PetscOptionsBegin, so ``-help`` does not list the options of a Python KSP or PC: :func:`print_help`
does.
Reading an option through PETSc marks it as used, which keeps ``-options_left`` silent.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from petsc4py import PETSc

from petsc_dcdm.grid.errors import OptionError
from petsc_dcdm.grid.shape import Periodic, Shape, parse_axes, parse_shape

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Option:
    """One entry of the options database. ``parse`` turns the text into the value or raises ValueError saying what is
    allowed.
    """

    name: str
    default: Any
    help: str
    parse: Callable[[str], Any]


def _integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise ValueError(f"an integer of at least {minimum}")
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.lower()

    return parse


def _device(text: str) -> str:
    value = text.lower()
    kind, _, index = value.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError("auto, cpu, cuda or cuda:N")
    return value


def _preconditioner(text: str) -> str:
    known = {name for key, name in vars(PETSc.PC.Type).items() if not key.startswith("_") and isinstance(name, str)}
    if text == "none" or text in known or _registered(text):
        return text
    near = difflib.get_close_matches(text, sorted(known), 1)
    raise ValueError("none or a PC type of PETSc" + (f": {near[0]}?" if near else ""))


def _registered(kind: str) -> bool:
    """Whether the program has brought a PC of this type."""
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    try:
        pc.setType(kind)
    except PETSc.Error:
        return False
    finally:
        pc.destroy()
    return True


KSP_OPTIONS = (
    Option(
        "ksp_dcdm_operator",
        "auto",
        "what the loop multiplies by: mat (the matrix), stencil (what was extracted from it, on the grid), or auto",
        _choice("auto", "mat", "stencil"),
    ),
    Option("ksp_dcdm_history", 2, "directions kept to make the next one A-orthogonal to (m of the paper)", _integer(0)),
    Option(
        "ksp_dcdm_true_residual_every",
        50,
        "steps between replacements of r by b - A x; 0: only before convergence is claimed",
        _integer(0),
    ),
)

PC_OPTIONS = (
    Option("pc_dcdm_model", "multigrid", "network: multigrid, cnn, cnn-64, or a weights file", str),
    Option("pc_dcdm_grid", None, "cells of the grid as nx,ny[,nz] where no DMDA tells it", parse_shape),
    Option(
        "pc_dcdm_periodic",
        None,
        "axes that are periodic, as x,y: seen in the matrix, but for axes of two cells",
        parse_axes,
    ),
    Option("pc_dcdm_device", "auto", "where the network runs: auto, cpu, cuda or cuda:N", _device),
    Option(
        "pc_dcdm_compile",
        "auto",
        "compiled kernels: on, off (plain torch), or auto: on where there is a compiler",
        _choice("auto", "on", "off"),
    ),
    Option(
        "pc_dcdm_fallback",
        "none",
        "PETSc PC type used when the matrix is not one the network can serve; none: it is an error",
        _preconditioner,
    ),
)


@dataclass(frozen=True)
class PCSettings:
    """The values of `PC_OPTIONS`; ``grid`` is (nz, ny, nx), ``periodic`` in the same order."""

    model: str
    grid: Shape | None
    periodic: Periodic | None
    device: str
    compile: str
    fallback: str


def read(options: Sequence[Option], prefix: str | None, settings: type[Settings]) -> Settings:
    """The values of ``options`` after ``prefix`` in the options database, defaults where unset, in a class whose fields
    have the options' names without ``ksp_dcdm_`` or ``pc_dcdm_``.

    Raises OptionError naming the option and what it may be. Not collective: PETSc's database is the same on all ranks.
    """
    database = PETSc.Options()
    values: dict[str, Any] = {}
    for option in options:
        key = (prefix or "") + option.name
        name = option.name.partition("_dcdm_")[2]
        values[name] = option.default
        if not database.hasName(key):
            continue
        text = database.getString(key, "")
        try:
            values[name] = option.parse(text)
        except ValueError as problem:
            raise OptionError(f"-{key} is {text!r}; it must be {problem}") from None
    return settings(**values)


def print_help(options: Sequence[Option], prefix: str | None, title: str, comm: PETSc.Comm) -> None:
    """Lists ``options`` in PETSc's own layout if ``-help`` was given. Collective on ``comm`` (rank 0 prints)."""
    if not PETSc.Options().hasName("help"):
        return
    lines = [f"{title} options", "-" * 40]
    lines += [
        f"  -{prefix or ''}{option.name} <{'' if option.default is None else option.default}>: {option.help}"
        for option in options
    ]
    PETSc.Sys.Print("\n".join(lines), comm=comm)
