"""Where compiled kernels are kept: which directory, who else could have written there, and what leaves it in time.

A library is code that this process will run. So nothing is loaded that another user may have put there: directory and
file must belong to the effective user or to root (a cache that an administrator has filled), and neither group nor
others may write to them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

#: Libraries that no process has loaded for so long, and what killed processes have left, are removed.
UNUSED_DAYS = 30.0
DAY = 86400.0


class NotPrivate(OSError):
    """Somebody else may have written to a file or directory; the message says who, and what to do."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/petsc_dcdm``, by default ``~/.cache/petsc_dcdm``; where there is neither HOME nor an entry of
    the user (a container that runs under any number), ``$TMPDIR/petsc_dcdm-<uid>``. It need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "petsc_dcdm"
    try:
        return Path.home() / ".cache" / "petsc_dcdm"
    except RuntimeError:
        return temporary_directory() / f"petsc_dcdm-{os.geteuid()}"


def temporary_directory() -> Path:
    """Where temporary files go, or would go if anything could be written there."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")


def require_private(path: Path) -> None:
    """NotPrivate if another user may have written to `path`, or have made the link that it is; other OSErrors where it
    can not be looked at.
    """
    me = os.geteuid()
    for status in (path.lstat(), path.stat()):
        if status.st_uid not in (me, 0):
            raise NotPrivate(f"{path} belongs to user {status.st_uid} and not to {me}, who runs this: remove it")
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = stat.S_IMODE(status.st_mode)
            raise NotPrivate(f"others may write to {path} (mode {mode:o}): remove it, or chmod go-w it if you trust it")


def touch(library: Path) -> None:
    """Note that a library is in use, once a day: many processes may load it at the same time over a network."""
    with suppress(OSError):  # not ours, or on a read-only file system: then nobody removes it either
        if time.time() - library.stat().st_mtime > DAY:
            os.utime(library)


def remove_unused(directory: Path) -> None:
    """Remove what has not been used for UNUSED_DAYS: libraries, locks, and directories of builds that were killed."""
    for path in [
        *directory.glob("kernels-*.so"),
        *directory.glob("kernels-*.lock"),
        *directory.glob("kernels-*.build"),
    ]:
        with suppress(OSError):  # another process was quicker
            if time.time() - path.lstat().st_mtime < UNUSED_DAYS * DAY:
                continue
            if path.suffix == ".build":
                shutil.rmtree(path)
            else:
                path.unlink()


def temporary_name(directory: Path, name: str) -> Path:
    """An empty file of this process's own in `directory`."""
    handle, path = tempfile.mkstemp(prefix=f"{name}.", dir=directory)
    os.close(handle)
    return Path(path)
