"""Compile the C kernels on first use and keep the library in the user's cache (cache.py).

The file name is a hash of the sources, the compiler, the flags and the processor, so that a home directory
shared by different machines works, and a changed source is never mistaken for the old one. Processes that find the
cache empty together (the ranks of a job) share the sources out among them: each is compiled once, by whoever
comes to it first, and one process links. No part of this runs at import.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from petsc_dcdm.native.cache import (
    NotPrivate,
    cache_directory,
    remove_unused,
    require_private,
    temporary_name,
    touch,
)
from petsc_dcdm.native.prebuilt import DIRECTORY_VARIABLE, find, library_name, targets
from petsc_dcdm.native.processor import processor_facts, processor_features
from petsc_dcdm.native.structures import difference

SOURCE_DIRECTORY = Path(__file__).parent / "src"

# Not -ffast-math: NaN and infinity must come out of every kernel that they went into.
BASE_FLAGS = ("-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
NATIVE = ("-march=native", "-fopenmp")
#: Tried in turn. The sources vectorise by hand where it counts: gcc -O2 compiles half as long again as the first and
#: makes reading the matrix 2 of 20 ms faster, nothing else. A compiler that knows neither OpenMP nor the processor
#: still gives a library, if a slow one.
FLAG_SETS = (
    (*BASE_FLAGS, "-O1", "-ftree-vectorize", "-fvect-cost-model=dynamic", *NATIVE),
    (*BASE_FLAGS, "-O3", *NATIVE),
    (*BASE_FLAGS, "-O3"),
)
#: Environment variable with flags that come after each of these: ``-march=x86-64-v3``, say, for less than what this
#: processor has.
FLAGS_VARIABLE = "PETSC_DCDM_CFLAGS"


class KernelsUnavailable(RuntimeError):
    """The C kernels can not be had on this machine; the message is one sentence on why."""


def sources() -> list[Path]:
    return _files(".c")


def _all_files() -> list[Path]:
    return _files(".c", ".h")


def _files(*suffixes: str) -> list[Path]:
    """Of the sources, those of a suffix sorted. (Path.rglob takes five times as long, and to sort paths twice.)"""
    found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(SOURCE_DIRECTORY) for name in names)
    return [Path(name) for suffix in suffixes for name in found if name.endswith(suffix)]


def find_compiler() -> list[str]:
    """``$CC``, or the first of cc, gcc and clang on the path; KernelsUnavailable if there is none."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0])
        if path:
            return [path, *command[1:]]
    named = f"the C compiler '{wanted[0]}' that CC names" if wanted else "a C compiler (cc, gcc or clang)"
    raise KernelsUnavailable(
        f"{named} was not found, so the C kernels can not be compiled; {DIRECTORY_VARIABLE} may name a directory that "
        "`petsc-dcdm warmup --out` has made"
    )


