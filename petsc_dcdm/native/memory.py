"""Memory for large arrays: in huge pages where Linux has them at hand, as the faults of small ones cost more than the
work; see `petsc_dcdm.native.pages`.

What arrays leave behind is kept for those of the next set-up, up to `KEPT`: to touch new memory takes as long as a
solve, and on a virtual machine that gives back what is free to its host ten times as long. Linux may have it when it is
short of memory (MADV_FREE).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from petsc_dcdm.native.pages import PATIENCE, takes_long

CACHE_LINE = 64
LARGE = 1 << 22
"""Bytes below which arrays are the C library's, which keeps what it gets back, too."""
HUGE_PAGE = 1 << 21
KEPT = max(1 << 27, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16)
"""Bytes of memory that nobody uses which are kept: what a grid of 256^3 leaves on a machine of 24 GB."""


class _Memory(mmap.mmap):
    """What Linux was asked for at a time."""

    address = 0


@dataclass(eq=False)
class _Piece:
    """Huge pages of it, for one array at a time, from byte ``begin`` on."""

    memory: _Memory
    begin: int
    length: int
    left: int = 0
    """How often it will be used until its pages, which are small now, become huge; 0 where they are huge."""

    def __len__(self) -> int:
        return self.length

    def advise(self, what: int) -> None:
        """Tell Linux so."""
        self.memory.madvise(what, self.begin, self.length)


_kept: list[_Piece] = []

_at_hand = True
"""Whether huge pages are, as far as is known."""


def address_of(array: np.ndarray) -> int:
    """Where the values of a C-contiguous array are: ``array.ctypes.data`` in a third of the time."""
    try:
        return ctypes.addressof(_Byte.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # it is not to be written to, or empty
        return int(array.__array_interface__["data"][0]) if array.size else 0


_Byte = ctypes.c_char


def memory_at(address: int, length: int, writable: bool = False) -> memoryview:
    """So many bytes there, which are to outlive it. A ctypes array would be a type of its own for every length, which
    takes its time to make.
    """
    view: memoryview = _view(address, length, _WRITE if writable else _READ)
    return view


_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype, _view.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_READ, _WRITE = 0x100, 0x200  # PyBUF_READ, PyBUF_WRITE


class _Lease:
    """A piece for one array and its views: when the last of them goes it is kept or given back."""

    def __init__(self, piece: _Piece) -> None:
        self._piece = piece
        address = piece.memory.address + piece.begin
        self.__array_interface__ = {"shape": (len(piece),), "typestr": "|u1", "data": (address, False), "version": 3}

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process this module may be gone
            _keep(self._piece)


def _keep(piece: _Piece) -> None:
    """For those who want memory next, as one with what is free beside it."""
    if sum(map(len, _kept)) + len(piece) > KEPT:
        piece.advise(mmap.MADV_DONTNEED)
        return
    if hasattr(mmap, "MADV_FREE"):
        piece.advise(mmap.MADV_FREE)
    for other in [other for other in _kept if other.memory is piece.memory]:
        first, last = sorted((piece, other), key=lambda either: either.begin)
        if first.begin + first.length != last.begin:
            continue
        with suppress(ValueError):  # another thread has been quicker
            _kept.remove(other)
            piece = _Piece(piece.memory, first.begin, first.length + last.length, max(first.left, last.left))
    _kept.append(piece)


def _take(bytes_: int, small_do: bool) -> tuple[_Piece, bool]:
    """Memory of so many bytes at least, and whether it is new: then it is 0. Of what is kept the smallest piece serves
    that is large enough, and the rest of it others. What is new is of huge pages, unless ``small_do``.
    """
    length = -(-bytes_ // HUGE_PAGE) * HUGE_PAGE
    fitting = [piece for piece in _kept if length <= len(piece)]
    if fitting:
        best = min(fitting, key=len)
        with suppress(ValueError):  # another thread has been quicker
            _kept.remove(best)
            if best.length - length >= LARGE:
                _kept.append(_Piece(best.memory, best.begin + length, best.length - length, best.left))
                best = _Piece(best.memory, best.begin, length, best.left)
            return best, _used_often(best)
    return _new(length, small_do), True


def _new(length: int, small_do: bool) -> _Piece:
    """Huge pages, or small ones where these ``do`` and one has not been at hand: to see that the first is touched."""
    global _at_hand
    memory = _Memory(-1, length + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.address = np.frombuffer(memory, np.uint8).ctypes.data
    piece = _Piece(memory, -memory.address % HUGE_PAGE, length)
    with suppress(OSError):  # a kernel without huge pages
        if _at_hand or not small_do:
            piece.advise(mmap.MADV_HUGEPAGE)
        if _at_hand and small_do:
            _at_hand = not takes_long(lambda: memory.__setitem__(piece.begin, 0))
        if small_do and not _at_hand:
            piece.advise(mmap.MADV_NOHUGEPAGE)
            piece.left = PATIENCE
    return piece


def _used_often(piece: _Piece) -> bool:
    """Whether memory that is used again is so often enough for huge pages: it gets new ones then."""
    if not piece.left:
        return False
    piece.left -= 1
    if piece.left:
        return False
    piece.advise(mmap.MADV_DONTNEED)
    piece.advise(mmap.MADV_HUGEPAGE)
    return True


def aligned_empty(size: int, dtype: type, small_do: bool = False) -> np.ndarray:
    """An array [size] that starts at a cache line and may hold anything. Large ones take memory only where they are
    written to. ``small_do``: for what not every cycle works on small pages do where huge ones are not at hand; to see
    that the first of these is taken.
    """
    return _aligned(size, dtype, small_do)


def aligned_zeros(
    size: int, dtype: type, clear: Callable[[np.ndarray], object] | None = None, small_do: bool = False
) -> np.ndarray:
    """Zeros [size], else as :func:`aligned_empty`, but that memory which has been kept is written to. ``clear`` writes
    the zeros, where somebody has to: for those who have threads for that.
    """
    return _aligned(size, dtype, small_do, clear or _fill)


def _fill(array: np.ndarray) -> None:
    array[...] = 0


def _aligned(size: int, dtype: type, small_do: bool, clear: Callable[[np.ndarray], object] | None = None) -> np.ndarray:
    """With ``clear`` they are zero."""
    bytes_ = size * np.dtype(dtype).itemsize
    found: np.ndarray
    if not hasattr(mmap, "MADV_HUGEPAGE") or bytes_ < LARGE:
        raw = (np.zeros if clear is _fill else np.empty)(bytes_ + CACHE_LINE, np.uint8)
        found = np.ndarray((size,), dtype, raw.data, -address_of(raw) % CACHE_LINE)
        if clear and clear is not _fill:
            clear(found)
        return found
    # Not numpy's zeros: the C library may take them from memory that it has had before, and then writes to all of it.
    piece, new = _take(bytes_, small_do)
    found = np.asarray(_Lease(piece))[:bytes_].view(dtype)
    if clear and not new:
        clear(found)
    return found
