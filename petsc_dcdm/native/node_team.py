"""Ranks of a node as one: memory that they share, and kernels that all of them work on.

A `Team` is made by `petsc_dcdm.backends.node`; here is what needs no MPI. One rank leads: it alone allocates, and calls
kernels as a process of many threads would, while the others serve (native/src/shared/node_team.c). The memory lies at
the same address in all of them, so that what the leader hands to a kernel means the same everywhere.
"""

from __future__ import annotations

import ctypes
import weakref
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from petsc_dcdm.native.memory import CACHE_LINE, HUGE_PAGE, LARGE, address_of, aligned_empty, aligned_zeros, memory_at
from petsc_dcdm.native.pages import SmallPages


class Workers(Protocol):
    """Who works on a box of the grid: one rank, or the ranks of a node together."""

    @property
    def ranks(self) -> int: ...

    @property
    def threads(self) -> int | None:
        """Of all ranks of a team; None for one rank, which has its own number."""

    @property
    def ahead(self) -> int:
        """How often the leader may call a kernel, by `do`, before another rank has seen what the first call left. At
        least 1.
        """

    @property
    def leads(self) -> bool:
        """Whether this rank has the box; the others of a team have an empty one."""

    def zeros(self, size: int, dtype: type) -> np.ndarray:
        """Zeros [size] for what kernels work on, as `aligned_zeros`. Not collective."""

    def room(self, size: int, dtype: type, sparse: bool = False) -> np.ndarray:
        """The same for what is written to before it is read, ``sparse``: hardly any of it ever. Not collective."""

    def has(self, array: np.ndarray) -> bool:
        """Whether all ranks that work on kernels can read the array. Not collective."""

    def do(self, kernel: Callable[..., Any] | None, *arguments: Any) -> Any:
        """Calls a kernel, with all ranks working on it; nothing if it is None. What ``kernel`` and ``arguments`` are
        counts on the rank that leads, which alone gets the result. Collective on the team.
        """

    def together(self, make: Callable[[], list[Any]]) -> list[Any]:
        """What ``make`` makes of memory on each rank; all help to clear that of the leader. Collective on the team."""

    def share(self, value: int) -> int:
        """What the leader has of it. Collective on the team."""

    def seen(self, array: np.ndarray, size: int) -> np.ndarray:
        """The leader's array [size], of the team's memory, on all ranks, each of which gives one of its type. It lives
        as long as the leader's. Collective on the team.
        """

    def meet(self) -> None:
        """What any rank has written before, all may read after it. Collective on the team."""


class OneRank:
    """See `Workers`: this rank with its own threads."""

    ranks = 1
    threads: int | None = None
    ahead = 1
    leads = True

    def zeros(self, size: int, dtype: type) -> np.ndarray:
        return aligned_zeros(size, dtype, small_do=True)

    def room(self, size: int, dtype: type, sparse: bool = False) -> np.ndarray:
        return aligned_empty(size, dtype, small_do=True)

    def has(self, array: np.ndarray) -> bool:
        return True

    def do(self, kernel: Callable[..., Any] | None, *arguments: Any) -> Any:
        return kernel(*arguments) if kernel else None

    def together(self, make: Callable[[], list[Any]]) -> list[Any]:
        return make()

    def share(self, value: int) -> int:
        return value

    def seen(self, array: np.ndarray, size: int) -> np.ndarray:
        return array

    def meet(self) -> None:
        return


ONE_RANK = OneRank()


@dataclass(frozen=True)
class Sharing:
    """Who works on which box.

    Attributes
    ----------
    team
        who works on the box of this rank, or that of the one who leads it
    holders
        the ranks that have a box, increasing; all if None
    teams
        whether there are teams of more than one rank, on whatever nodes
    threads
        of the largest team
    why
        each rank has a box although ranks may share one, for ``-ksp_view``
    """

    team: Workers
    holders: tuple[int, ...] | None
    teams: bool
    threads: int = 1
    why: str = ""


OWN_BOXES = Sharing(ONE_RANK, None, False)


