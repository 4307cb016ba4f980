"""The structures of C and their mirrors in Python: the same to the byte, or refused with a sentence."""

from __future__ import annotations

import ctypes

import pytest

import petsc_dcdm.solver.pc  # noqa: F401  (declares all of them)
from petsc_dcdm.native import structures
from petsc_dcdm.native.binding import Geometry, Level, kernels
from petsc_dcdm.native.build import KernelsUnavailable, library
from petsc_dcdm.stencil import walls
from petsc_dcdm.stencil.entries import binding as entries_binding


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[ctypes.Structure]]:
    """A copy of what is declared, and nothing that has been compared yet."""
    declared = dict(structures._mirrors)
    monkeypatch.setattr(structures, "_mirrors", declared)
    monkeypatch.setattr(structures, "_compared", {})
    return declared


def test_every_structure_of_c_has_its_mirror(registry: dict[str, type[ctypes.Structure]]) -> None:
    assert structures.difference(library()) is None
    assert set(structures._layouts(library())) == set(registry)
    assert {entries_binding.Matrix, walls._Grid, Level} <= set(registry.values())
    assert all(type_.__module__.startswith("petsc_dcdm.") for type_ in registry.values())


def test_every_ctypes_structure_is_declared(registry: dict[str, type[ctypes.Structure]]) -> None:
    ours = {type_ for type_ in ctypes.Structure.__subclasses__() if type_.__module__.startswith("petsc_dcdm.")}
    assert ours == {*registry.values(), structures._Field}


Fields = list[tuple[str, type]]


def exchanged(fields: Fields) -> Fields:
    return [fields[1], fields[0], *fields[2:]]


def narrowed(fields: Fields) -> Fields:
    return [(name, ctypes.c_float if name == "rounding" else kind) for name, kind in fields]


def shortened(fields: Fields) -> Fields:
    return fields[:-1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (exchanged, "field rows of csr_matrix is 8 bytes at 0 in C and 8 bytes at 8 in Python"),
        (narrowed, "field rounding of csr_matrix is 8 bytes at 216 in C and 4 bytes at 216 in Python"),
        (shortened, "field sum_rounding of csr_matrix is 8 bytes at 224 in C and missing in Python"),
        (
            lambda fields: [*fields, ("more", ctypes.c_int64)],
            "field more of csr_matrix is missing in C and 8 bytes at 232",
        ),
    ],
)
def test_a_difference_is_a_sentence(registry: dict[str, type[ctypes.Structure]], change, sentence: str) -> None:
    fields = change(list(entries_binding.Matrix._fields_))
    registry["csr_matrix"] = type("Other", (ctypes.Structure,), {"_fields_": fields})
    for call in (library, kernels.__wrapped__):
        with pytest.raises(KernelsUnavailable, match=f"do not fit this Python code: {sentence}"):
            call()
    registry["csr_matrix"] = entries_binding.Matrix
    assert library() is not None


def test_a_structure_that_c_does_not_tell_of(registry: dict[str, type[ctypes.Structure]]) -> None:
    """Declared by a module that is imported after the library was loaded."""
    library()
    registry["dcdm_unknown"] = Level
    with pytest.raises(KernelsUnavailable, match="do not tell of a structure dcdm_unknown"):
        library()


def test_a_level_of_python_is_one_of_c() -> None:
    level = Geometry((3, 4, 21), flat=False).level()
    level.steps = 2
    slot = (4 + 2) * 32 + 16
    assert kernels().dcdm_work_floats(ctypes.byref(level)) == (4 * 2 + 1) * slot + 32 + 32
