"""`petsc-dcdm info` and `warmup`: what the weights are, what this machine has, and the kernels compiled ahead."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from petsc_dcdm import __version__


def add_info_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``info``; the parsed arguments carry the function to call as ``run``."""
    parser = subparsers.add_parser("info", help="show weights, kernels and what this machine has")
    parser.add_argument("weights", nargs="*", metavar="WEIGHTS", help="multigrid, cnn, cnn-64 or a file (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=info)


def add_warmup_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``warmup``; the parsed arguments carry the function to call as ``run``."""
    parser = subparsers.add_parser("warmup", help="compile the kernels ahead of the first solve")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="into DIR, for all processors of this kind: for machines without a compiler, where the environment "
        "variable PETSC_DCDM_KERNELS names the directory",
    )
    parser.set_defaults(run=warmup)


def info(args: argparse.Namespace) -> int:
    """Print the facts as tables, or as JSON."""
    from petsc_dcdm.network import weights

    facts = [*_petsc(), *_processor(), *_kernels()]
    files = [weights.load(name) for name in args.weights or _shipped()]
    if args.json:
        known = {file.source: {"kind": file.kind, "dims": file.dims, **file.meta} for file in files}
        print(json.dumps({"petsc_dcdm": __version__, **dict(facts), "weights": known}, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"petsc_dcdm {__version__}", title_justify="left", show_header=False, title_style="bold")
    for fact in facts:
        table.add_row(*fact)
    console = Console()
    console.print(table)
    for file in files:
        table = Table(title=f"weights: {file.source}", title_justify="left", show_header=False, title_style="bold")
        table.add_row("kind", file.kind)
        table.add_row("grids", " and ".join(f"{d}D" for d in file.dims))
        table.add_row("numbers", f"{sum(tensor.size for tensor in file.tensors.values()):,}")
        for key, value in sorted(file.meta.items()):
            table.add_row(key, value)
        console.print(table)
    return 0


def _shipped() -> list[str]:
    from petsc_dcdm.network import weights

    return [name for name in weights.SHIPPED if weights.shipped(name).exists()]


def _petsc() -> list[tuple[str, str]]:
    """Version, numbers and integers of PETSc; a sentence where there is none (models and training do without)."""
    try:
        from petsc4py import PETSc
    except ImportError as error:
        return [("PETSc", f"not to be had: {error}")]
    version = ".".join(str(n) for n in PETSc.Sys.getVersion())
    packages = [name for name in ("hypre", "ml") if PETSc.Sys.hasExternalPackage(name)]
    return [
        ("PETSc", f"{version}, {PETSc.ScalarType.__name__}, {8 * PETSc.IntType().itemsize}-bit indices"),
        ("PETSc has", ", ".join(packages) or "neither hypre nor ML"),
    ]


def _processor() -> list[tuple[str, str]]:
    import importlib.metadata

    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    rows = [("cores", f"{cores}" + (f" (OMP_NUM_THREADS={threads})" if threads else ""))]
    try:
        rows.append(("torch", importlib.metadata.version("torch")))
    except importlib.metadata.PackageNotFoundError:
        return [*rows, ("torch", "not installed: training and the GPU need it, a solve on the CPU does not")]
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    return [*rows, ("GPU", device)]


def _kernels() -> list[tuple[str, str]]:
    from petsc_dcdm.native import build, cache

    directory = cache.cache_directory()
    try:
        compiler = " ".join(build.find_compiler())
    except build.KernelsUnavailable as error:
        compiler = str(error)
    return [
        ("kernel cache", f"{directory}: {_state_of(directory)}"),
        ("compiler", compiler),
    ]


def _state_of(directory: Path) -> str:
    """What a cache of kernels holds and whether it can be used."""
    from petsc_dcdm.native import cache

    try:
        compiled = list(directory.glob("kernels-*.so"))
        size = sum(path.stat().st_size for path in compiled) / 1e6
        cache.require_private(directory)
    except FileNotFoundError:
        return "not there yet"
    except OSError as error:
        return f"not used, as {error}"
    kept = f"{len(compiled)} compiled, {size:.1f} MB"
    return kept if os.access(directory, os.W_OK) else f"{kept}; can not be written to"


def warmup(args: argparse.Namespace) -> int:
    """Compile the kernels into the user's cache or a directory; exit code 1 where that cannot be done or nothing can be
    kept.
    """
    from petsc_dcdm.native import build, cache

    start = time.perf_counter()
    try:
        if args.out:
            for library in build.compile_for_all(args.out):
                print(library)
            return 0
        build.library()
    except build.KernelsUnavailable as error:
        print(f"petsc-dcdm: {error}; solves run in plain torch instead.")
        return 1
    notice = build.take_notice()
    if notice:
        print(f"petsc-dcdm: {notice}.")
        return 1
    print(f"Kernels are ready in {cache.cache_directory()} ({time.perf_counter() - start:.1f} s).")
    return 0
