"""What other ranks need of an array, gathered into a message, and what they have sent, scattered from one."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n"])
def pack(message, a, cell, n, BLOCK: tl.constexpr):
    """message[k] = a[cell[k]]."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(message + k, tl.load(a + tl.load(cell + k, mask=k < n, other=0), mask=k < n), mask=k < n)


@triton.jit(do_not_specialize=["n"])
def unpack(a, message, cell, n, BLOCK: tl.constexpr):
    """a[cell[k]] = message[k]."""
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(a + tl.load(cell + k, mask=k < n, other=0), tl.load(message + k, mask=k < n), mask=k < n)
