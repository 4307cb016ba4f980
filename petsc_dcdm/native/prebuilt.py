"""Kernels compiled ahead for whole families of processors: for machines without a compiler, and wheels.

A directory of them is made by ``petsc-dcdm warmup --out DIR`` where there is a compiler and named by the environment
variable PETSC_DCDM_KERNELS where there is none. The names tell what a library was made from and which processors run
it, not which compiler made it.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from petsc_dcdm.native.cache import require_private
from petsc_dcdm.native.processor import processor_features

DIRECTORY_VARIABLE = "PETSC_DCDM_KERNELS"


class Target(NamedTuple):
    """A family of processors: its name in file names, the compiler's flags for it, what /proc/cpuinfo must list."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
TARGETS = {
    "x86_64": (
        Target(
            "x86-64-v4-bf16", ("-march=x86-64-v4", "-mavx512bf16"), frozenset(_V4 | {"avx512_bf16", "AuthenticAMD"})
        ),
        Target("x86-64-v4", ("-march=x86-64-v4",), frozenset(_V4)),
        Target("x86-64-v3", ("-march=x86-64-v3",), frozenset(_V3)),
        Target("x86-64-v2", ("-march=x86-64-v2",), _V2),
    ),
    "aarch64": (Target("armv8-a", ("-march=armv8-a",), frozenset({"asimd"})),),
}
"""By machine, the best first; levels as in the psABI of x86-64. Pairs of bfloat16 pay on AMD's processors: Intel's take
four times as long for a product of pairs as for one of single precision."""


def targets() -> tuple[Target, ...]:
    """Those of this kind of machine, the best first."""
    return TARGETS.get(platform.machine(), ())


def library_name(sources: Sequence[Path], half: bool, target: Target) -> str:
    """The file name of a library made from these sources. `half`: with bfloat16 coefficients."""
    return _stem(sources, half) + f"-{target.name}.so"


def _stem(sources: Sequence[Path], half: bool) -> str:
    """The part of the name that all targets share."""
    digest = hashlib.sha256(bytes([half]))
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}"


def find(directory: Path, sources: Sequence[Path], half: bool) -> Path | None:
    """The best library for this processor in the directory; None where there is none of these sources.

    Raises OSError where others than this user and root may write there.
    """
    features, stem = processor_features(), _stem(sources, half)
    for target in targets():
        library = directory / f"{stem}-{target.name}.so"
        if target.needs <= features and library.exists():
            require_private(directory)
            require_private(library)
            return library
    return None
