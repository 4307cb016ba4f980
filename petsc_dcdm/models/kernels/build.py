"""Compile the C kernels on first use and keep the library in the user's cache.

The file name is a hash of the sources, the compiler, the flags and the processor, so that a home directory
shared by different machines works, and a changed source is never mistaken for the old one. Of several
processes one compiles and the others wait for it. No part of this runs at import.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCE_DIRECTORY = Path(__file__).parent

# Not -ffast-math: NaN and infinity must come out of every kernel that they went into.
BASE_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
#: Tried in turn: a compiler that knows neither OpenMP nor the processor still gives a library, if a slow one.
FLAG_SETS = ((*BASE_FLAGS, "-march=native", "-fopenmp"), BASE_FLAGS)


class KernelsUnavailable(RuntimeError):
    """The C kernels can not be had on this machine; the message is one sentence on why."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/petsc_dcdm``, by default ``~/.cache/petsc_dcdm``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "petsc_dcdm"


def sources() -> list[Path]:
    return sorted(SOURCE_DIRECTORY.glob("*.c"))


def find_compiler() -> list[str]:
    """``$CC``, or the first of cc, gcc and clang on the path; KernelsUnavailable if there is none."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0])
        if path:
            return [path, *command[1:]]
    named = f"the C compiler '{wanted[0]}' that CC names" if wanted else "a C compiler (cc, gcc or clang)"
    raise KernelsUnavailable(f"{named} was not found, so the C kernels can not be compiled")


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    kept: dict[str, str] = {}
    for line in lines:
        name = line.split(":", 1)[0].strip()
        if name in ("model name", "flags", "Features", "CPU part"):
            kept.setdefault(name, line)
    return platform.machine() + "".join(kept.values())


def _key(compiler: Sequence[str]) -> str:
    """Names the library. The compiler's file stands for its version: asking it would cost a process each
    time.
    """
    digest = hashlib.sha256()
    for path in [*sources(), *sorted(SOURCE_DIRECTORY.glob("*.h"))]:
        digest.update(path.name.encode() + path.read_bytes())
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    digest.update(
        repr((list(compiler), str(binary), status.st_size, status.st_mtime_ns, FLAG_SETS, _processor())).encode()
    )
    return digest.hexdigest()[:24]


def _compile(compiler: Sequence[str], target: Path) -> None:
    """Compile all sources, several at a time, and move the library to `target` in one step."""
    message = ""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as work:
        library = Path(work) / "kernels.so"
        for flags in FLAG_SETS:
            objects = [Path(work) / f"{source.stem}.o" for source in sources()]
            jobs = [[*compiler, *flags, "-c", str(c), "-o", str(o)] for c, o in zip(sources(), objects, strict=True)]
            message = _run_all(jobs) or _run_all(
                [[*compiler, *flags, "-shared", *map(str, objects), "-o", str(library), "-lm"]]
            )
            if not message:
                os.replace(library, target)
                return
    raise KernelsUnavailable(f"the C kernels could not be compiled: {message}")


def _run_all(commands: Sequence[Sequence[str]]) -> str:
    """Run the commands side by side; the first error in one line, empty if all went well."""
    try:
        running = [
            subprocess.Popen(c, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for c in commands
        ]
    except OSError as error:
        return str(error)
    message = ""
    for process in running:
        errors = process.communicate()[1]
        if process.returncode and not message:
            lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
            message = lines[0] if lines else f"{commands[0][0]} ended with status {process.returncode}"
    return message


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file. Where the file system has no locks the rename alone keeps the library whole."""
    with path.open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


def _compiled(directory: Path, compiler: Sequence[str], key: str) -> Path:
    """The library in `directory`, compiled if it is not there; OSError where nothing can be written."""
    target = directory / f"kernels-{key}.so"
    if not target.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory / f"kernels-{key}.lock"):
            if not target.exists():
                _compile(compiler, target)
    return target


@functools.cache
def _load() -> ctypes.CDLL | KernelsUnavailable:
    try:
        compiler = find_compiler()
        key = _key(compiler)
        try:
            return ctypes.CDLL(str(_compiled(cache_directory(), compiler, key)))
        except OSError:
            # Nowhere to keep it (a read-only home), or it does not load (a noexec home): compile for this
            # process alone. A library that is loaded needs its file no more.
            with tempfile.TemporaryDirectory(prefix="petsc_dcdm-") as private:
                return ctypes.CDLL(str(_compiled(Path(private), compiler, key)))
    except OSError as error:
        return KernelsUnavailable(f"the compiled C kernels could not be loaded: {error}")
    except KernelsUnavailable as error:
        return error


def library() -> ctypes.CDLL:
    """The compiled kernels; compiles them (about a second) if the cache does not have them. Not collective.

    Raises KernelsUnavailable when there is no compiler or it fails; the answer holds for the whole process.
    """
    found = _load()
    if isinstance(found, KernelsUnavailable):
        raise found
    return found
