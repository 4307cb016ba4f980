"""When small pages become huge (petsc_dcdm.native.pages)."""

from __future__ import annotations

import time

import pytest

from petsc_dcdm.native import pages
from petsc_dcdm.native.pages import PATIENCE, SmallPages, takes_long


def work(seconds: float) -> None:
    """Of the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_what_takes_long() -> None:
    assert takes_long(lambda: work(2 * pages.SLOW))
    assert not takes_long(lambda: time.sleep(20 * pages.SLOW))


class Asked:
    """What pages have been asked for, each of which takes so many seconds to have."""

    def __init__(self, seconds: float, served: bool = True) -> None:
        self.seconds, self.served = seconds, served
        self.pages: list[int] = []

    def __call__(self, begin: int, end: int) -> bool:
        self.pages += range(begin, end)
        work(self.seconds * (end - begin))
        return self.served


def test_pages_at_hand_become_huge_when_they_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SLOW", 10.0)
    asked = Asked(0.0)
    small = SmallPages(10, asked)
    small.use_again(2, 5)
    small.use_again(4, 4)
    small.use_again(0, 9)
    small.use_again(0, 9)
    assert asked.pages == [2, 3, 4, 0, 1, 5, 6, 7, 8]


def test_pages_that_are_not_at_hand_wait_for_more_uses() -> None:
    asked = Asked(2 * pages.SLOW)
    small = SmallPages(6, asked)
    for _ in range(PATIENCE):
        small.use_again(0, 4)
        assert asked.pages == [0], "to see how long it takes"
    small.use_again(3, 6)
    assert asked.pages == [0, 3]
    small.use_again(0, 6)
    assert asked.pages == [0, 3, 1, 2]
    for _ in range(PATIENCE):
        small.use_again(0, 6)
    assert asked.pages == [0, 3, 1, 2, 4, 5]


def test_a_system_without_them_is_not_asked_again() -> None:
    asked = Asked(0.0, served=False)
    small = SmallPages(8, asked)
    small.use_again(0, 4)
    small.use_again(4, 8)
    assert asked.pages == [0, 1, 2, 3]
