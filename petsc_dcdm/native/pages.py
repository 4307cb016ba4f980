"""When memory gets huge pages: at once where the system has them at hand, else when it has been used a few times.

A virtual machine may tell its host what is free, and after two seconds the host takes pieces as large as a huge page.
To have one again takes 5 ms instead of 0.25: a process that solves once waits as long for its memory as it works.
Small pages come from what is left in between, and with them set-ups take up to 1.12 times as long, which counts for
those who solve often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

SLOW = 1e-3
"""Seconds of processor time from which on a huge page was not at hand; 0.2 to 0.5 ms are for zeros or a copy."""

PATIENCE = 4
"""How often memory is used again before it gets huge pages that are not at hand. Set-up uses some of it twice."""


def takes_long(find: Callable[[], object]) -> bool:
    """Whether the huge page that ``find`` needs is not at hand. What other programs have of the processor meanwhile
    does not count.
    """
    begin = time.thread_time()
    find()
    return time.thread_time() - begin > SLOW


class SmallPages:
    """Memory of small pages, which become huge when they are used again.

    Parameters
    ----------
    pages
        how many huge ones there can be
    make
        makes pages [begin, end) huge, whatever they hold; returns whether the system does so when it is asked to
    """

    def __init__(self, pages: int, make: Callable[[int, int], bool]) -> None:
        self._make, self._at_hand = make, True
        self._left = bytearray(b"\1" * pages)  # uses until a page is made huge; 0: that has been asked for

    def use_again(self, begin: int, end: int) -> None:
        """Pages [begin, end) serve once more."""
        left = self._left
        if left.count(0, begin, end) == end - begin:
            return
        due = [page for page in range(begin, end) if left[page] == 1]
        for page in range(begin, end):
            left[page] = max(left[page] - 1, 0)
        for _, run in groupby(enumerate(due), lambda counted: counted[1] - counted[0]):
            pages = [page for _, page in run]
            self._make_huge(pages[0], pages[-1] + 1)

    def _make_huge(self, begin: int, end: int) -> None:
        if self._at_hand:
            self._at_hand = not takes_long(lambda: self._make(begin, begin + 1))
            begin += 1
            if not self._at_hand:
                later = bytes([PATIENCE])
                self._left = self._left.replace(b"\1", later)
                self._left[begin:end] = later * (end - begin)
                return
        if begin < end and not self._make(begin, end):
            self._left = bytearray(len(self._left))  # nor will it next time
