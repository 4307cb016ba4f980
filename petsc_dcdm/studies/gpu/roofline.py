"""What a step must cost on a GPU: bytes and launches counted, time by the bandwidth of its memory.

    python -m petsc_dcdm.studies.gpu.roofline [--bandwidth 3.35] [--share 0.75] [--json FILE]

No GPU is needed. The bytes are those that the kernels have to move, each array once for each time a kernel reads or
writes it; neighbours are taken to come from the caches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from petsc_dcdm.backends.gpu.launches import LaunchSequence
from petsc_dcdm.studies.gpu.counting import counted

H100 = 3.35
"""TB/s of the SXM module, as its maker says."""
SHARE = 0.75
"""Of it that streaming kernels with neighbours can be expected to reach."""
LAUNCH = 2.0
"""Microseconds for a kernel in a graph that depends on the one before, however small."""
SIZES = (64, 128, 256, 384, 512)


@dataclass(frozen=True)
class Row:
    """A grid of n^3 cells: levels, launches of a step, bytes a cell of a cycle, of a step and of what is kept, then
    milliseconds for a cycle, a step and the kernels of set-up.
    """

    n: int
    stencil: str
    levels: int
    launches: int
    cycle_bytes: float
    step_bytes: float
    kept_bytes: float
    cycle_ms: float
    step_ms: float
    setup_ms: float


def row(n: int, packed: bool = True, bandwidth: float = H100, share: float = SHARE, history: int = 2) -> Row:
    """TB/s and the share of them."""
    network, loop = counted((n, n, n), packed, history)
    cycle = LaunchSequence(torch.device("meta"))
    network.add_cycle(cycle)
    step, made = loop.sequence, network.set_up
    cells = n**3

    def ms(sequence: LaunchSequence) -> float:
        return sequence.bytes / (bandwidth * share * 1e9) + sequence.launches * LAUNCH * 1e-3

    kept = {a.data_ptr() or id(a): a for a in network.arrays() + loop.arrays()}.values()
    return Row(
        n,
        "packed" if packed else "arrays",
        len(network.levels),
        step.launches,
        cycle.bytes / cells,
        step.bytes / cells,
        sum(a.numel() * a.element_size() for a in kept) / cells,
        ms(cycle),
        ms(step),
        ms(made),
    )


def lines(rows: Sequence[Row]) -> list[str]:
    """The table of docs/gpu.md."""
    columns = "n|stencil|levels|launches a step|cycle, B/cell|step, B/cell|kept, B/cell|cycle, ms|step, ms".split("|")
    table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for r in rows:
        numbers = f"{r.cycle_bytes:.0f} | {r.step_bytes:.0f} | {r.kept_bytes:.0f} | {r.cycle_ms:.2f} | {r.step_ms:.2f}"
        table.append(f"| {r.n} | {r.stencil} | {r.levels} | {r.launches} | {numbers} |")
    return table


def all_rows(bandwidth: float = H100, share: float = SHARE) -> list[Row]:
    return [row(n, packed, bandwidth, share) for packed in (True, False) for n in SIZES]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bandwidth", type=float, default=H100, help="TB/s")
    parser.add_argument("--share", type=float, default=SHARE, help="of the bandwidth that is reached")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = all_rows(options.bandwidth, options.share)
    print("\n".join(lines(rows)))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
