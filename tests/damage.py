"""Bytes of a file that something has happened to, for the tests that read damaged files."""

from __future__ import annotations

import numpy as np


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The same bytes with one kind of damage, drawn: flipped bits, other bytes, a block that is gone, zeros or doubled,
    the end cut off, more after it.
    """
    data, size = bytearray(content), len(content)
    kind = int(random.integers(6))
    at = int(random.integers(min(size, 200) if random.random() < 0.5 else size))  # half of them in the head
    length = int(random.integers(1, 64))
    if kind == 0:
        for position in (at + random.integers(0, length, int(random.integers(1, 4)))) % size:
            data[position] ^= 1 << int(random.integers(8))
    elif kind == 1:
        data[at : at + length] = random.bytes(len(data[at : at + length]))
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == 4:
        data[at:at] = data[at : at + length]
    else:
        data = data[:at] if random.random() < 0.7 else data + random.bytes(length)
    return bytes(data)