class SharedMemory:
    """A file without a name, mapped at an address, whose pages go with the processes. It begins with the block through
    which the ranks of a team talk.

    Pages are small and taken as they are written to. They stay: to fault them in anew at every set-up costs more than
    to write zeros to them. Where an array gets memory that another has had, and is not sparse, they become huge ones
    if Linux makes them when it is asked to (6.1 and later, whatever the system's setting for shared memory, "never" on
    most): the first time if it has them at hand, see `petsc_dcdm.native.pages`.

    Where zeros are wanted and where they are not there are two parts, for what is not written to takes no pages.

    Raises OSError where something lies at the address.
    """

    def __init__(self, kernels: ctypes.CDLL, file: int, size: int, address: int) -> None:
        """``file`` is to have ``size`` bytes; it may be closed afterwards."""
        error = kernels.dcdm_team_map(file, ctypes.c_int64(size), ctypes.c_void_p(address))
        if error:
            raise OSError(error, f"{size} bytes can not be mapped at {address:#x}")
        self.address, self.size, self._kernels = address, size, kernels
        unmap = kernels.dcdm_team_unmap
        weakref.finalize(self, unmap, ctypes.c_void_p(address), ctypes.c_int64(size)).atexit = False
        kernels.dcdm_team_bytes.restype = ctypes.c_int64
        half = size // 2 // HUGE_PAGE * HUGE_PAGE
        self._pages = SmallPages(size // HUGE_PAGE, partial(_make_huge, kernels, address))
        self._zeros, self._rooms = _Pieces(int(kernels.dcdm_team_bytes()), half), _Pieces(half, size)

    def zeros(self, size: int, dtype: type) -> np.ndarray:
        """Zeros [size], aligned as by `aligned_zeros`; the memory is used again when no array has it any more.

        MemoryError where there is no room.
        """
        fresh = self._zeros.end
        array = self._array(self._zeros, size, dtype, False)
        begin = address_of(array)
        used = min(array.nbytes, self.address + fresh - begin)
        if used > 0:
            self._kernels.dcdm_team_clear(ctypes.c_void_p(self.address), ctypes.c_void_p(begin), ctypes.c_int64(used))
        return array

    def room(self, size: int, dtype: type, sparse: bool = False) -> np.ndarray:
        """The same for an array of whatever the memory holds, ``sparse``: hardly any of it will be written to."""
        return self._array(self._rooms, size, dtype, sparse, None if sparse else self._zeros)

    @property
    def taken(self) -> int:
        """Bytes that have been in use at one time or another."""
        return self._zeros.end + self._rooms.end - self._rooms.begin

    def _array(self, pieces: _Pieces, size: int, dtype: type, sparse: bool, more: _Pieces | None = None) -> np.ndarray:
        """Of these pieces, or of more where only these have one that is free."""
        wanted = max(size * np.dtype(dtype).itemsize, 1)
        unit = HUGE_PAGE if wanted >= LARGE else CACHE_LINE
        length = -(-wanted // unit) * unit
        free = pieces.find(length, unit)
        if free < 0 and more and (other := more.find(length, unit)) >= 0:
            pieces, free = more, other
        fresh = pieces.end
        held = _Held(self, pieces, pieces.take(length, unit, free), length)
        if held.begin < fresh and not (sparse and wanted >= LARGE):
            self._pages.use_again(held.begin // HUGE_PAGE, -(-(held.begin + length) // HUGE_PAGE))
        data = self.address + held.begin, False
        held.__array_interface__ = {"version": 3, "data": data, "shape": (size,), "typestr": np.dtype(dtype).str}
        array: np.ndarray = np.asarray(held)
        return array

    def at(self, address: int, size: int, dtype: np.dtype) -> np.ndarray:
        """What another rank has made there, [size]. Raises ValueError if that lies elsewhere."""
        length = size * dtype.itemsize
        if not size:
            return np.zeros(0, dtype)
        if not self.address <= address <= self.address + self.size - length:
            raise ValueError("an array is not in the memory that ranks share")
        found: np.ndarray = np.frombuffer(memory_at(address, length, writable=True), dtype)
        return found


def _make_huge(kernels: ctypes.CDLL, address: int, page: int, end: int) -> bool:
    """Of pages [page, end) of the memory at the address; whether Linux does so when it is asked to."""
    at, size = ctypes.c_void_p(address + page * HUGE_PAGE), ctypes.c_int64((end - page) * HUGE_PAGE)
    return bool(kernels.dcdm_team_huge(ctypes.c_void_p(address), at, size))


class _Held:
    """What an array has of a memory, which lives as long."""

    __array_interface__: dict[str, Any]

    def __init__(self, memory: SharedMemory, pieces: _Pieces, begin: int, length: int) -> None:
        self._memory, self._pieces, self.begin, self._length = memory, pieces, begin, length

    def __del__(self) -> None:
        self._pieces.give_back(self.begin, self._length)


class _Pieces:
    """Which bytes from ``begin`` to ``limit`` are in use; beyond ``end`` none ever were."""

    def __init__(self, begin: int, limit: int) -> None:
        self.begin = self.end = begin
        self._limit = limit
        self._free: list[tuple[int, int]] = []

    def find(self, length: int, unit: int) -> int:
        """The number of a piece in which so many are free that have been in use, from a multiple of ``unit`` on; -1."""
        for i, (begin, free) in enumerate(self._free):
            if length <= free - -begin % unit:
                return i
        return -1

    def take(self, length: int, unit: int, free: int) -> int:
        """Where so many begin at a multiple of ``unit``: in the piece ``free``, as found, or in none."""
        if free >= 0:
            begin, size = self._free[free]
            start = begin + -begin % unit
            pieces = [(begin, start - begin), (start + length, begin + size - start - length)]
            self._free[free : free + 1] = [piece for piece in pieces if piece[1]]
            return start
        start = -(-self.end // unit) * unit
        if start + length > self._limit:
            raise MemoryError(f"the memory that the ranks of a node share has no room for {length} bytes more")
        if start > self.end:
            self.give_back(self.end, start - self.end)
        self.end = start + length
        return start

    def give_back(self, begin: int, length: int) -> None:
        """A piece more that is free; pieces that adjoin become one."""
        i = bisect_left(self._free, (begin, length))
        if i < len(self._free) and self._free[i][0] == begin + length:
            length += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == begin:
            i -= 1
            begin, before = self._free.pop(i)
            length += before
        self._free.insert(i, (begin, length))


class Team:
    """See `Workers`: ranks of a node, of which rank 0 of the team leads.

    Parameters
    ----------
    kernels
        the library, the same on all ranks
    memory
        what they share
    rank
        of this process in the team
    threads
        of each rank

    Every rank makes its own; all must have before one of them calls anything.
    """

    def __init__(self, kernels: ctypes.CDLL, memory: SharedMemory, rank: int, threads: list[int]) -> None:
        self.memory, self._kernels, self._rank = memory, kernels, rank
        self.ranks, self.threads, self.leads = len(threads), sum(threads), rank == 0
        block, i64, i32, f64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
        kernels.dcdm_team_most_values.restype = kernels.dcdm_team_ahead.restype = i64
        kernels.dcdm_team_share.restype, kernels.dcdm_team_share.argtypes = i64, [block, i32, i64]
        kernels.dcdm_team_reduce.restype, kernels.dcdm_team_reduce.argtypes = f64, [block, i32, f64, i32]
        kernels.dcdm_team_gather.restype, kernels.dcdm_team_gather.argtypes = None, [block, i32, block, i64, block]
        self._most, self.ahead = int(kernels.dcdm_team_most_values()), int(kernels.dcdm_team_ahead())
        self._block = ctypes.c_void_p(memory.address)
        numbers = (self.ranks, sum(threads[:rank]), threads[rank], self.threads)
        kernels.dcdm_team_enter(self._block, rank, *map(ctypes.c_int64, numbers))

    def zeros(self, size: int, dtype: type) -> np.ndarray:
        return self.memory.zeros(size, dtype) if self.leads else np.zeros(size, dtype)

    def room(self, size: int, dtype: type, sparse: bool = False) -> np.ndarray:
        return self.memory.room(size, dtype, sparse) if self.leads else np.zeros(size, dtype)

    def has(self, array: np.ndarray) -> bool:
        return 0 <= address_of(array) - self.memory.address < self.memory.size

    def do(self, kernel: Callable[..., Any] | None, *arguments: Any) -> Any:
        if not self.leads:
            self._kernels.dcdm_team_serve(self._block, self._rank)
            return None
        self._kernels.dcdm_team_lead(self._block)
        try:
            return kernel(*arguments) if kernel else None
        finally:
            self._kernels.dcdm_team_release(self._block)

    def together(self, make: Callable[[], list[Any]]) -> list[Any]:
        made = self.do(make)
        return made if self.leads else make()

    def share(self, value: int) -> int:
        return int(self._kernels.dcdm_team_share(self._block, self._rank, value))

    def seen(self, array: np.ndarray, size: int) -> np.ndarray:
        address = self.share(address_of(array))
        return array if self.leads else self.memory.at(address, size, array.dtype)

    def meet(self) -> None:
        self._kernels.dcdm_team_barrier(self._block)

    def reduce(self, value: float, largest: bool) -> float:
        """The sum over the ranks in their order, or the largest. Collective."""
        found: float = self._kernels.dcdm_team_reduce(self._block, self._rank, value, largest)
        return found

    def gather(self, values: np.ndarray) -> np.ndarray | None:
        """float64 [ranks, n] of float64 [n], C-contiguous; None for many. Collective."""
        if values.size > self._most:
            return None
        found = np.empty((self.ranks, values.size))
        place, room = address_of(values), address_of(found)
        self._kernels.dcdm_team_gather(self._block, self._rank, place, values.size, room)
        return found