def _flag_sets(family: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Flags to try in turn; ``family``: those of a family of processors, in place of this one."""
    if family:
        return [(*FLAG_SETS[0][: -len(NATIVE)], *family, "-fopenmp"), (*FLAG_SETS[2], *family)]
    slow = ("-DPAIRS=0",) if "GenuineIntel" in processor_features() else ()
    return [(*flags, *slow, *shlex.split(os.environ.get(FLAGS_VARIABLE, ""))) for flags in FLAG_SETS]


def _processor() -> str:
    """What -march=native depends on."""
    facts = processor_facts()
    if not facts:
        return platform.machine() + platform.processor()
    names = "model name", "flags", "Features", "CPU part"
    return " ".join([platform.machine(), *(facts.get(name, "") for name in names)])


def _key(compiler: Sequence[str]) -> str:
    """Names the library. The compiler's file stands for its version: asking it would cost a process each
    time.
    """
    digest = hashlib.sha256()
    for path in _all_files():
        digest.update(path.name.encode() + path.read_bytes())
    binary = Path(compiler[0]).resolve()
    status = binary.stat()
    digest.update(
        repr((list(compiler), str(binary), status.st_size, status.st_mtime_ns, _flag_sets(), _processor())).encode()
    )
    return digest.hexdigest()[:24]


def _run(
    compiler: Sequence[str], arguments: Sequence[str], work: Path, target: Path, family: Sequence[str] = ()
) -> None:
    """Run the compiler with the first flags that it accepts; `target` appears whole or not at all, for its owner alone
    to write to. What a process that is killed was making stays in the directory `work`.
    """
    import subprocess  # takes 2 ms, for what is there already as a rule

    message = ""
    partial = temporary_name(work, target.name)
    for flags in _flag_sets(family):
        command = [*compiler, *flags, f"-I{SOURCE_DIRECTORY}", *arguments, "-o", str(partial)]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if ended.returncode == 0:
            partial.chmod(0o755)
            os.replace(partial, target)
            return
        lines = [line for line in ended.stderr.splitlines() if "error" in line] or ended.stderr.splitlines()
        message = message or (lines[0] if lines else f"{command[0]} ended with status {ended.returncode}")
    partial.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty: another source could be compiled
        work.rmdir()
    raise KernelsUnavailable(f"the C kernels could not be compiled: {message}")


def _size(source: Path) -> int:
    """Characters of a source with the headers of ours that it includes."""
    text = source.read_text(encoding="utf-8")
    names = re.findall(r'#include "(.+?)"', text)
    places = [place / name for name in names for place in (source.parent, SOURCE_DIRECTORY)]
    return len(text) + sum(_size(header) for header in places if header.exists())


class _Build:
    """The making of one library, shared with other processes that are at it."""

    def __init__(self, compiler: Sequence[str], target: Path, family: Sequence[str] = ()) -> None:
        self._compiler, self._target, self._family = compiler, target, family
        self._objects = target.with_suffix(".build")
        # the largest take longest: they come first
        self._sources = sorted(sources(), key=_size, reverse=True)

    def run(self) -> None:
        """Compile what nobody else compiles, wait for the others, link. A process that ends loses its locks, so
        that the others take over what it was at.
        """
        from concurrent.futures import ThreadPoolExecutor

        with self._target.with_suffix(".lock").open("w") as self._locks:
            everything = range(len(self._sources))
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                made = list(pool.map(self._compile, everything))
            for number in everything:
                if not made[number]:
                    self._compile(number, wait=True)
            self._lock(len(self._sources), wait=True)
            if not self._target.exists():
                files = [str(self._object(number)) for number in everything]
                _run(self._compiler, ["-shared", *files, "-lm"], self._objects, self._target, self._family)
                shutil.rmtree(self._objects, ignore_errors=True)

    def _object(self, number: int) -> Path:
        return self._objects / f"{self._sources[number].stem}.o"

    def _compile(self, number: int, wait: bool = False) -> bool:
        """Make an object file unless it is there; False if another process is at it."""
        if not self._lock(number, wait):
            return False
        try:
            # in this order: objects go when the library is there
            if not self._object(number).exists() and not self._target.exists():
                self._objects.mkdir(mode=0o700, exist_ok=True)
                source, object_ = str(self._sources[number]), self._object(number)
                _run(self._compiler, ["-c", source], self._objects, object_, self._family)
        finally:
            self._lock(number, unlock=True)
        return True

    def _lock(self, byte: int, wait: bool = False, unlock: bool = False) -> bool:
        """Lock a byte of the lock file. Where the file system has no locks all processes compile everything."""
        how = fcntl.LOCK_UN if unlock else fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(self._locks, how, 1, byte)
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True


def _compiled(directory: Path, compiler: Sequence[str], key: str) -> Path:
    """The library in `directory`, compiled if it is not there; OSError where nothing can be written, or others can."""
    target = directory / f"kernels-{key}.so"
    if not target.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_private(directory)
        try:
            _Build(compiler, target).run()
        except (OSError, KernelsUnavailable):
            # without locks another process may have taken away what this one was making, as all is done
            if not target.exists():
                raise
        remove_unused(directory)
    require_private(directory)
    require_private(target)
    touch(target)
    return target


#: What the user should know about the cache and has not been told yet.
_notices: list[str] = []


@functools.cache
def _load(half: bool) -> ctypes.CDLL | KernelsUnavailable:
    try:
        named = os.environ.get(DIRECTORY_VARIABLE)
        prebuilt = find(Path(named), _all_files(), half) if named else None
        if prebuilt is not None:
            return ctypes.CDLL(str(prebuilt))
        compiler = [*find_compiler(), f"-DHALF={int(half)}"]
        key = _key(compiler)
        directory = cache_directory()
        try:
            return ctypes.CDLL(str(_compiled(directory, compiler, key)))
        except (OSError, KernelsUnavailable) as error:
            # Nowhere to keep it (a read-only home, a full one), or it does not load (a noexec home), or others can
            # write there: compile for this process alone. A library that is loaded needs its file no more.
            with tempfile.TemporaryDirectory(prefix="petsc_dcdm-") as private:
                loaded = ctypes.CDLL(str(_compiled(Path(private), compiler, key)))
            _notices.append(_explain(directory, error))
            return loaded
    except OSError as error:
        return KernelsUnavailable(f"the compiled C kernels could not be loaded: {error}")
    except KernelsUnavailable as error:
        return error


def _explain(directory: Path, error: Exception) -> str:
    advice = "" if isinstance(error, NotPrivate) else "make it a directory that you can write to and run from, "
    return (
        f"the compiled C kernels can not be kept in {directory}, so that every process compiles them anew, for seconds "
        f"({error}): {advice}or set XDG_CACHE_HOME to another place"
    )


def compile_for_all(directory: Path) -> list[Path]:
    """The kernels for every family of processors of this kind of machine, into `directory`, which is made; returns the
    libraries. Raises KernelsUnavailable where there is no compiler or none of its flags serve, OSError.
    """
    compiler = [*find_compiler(), "-DHALF=1"]
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = []
    for family in targets():
        library = directory / library_name(_all_files(), True, family)
        if not library.exists():
            _Build(compiler, library, family.flags).run()
        library.with_suffix(".lock").unlink(missing_ok=True)
        made.append(library)
    return made


def about() -> str:
    """Compiler and instructions that the kernels were made with; KernelsUnavailable where there are none."""
    kernels = library()
    kernels.dcdm_about.restype = ctypes.c_char_p
    return str(kernels.dcdm_about().decode())


def take_notice() -> str | None:
    """A sentence for the user about kernels that could not be kept, where they are loaded; only once."""
    return _notices.pop(0) if _notices else None


def library(half: bool = True) -> ctypes.CDLL:
    """The compiled kernels; compiles them (one to two seconds) if the cache does not have them. Not collective. `half`:
    coefficients are bfloat16, as solvers have them; else float, which tests compare with torch.

    Raises KernelsUnavailable when there is no compiler, when it fails, or when a structure is not the same in C and in
    Python; the answer holds for the whole process.
    """
    found = _load(half)
    if isinstance(found, KernelsUnavailable):
        raise found
    differing = difference(found)
    if differing:
        raise KernelsUnavailable(f"the compiled C kernels do not fit this Python code: {differing}")
    return found


def have_kernels() -> bool:
    """Whether this rank has them, compiled now if need be. Not collective."""
    with suppress(KernelsUnavailable):
        library()
        return True
    return False
