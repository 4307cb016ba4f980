"""The ctypes structures that mirror those of C: compared, field by field, with what the library says of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TypeVar

_Structure = TypeVar("_Structure", bound=type[ctypes.Structure])

#: The classes, by the name of the structure in C.
_mirrors: dict[str, type[ctypes.Structure]] = {}
#: How many of them have been compared with a library. Modules may declare more after it was loaded.
_compared: dict[ctypes.CDLL, int] = {}


def mirrors(name: str) -> Callable[[_Structure], _Structure]:
    """Declares the decorated class to be the structure ``name`` of C, which layouts.c must list."""

    def register(structure: _Structure) -> _Structure:
        _mirrors[name] = structure
        return structure

    return register


class _Field(ctypes.Structure):
    """field_layout of layouts.c."""

    _fields_ = [
        ("structure", ctypes.c_char_p),
        ("field", ctypes.c_char_p),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
    ]


_Layout = dict[str, tuple[int, int]]
"""Offset and size in bytes of every field of a structure, in their order; of the whole under the empty name."""


def difference(library: ctypes.CDLL) -> str | None:
    """A sentence on the first structure that is not the same in C and here; None if there is none. Looks only at those
    that have been declared since the last call for the same library that found none.
    """
    if _compared.get(library, 0) == len(_mirrors):
        return None
    theirs = _layouts(library)
    for name, structure in _mirrors.items():
        if name not in theirs:
            return f"the C kernels do not tell of a structure {name}"
        ours = _layout(structure)
        for field in sorted([*theirs[name], *ours], key=lambda field: field == ""):  # the whole last: a field says more
            if ours.get(field) != theirs[name].get(field):
                what = f"field {field} of {name}" if field else f"structure {name}"
                return f"{what} is {_place(theirs[name].get(field))} in C and {_place(ours.get(field))} in Python"
    _compared[library] = len(_mirrors)
    return None


def _layouts(library: ctypes.CDLL) -> dict[str, _Layout]:
    library.dcdm_layouts.restype = ctypes.POINTER(_Field)
    found: dict[str, _Layout] = {}
    for entry in library.dcdm_layouts():
        if entry.structure is None:
            return found
        found.setdefault(entry.structure.decode(), {})[entry.field.decode()] = entry.offset, entry.size
    raise AssertionError("a pointer has no end")


def _layout(structure: type[ctypes.Structure]) -> _Layout:
    places = {name: getattr(structure, name) for name, *_ in structure._fields_}
    return {"": (0, ctypes.sizeof(structure))} | {name: (at.offset, at.size) for name, at in places.items()}


def _place(found: tuple[int, int] | None) -> str:
    return "missing" if found is None else f"{found[1]} bytes at {found[0]}"
