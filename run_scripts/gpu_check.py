#!/usr/bin/env python3
"""The GPU backend on the card of this machine: right, and how fast? No PETSc, no MPI: torch, Triton and numpy.

    python run_scripts/gpu_check.py                        6 minutes on a card: gpu_check.json, .md and .png
    python run_scripts/gpu_check.py --interpret --size 16  the same on a CPU, under Triton's interpreter: a rehearsal

Returns 1 if anything that was checked is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

BORN = time.time()
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interpret", action="store_true", help="on the CPU, under Triton's interpreter")
    parser.add_argument("--size", default="64,128,256,384,512", help="n of n^3 cells, separated by commas")
    parser.add_argument(
        "--small", type=int, help="n of what is compared with the CPU; 64, or the first size if smaller"
    )
    parser.add_argument("--families", help="separated by commas; eight of them")
    parser.add_argument("--rtol", type=float, default=1e-6, help="relative residual that solves end at")
    parser.add_argument("--limit", type=float, default=330.0, help="seconds after which no further part begins")
    parser.add_argument(
        "--no-compile", action="store_true", help="without torch.compile of the network as it is written"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    options = parser.parse_args()
    if options.interpret:
        os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are declared
    sys.path.insert(0, str(ROOT))
    import torch

    from petsc_dcdm.studies.gpu import problems, report
    from petsc_dcdm.studies.gpu.check import run, verdict

    if not options.interpret and not torch.cuda.is_available():
        print("gpu_check: torch finds no GPU here; --interpret rehearses on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.interpret else "cuda:0")
    sizes = [int(n) for n in options.size.split(",")]
    found = run(
        problems.shipped_weights(),
        device,
        options.out,
        sizes=sizes,
        small=options.small or min(64, sizes[0]),
        names=options.families.split(",") if options.families else problems.FAMILIES,
        limit=float("inf") if options.interpret else options.limit,
        born=BORN,
        rtol=options.rtol,
        compiled=not options.interpret and not options.no_compile,
    )
    wrong = verdict(found, options.rtol)
    text = report.page(found, wrong)
    options.out.with_suffix(".md").write_text(text)
    print(text)
    print(report.picture(found, options.out.with_suffix(".png")))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
