"""Arguments that several commands take, and those that are PETSc's."""

from __future__ import annotations

import argparse


def triple(text: str) -> tuple[float, float, float]:
    """``X,Y,Z``; ArgumentTypeError otherwise."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers X,Y,Z") from None
    return x, y, z


def is_option(word: str) -> bool:
    """Whether a word of the command line is an option, not a value: it begins with a dash and is no negative number."""
    return word.startswith("-") and word[1:2] not in tuple("0123456789.")


def split_petsc_options(argv: list[str]) -> tuple[list[str], list[str]]:
    """(our arguments, PETSc's): PETSc's start with one dash and more than one letter, values included."""
    ours: list[str] = []
    petsc: list[str] = []
    target = ours
    for word in argv:
        if is_option(word):
            target = petsc if len(word) > 2 and not word.startswith("--") else ours
        target.append(word)
    return ours, petsc
