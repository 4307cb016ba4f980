"""Every option of the package once: its name, default, help and check.

petsc4py has no PetscOptionsBegin, so ``-help`` does not list the options of a Python KSP or PC: :func:`print_help`
does.
Reading an option through PETSc marks it as used, which keeps ``-options_left`` silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from petsc4py import PETSc

from petsc_dcdm.grid.errors import OptionError
from petsc_dcdm.grid.shape import Periodic, Shape, parse_axes, parse_shape

Settings = TypeVar("Settings")

OF_OTHERS = ("pc_dcdm_coarse_", "pc_dcdm_fallback_", "pc_dcdm_net_", "ksp_dcdm_fallback_", "dcdm_fallback_")
"""Prefixes of the solvers of PETSc's that work inside ours; what follows them is PETSc's."""


class Option(NamedTuple):
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
    near = _similar(text, sorted(known), 0.6)
    raise ValueError("none or a PC type of PETSc" + (f": {near[0]}?" if near else ""))


def _similar(name: str, known: Sequence[str], least: float) -> list[str]:
    """The one that is most like ``name``, if any is: what somebody who has mistyped it may have meant."""
    import difflib

    return difflib.get_close_matches(name, known, 1, least)


def _preconditioner_or_auto(text: str) -> str:
    try:
        return "auto" if text == "auto" else _preconditioner(text)
    except ValueError as problem:
        raise ValueError(f"auto, {problem}") from None


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
    Option("pc_dcdm_cells", None, "file with the cell of each row: a PETSc binary index set, or .npy", str),
    Option("pc_dcdm_device", "auto", "where the network runs: auto, cpu, cuda or cuda:N", _device),
    Option(
        "pc_dcdm_box",
        "auto",
        "who has a box of the grid: every rank, every node, whose ranks then work on it together, or auto: every node "
        "where the grid has planes for at least half of its threads",
        _choice("auto", "rank", "node"),
    ),
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
    Option(
        "pc_dcdm_net",
        "auto",
        "PETSc PC type that gives the directions where the network's are too slow; auto: BoomerAMG, or GAMG; none: off",
        _preconditioner_or_auto,
    ),
)


@dataclass(frozen=True)
class PCSettings:
    """The values of `PC_OPTIONS`; ``grid`` is (nz, ny, nx), ``periodic`` in the same order."""

    model: str
    grid: Shape | None
    periodic: Periodic | None
    cells: str | None
    device: str
    box: str
    compile: str
    fallback: str
    net: str


def read(
    options: Sequence[Option], prefix: str | None, settings: type[Settings], given: dict[str, Any] | None = None
) -> Settings:
    """The values of ``options`` after ``prefix`` in the options database, where unset those ``given`` or the defaults,
    in a class whose fields have the options' names without ``ksp_dcdm_`` or ``pc_dcdm_``.

    Raises OptionError naming the option and what it may be. Not collective: PETSc's database is the same on all ranks.
    """
    database = PETSc.Options()
    values: dict[str, Any] = {}
    for option in options:
        key = (prefix or "") + option.name
        name = option.name.partition("_dcdm_")[2]
        values[name] = (given or {}).get(name, option.default)
        if not database.hasName(key):
            continue
        text = database.getString(key, "")
        try:
            values[name] = option.parse(text)
        except ValueError as problem:
            raise OptionError(f"-{key} is {text!r}; it must be {problem}") from None
    return settings(**values)


def misspelt(options: Sequence[Option], prefix: str | None) -> list[str]:
    """A sentence for each name in the database that begins like one of ``options`` and is none. Not collective."""
    begin = (prefix or "") + options[0].name.partition("_dcdm_")[0] + "_dcdm_"
    given = sorted(name for name in PETSc.Options().getAll() if name.startswith(begin))
    if not given:
        return []
    known = [(prefix or "") + option.name for option in options]
    others = tuple((prefix or "") + other for other in OF_OTHERS)
    sentences = []
    for name in given:
        if name not in known and not name.startswith(others):
            near = _similar(name, known, 0.5)
            meant = f"did you mean -{near[0]}?" if near else "there are " + ", ".join(f"-{one}" for one in known)
            sentences.append(f"there is no option -{name}, it has no effect; {meant}")
    return sentences


def checked(options: Sequence[Option], given: dict[str, Any]) -> dict[str, Any]:
    """Values set from Python, by the options' names without ``ksp_dcdm_`` or ``pc_dcdm_``: parsed as if they had come
    from the command line. A grid may be a tuple (nx, ny[, nz]). Raises OptionError.
    """
    known = {option.name.partition("_dcdm_")[2]: option for option in options}
    values = {}
    for name, value in given.items():
        if name not in known:
            near = _similar(name, list(known), 0.6)
            raise OptionError(f"there is no setting {name!r}; " + (f"{near[0]}?" if near else ", ".join(known)))
        text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
        try:
            values[name] = known[name].default if value is None else known[name].parse(text)
        except ValueError as problem:
            raise OptionError(f"the setting {name} is {value!r}; it must be {problem}") from None
    return values


_listed: set[tuple[str, str | None]] = set()


def print_help(options: Sequence[Option], prefix: str | None, title: str, comm: PETSc.Comm) -> None:
    """Lists ``options`` in PETSc's own layout if ``-help`` was given; like PETSc, each once in a process. Collective on
    ``comm`` (rank 0 prints).
    """
    if not PETSc.Options().hasName("help") or (title, prefix) in _listed:
        return
    _listed.add((title, prefix))
    lines = [f"{title} options", "-" * 40]
    lines += [
        f"  -{prefix or ''}{option.name} <{'' if option.default is None else option.default}>: {option.help}"
        for option in options
    ]
    PETSc.Sys.Print("\n".join(lines), comm=comm)


@contextmanager
def option_defaults(prefix: str, values: dict[str, str]) -> Iterator[None]:
    """Options that the user has not given, for the length of the block."""
    database = PETSc.Options(prefix)
    missing = {name: value for name, value in values.items() if not database.hasName(name)}
    for name, value in missing.items():
        database[name] = value
    try:
        yield
    finally:
        for name in missing:
            database.delValue(name)
