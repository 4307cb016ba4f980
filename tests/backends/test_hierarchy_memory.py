"""Memory for large arrays (petsc_dcdm.native.memory): aligned, zero, and taken only where it is written to."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from grid_operators import system, weights

from petsc_dcdm.backends.cpu.hierarchy import CpuHierarchy
from petsc_dcdm.backends.cpu.operator import BoxOperator
from petsc_dcdm.grid.faces import padded
from petsc_dcdm.grid.layout import SerialLayout
from petsc_dcdm.native import memory
from petsc_dcdm.native.memory import CACHE_LINE, LARGE, aligned_empty, aligned_zeros
from petsc_dcdm.native.pages import PATIENCE

MB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No memory of other tests is kept, and all huge pages are at hand."""
    memory._kept.clear()
    monkeypatch.setattr(memory, "_at_hand", True)
    monkeypatch.setattr(memory, "takes_long", lambda find: bool(find()))
    yield
    memory._kept.clear()


@pytest.mark.parametrize("size", [0, 3, LARGE // 8 - 1, LARGE])
def test_zeros_are_aligned_and_writable(size: int) -> None:
    a = aligned_zeros(size, np.float64)
    assert a.shape == (size,)
    assert a.dtype == np.float64
    assert a.ctypes.data % CACHE_LINE == 0
    assert not a.any()
    a[:] = 1.0


def _resident() -> int:
    """Bytes of this process's memory that are in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is given back with glibc's malloc_trim")
def test_large_arrays_take_no_memory_where_large_ones_have_been_freed() -> None:
    first = np.ones(24 * MB, np.uint8)
    del first  # from now on the C library has blocks of this size in its heap, where zeros may have to be written
    freed, kept = np.ones(24 * MB, np.uint8), np.ones(MB, np.uint8)
    del freed
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident()
    a = aligned_zeros(20 * MB, np.uint8)
    assert _resident() - before < 2 * MB
    assert kept.all() and not a.any()


def _address_of_some(bytes_: int) -> int:
    a = aligned_empty(bytes_, np.uint8)
    a[:] = 7
    return int(a.ctypes.data)


def test_memory_that_is_let_go_serves_the_next_array_of_about_its_size() -> None:
    first = _address_of_some(6 * MB)
    smaller = aligned_zeros(5 * MB, np.uint8)
    assert smaller.ctypes.data == first and not smaller.any()
    view = smaller[MB:]
    del smaller
    assert aligned_empty(5 * MB, np.uint8).ctypes.data != first  # a view of it is still in use
    assert not view.any()
    memory._kept.clear()
    del view
    assert aligned_zeros(12 * MB, np.uint8).ctypes.data != first  # that is too small for this one
    assert len(memory._kept) == 2


def test_no_more_memory_is_kept_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 128 * MB)
    arrays = [aligned_empty(48 * MB, np.uint8) for _ in range(4)]
    assert not memory._kept
    del arrays
    assert sum(map(len, memory._kept)) == 2 * 48 * MB <= memory.KEPT


def _advice(address: int) -> set[str]:
    """What Linux has been told of the memory there."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            begin, end = (int(word, 16) for word in words[0].split("-"))
            here = begin <= address < end
        elif here and words[0] == "VmFlags:":
            return set(words)
    return set()


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="Linux has no huge pages here")
def test_pages_are_small_at_first_where_huge_ones_are_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    before = aligned_empty(5 * MB, np.uint8, small_do=True)
    monkeypatch.setattr(memory, "takes_long", lambda find: not find())
    some = aligned_empty(6 * MB, np.uint8, small_do=True)
    some[:] = 7
    first = some.ctypes.data
    del some
    monkeypatch.setattr(memory, "takes_long", lambda find: pytest.fail("it is known"))
    for _ in range(PATIENCE - 1):
        array = aligned_empty(6 * MB, np.uint8)
        assert array.ctypes.data == first and array[-1] == 7 and "nh" in _advice(first)
        del array
    for _ in range(2):
        array = aligned_zeros(6 * MB, np.uint8)
        assert array.ctypes.data == first and not array.any() and "hg" in _advice(first)
        array[:] = 7
        del array
    after, small = aligned_empty(20 * MB, np.uint8), aligned_empty(20 * MB, np.uint8, small_do=True)
    assert "hg" in _advice(before.ctypes.data) and "hg" in _advice(after.ctypes.data)
    assert "nh" in _advice(small.ctypes.data)


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="Linux has no huge pages here")
def test_directions_do_with_small_pages_and_levels_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_at_hand", False)
    shape = (34, 64, 128)
    w, s = system(shape, 0)
    layout = SerialLayout(shape, ((0, 1, 2),))
    network = CpuHierarchy(weights(2), w, s, layout, 2)
    operator = BoxOperator(network, [padded(f) for f in w], padded(s), layout, threads=2)
    memory._kept.clear()  # small pages of the set-up
    loop = operator.loop(2)
    assert {"nh"} == {advice for p in loop._free for advice in _advice(p.address) & {"nh", "hg"}}
    assert "hg" in _advice(network.finest.blocks)
