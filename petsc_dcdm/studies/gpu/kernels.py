"""Every Triton kernel compiled for real GPUs, on any machine: registers, spills and shared memory of each.

    python -m petsc_dcdm.studies.gpu.kernels [--architectures sm_90,gfx942] [--json FILE]

No GPU is needed: the compilers are in Triton's wheel. Which kernels there are, and for which types of arguments, is
taken from the launches of set-ups and steps on torch's device "meta".
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from petsc_dcdm.backends.gpu.halos import BLOCK
from petsc_dcdm.backends.gpu.hierarchy import GpuHierarchy
from petsc_dcdm.backends.gpu.kernels.cycle import CORRECT
from petsc_dcdm.backends.gpu.kernels.halos import pack, unpack
from petsc_dcdm.backends.gpu.kernels.outer import scaled
from petsc_dcdm.backends.gpu.launches import Launch, LaunchSequence
from petsc_dcdm.studies.gpu.counting import counted

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")
"""A100, H100, B200, MI300."""

_TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.uint8: "u8",
}


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a processor. ``spilled``: bytes a thread, ``shared`` bytes a program."""

    kernel: str
    constants: str
    architecture: str
    registers: int
    spilled: int
    shared: int


def all_launches(histories: Sequence[int]) -> Iterator[Launch]:
    """One of every kernel that there is for some kind of matrix and network."""
    known = set()
    for packed in (True, False):
        for history in histories:
            network, loop = counted((32, 32, 32), packed, history)
            sequences = network.set_up, loop.sequence, loop.true_sequence, extras(network)
            for entry in [entry for sequence in sequences for entry in sequence.entries]:
                if not isinstance(entry, Launch) or (key := (entry.name, str(signature(entry)))) in known:
                    continue
                known.add(key)
                yield entry
                if "SEAMS" in entry.constants and entry.constants.get("MODE", CORRECT.value) == CORRECT.value:
                    yield replace(entry, constants={**entry.constants, "SEAMS": True})


def extras(network: GpuHierarchy) -> LaunchSequence:
    """What there is beside a step on one rank: halos, and r to single precision."""
    sequence, level = LaunchSequence(network.device), network.stages[0]
    cell = torch.zeros(64, dtype=torch.int32, device=network.device)
    double, scale = (torch.zeros(64, dtype=torch.float64, device=network.device) for _ in range(2))
    sequence.launch(pack, (1,), (level.r, level.x, cell, 64), [], BLOCK=BLOCK)
    sequence.launch(unpack, (1,), (level.x, level.r, cell, 64), [], BLOCK=BLOCK)
    sequence.launch(scaled, (1,), (level.r, double, scale, level.omega[0], 64), [], BLOCK=network.blocks.cycle)
    return sequence


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any]]:
    """The types of its arguments and its constants, as compilers want them."""
    names = launch.kernel.arg_names
    types = {}
    for name, value in zip(names, launch.arguments, strict=False):
        types[name] = "*" + _TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
    constants = {name: value for name, value in launch.constants.items() if name != "num_warps"}
    return types | dict.fromkeys(constants, "constexpr"), constants


def compiled(launch: Launch, architecture: str) -> Usage:
    """Raises what the compiler raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    nvidia = architecture.startswith("sm_")
    target = GPUTarget("cuda", int(architecture[3:]), 32) if nvidia else GPUTarget("hip", architecture, 64)
    types, constants = signature(launch)
    if not nvidia and "PRECISION" in constants:
        constants["PRECISION"] = "ieee"
    elif "PRECISION" in constants:
        constants["PRECISION"] = "tf32"
    pointers = [i for i, name in enumerate(launch.kernel.arg_names) if types[name].startswith("*")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in pointers}  # as arrays of a level are aligned
    source = ASTSource(launch.kernel, types, constants, attributes)
    made = triton.compile(source, target=target, options={"num_warps": launch.constants.get("num_warps", 4)})
    text = ", ".join(f"{name} {value}" for name, value in launch.constants.items() if name != "PRECISION")
    if nvidia:
        registers, spilled = _of_cubin(made.asm["cubin"])
    else:
        registers, spilled = _of_assembly(made.asm["amdgcn"])
    return Usage(launch.name, text, architecture, registers, spilled, int(made.metadata.shared))


def _of_cubin(cubin: bytes) -> tuple[int, int]:
    """Registers and stack, as the disassembler of Triton's wheel tells."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", told)
    assert found, told
    return int(found[1]), int(found[2]) + int(found[3])


def _of_assembly(text: str) -> tuple[int, int]:
    """Vector registers and scratch memory, from the notes of a code object."""
    registers, scratch = (
        re.search(rf"\.{name}:\s*(\d+)", text) for name in ("vgpr_count", "private_segment_fixed_size")
    )
    assert registers and scratch
    return int(registers[1]), int(scratch[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES))
    parser.add_argument("--histories", default="2", help="how many directions are kept, for instance 0,1,2,3,4")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    launches = list(all_launches([int(h) for h in options.histories.split(",")]))
    rows = []
    for architecture in options.architectures.split(","):
        for launch in launches:
            rows.append(compiled(launch, architecture))
            print(*asdict(rows[-1]).values(), sep=" | ", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
