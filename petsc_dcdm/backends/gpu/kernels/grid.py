"""Cells of a box, their neighbours, and the coefficients of a stencil there: functions that the kernels are made of.

A box has (nz, ny, nx) cells, x fastest, in arrays without a halo; what lies outside counts as 0. Along a ring (1) the
first and the last cell are neighbours. A program works on tiles of BLOCK cells, 2^bx x 2^by along x and y; shapes,
rings and tiles are arguments, not constants, so that a kernel is compiled once for all levels and grids.

A stencil is four arrays a0 .. a3. PACKED: a byte a cell (petsc_dcdm.stencil.packed), the place of s in a list, the
conductances along x, y, z, and the list. Else the conductances of the low faces along x, y, z, and s.
"""

import triton
import triton.language as tl

SHAPE = [
    "nx", "ny", "nz", "px", "py", "pz", "hx", "hy", "hz", "mx", "my", "sx", "sy", "sz", "fx", "fy", "fz", "lx", "ly",
    "lz", "bx", "by",
]  # fmt: skip
"""Arguments of passes over a level: cells, rings; then what halves the axes, the cells of the next level's array, where
in it the parent of our cell (0, 0, 0) is, and the first cell and the length of rings of `parent`; then tiles.
"""


@triton.jit
def cells_of(tile, nx, ny, bx, by, BLOCK: tl.constexpr):
    """The coordinates of the cells of a tile; tiles are numbered x fastest and may stick out of the box."""
    lane = tl.arange(0, BLOCK)
    across = (nx + (1 << bx) - 1) >> bx
    along = (ny + (1 << by) - 1) >> by
    x = ((tile % across) << bx) + (lane & ((1 << bx) - 1))
    y = ((tile // across % along) << by) + ((lane >> bx) & ((1 << by) - 1))
    z = (tile // (across * along)) * (BLOCK >> (bx + by)) + (lane >> (bx + by))
    return x, y, z


@triton.jit
def column_of(tile, nx, bx, BLOCK: tl.constexpr):
    """The coordinates x, y of the columns of cells of a tile in the plane; tiles are numbered x fastest."""
    lane = tl.arange(0, BLOCK)
    across = (nx + (1 << bx) - 1) >> bx
    return ((tile % across) << bx) + (lane & ((1 << bx) - 1)), (tile // across) * (BLOCK >> bx) + (lane >> bx)


@triton.jit
def below(i, n, ring):
    """The coordinate before, and whether there is such a cell.

    (Here and elsewhere conditions are made of numbers: the interpreter does not know a tensor & a scalar truth.)
    """
    return tl.where(i == 0, n - 1, i - 1), i + ring > 0


@triton.jit
def above(i, n, ring):
    """The coordinate after, and whether there is such a cell."""
    return tl.where(i == n - 1, 0, i + 1), i < n - 1 + ring


@triton.jit
def beside(i, step, n, ring):
    """The coordinate `step` (-1, 0, 1) further, and whether there is such a cell."""
    there = i + step
    return tl.where(there < 0, n - 1, tl.where(there >= n, 0, there)), (there + ring >= 0) & (there < n + ring)


@triton.jit
def around(x, y, z, nx, ny, nz, px, py, pz):
    """Of each neighbour (low x, high x, low y, ...) the coordinate along its axis, and whether it is there."""
    x0, has_x0 = below(x, nx, px)
    x1, has_x1 = above(x, nx, px)
    y0, has_y0 = below(y, ny, py)
    y1, has_y1 = above(y, ny, py)
    z0, has_z0 = below(z, nz, pz)
    z1, has_z1 = above(z, nz, pz)
    return x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1


@triton.jit
def place(x, y, z, nx, ny):
    """Where a cell is in an array."""
    return (z * ny + y) * nx + x


@triton.jit
def parent(i, half, shift, first, length, SEAMS: tl.constexpr):
    """The coordinate of the coarse cell of i; `half`: 1 where the axis is halved, `shift`: where parents begin.

    SEAMS: an axis may be a ring of an odd number of cells, `length`, of which the arrays have a piece or more than all,
    from cell `first` of the ring on. The ring's last cell is a coarse cell alone; counted twice, it keeps the next
    turn even.
    """
    if SEAMS:
        i += (first & 1) + (i + first) // length
    return (i >> half) + shift


@triton.jit
def coarse_cells(n, half, first, length, SEAMS: tl.constexpr):
    """How many coarse cells have cells among the n of an axis."""
    return parent(n - 1, half, 1, first, length, SEAMS)


@triton.jit
def child(q, k, half, n, first, length, SEAMS: tl.constexpr):
    """The coordinate of cell k (0, 1) of the coarse cell q, and whether there is such a cell."""
    i = (q << half) + k
    if not SEAMS:
        return i, i < n
    i += first - (first & 1)
    turn = i // (length + 1)
    alone = i - turn * (length + 1) == length
    i -= turn + first
    return i, (i >= 0) & (i < n) & (alone == 0)


@triton.jit
def low_face(a, c, bits, axis: tl.constexpr, i, there, PACKED: tl.constexpr, TYPE: tl.constexpr):
    """The conductance of the low face along an axis; `a` is that axis's array, `bits` the cells' bytes."""
    if PACKED:
        return tl.where((bits >> (2 * axis)) & 1 != 0, tl.load(c + axis).to(TYPE), 0.0)
    return tl.load(a + i, mask=there, other=0.0).to(TYPE)


@triton.jit
def extra(a1, a3, bits, i, there, PACKED: tl.constexpr, TYPE: tl.constexpr):
    """What a cell has on its diagonal beside the conductances of its faces."""
    if PACKED:
        has = there & ((bits & 64) != 0)
        return tl.load(a3 + tl.load(a1 + i, mask=has, other=0).to(tl.int32), mask=has, other=0.0).to(TYPE)
    return tl.load(a3 + i, mask=there, other=0.0).to(TYPE)


@triton.jit
def cell_bits(a0, i, there, PACKED: tl.constexpr):
    """The bytes of packed cells, as integers."""
    if PACKED:
        return tl.load(a0 + i, mask=there, other=0).to(tl.int32)
    return tl.zeros_like(i)


@triton.jit
def constants(a2, PACKED: tl.constexpr, TYPE: tl.constexpr):
    """The conductances along x, y, z of packed stencils."""
    if PACKED:
        c_x, c_y, c_z = tl.load(a2).to(TYPE), tl.load(a2 + 1).to(TYPE), tl.load(a2 + 2).to(TYPE)
    else:
        c_x, c_y, c_z = 0.0, 0.0, 0.0
    return c_x, c_y, c_z


@triton.jit
def stencil_at(
    a0, a1, a2, a3, c_x, c_y, c_z, i, x1, has_x1, y1, has_y1, z1, has_z1, inside,
    PACKED: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Low and high conductances along x, y, z, and s, at cells that are at places i and their next ones along the axes
    at x1, y1, z1; 0 at cells that are not inside.
    """
    bits = cell_bits(a0, i, inside, PACKED)
    s = extra(a1, a3, bits, i, inside, PACKED, TYPE)
    if PACKED:
        w_x0, w_x1 = tl.where(bits & 1 != 0, c_x, 0.0), tl.where(bits & 2 != 0, c_x, 0.0)
        w_y0, w_y1 = tl.where(bits & 4 != 0, c_y, 0.0), tl.where(bits & 8 != 0, c_y, 0.0)
        w_z0, w_z1 = tl.where(bits & 16 != 0, c_z, 0.0), tl.where(bits & 32 != 0, c_z, 0.0)
    else:  # the high face of a cell is the low one of the next
        w_x0 = tl.load(a0 + i, mask=inside, other=0.0).to(TYPE)
        w_x1 = tl.load(a0 + x1, mask=inside & has_x1, other=0.0).to(TYPE)
        w_y0 = tl.load(a1 + i, mask=inside, other=0.0).to(TYPE)
        w_y1 = tl.load(a1 + y1, mask=inside & has_y1, other=0.0).to(TYPE)
        w_z0 = tl.load(a2 + i, mask=inside, other=0.0).to(TYPE)
        w_z1 = tl.load(a2 + z1, mask=inside & has_z1, other=0.0).to(TYPE)
    return w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s


@triton.jit
def stencil(
    a0, a1, a2, a3, x, y, z, x1, has_x1, y1, has_y1, z1, has_z1, inside, nx, ny,
    PACKED: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The same from the coordinates of the cells and of the next ones along each axis."""
    c_x, c_y, c_z = constants(a2, PACKED, TYPE)
    return stencil_at(
        a0, a1, a2, a3, c_x, c_y, c_z, place(x, y, z, nx, ny), place(x1, y, z, nx, ny), has_x1,
        place(x, y1, z, nx, ny), has_y1, place(x, y, z1, nx, ny), has_z1, inside, PACKED, TYPE,
    )  # fmt: skip


@triton.jit
def values(
    a, x, y, z, x0, has_x0, x1, has_x1, y0, has_y0, y1, has_y1, z0, has_z0, z1, has_z1, inside, nx, ny,
    TYPE: tl.constexpr,
):  # fmt: skip
    """What an array has in the cells and their neighbours low x, high x, low y, ...; 0 where there is none."""
    v = tl.load(a + place(x, y, z, nx, ny), mask=inside, other=0.0).to(TYPE)
    v_x0 = tl.load(a + place(x0, y, z, nx, ny), mask=inside & has_x0, other=0.0).to(TYPE)
    v_x1 = tl.load(a + place(x1, y, z, nx, ny), mask=inside & has_x1, other=0.0).to(TYPE)
    v_y0 = tl.load(a + place(x, y0, z, nx, ny), mask=inside & has_y0, other=0.0).to(TYPE)
    v_y1 = tl.load(a + place(x, y1, z, nx, ny), mask=inside & has_y1, other=0.0).to(TYPE)
    v_z0 = tl.load(a + place(x, y, z0, nx, ny), mask=inside & has_z0, other=0.0).to(TYPE)
    v_z1 = tl.load(a + place(x, y, z1, nx, ny), mask=inside & has_z1, other=0.0).to(TYPE)
    return v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1


@triton.jit
def product(w_x0, w_x1, w_y0, w_y1, w_z0, w_z1, s, v, v_x0, v_x1, v_y0, v_y1, v_z0, v_z1):
    """A v, written with differences across faces: no cancellation where v is smooth."""
    y = s * v
    y += w_x0 * (v - v_x0)
    y += w_x1 * (v - v_x1)
    y += w_y0 * (v - v_y0)
    y += w_y1 * (v - v_y1)
    y += w_z0 * (v - v_z0)
    y += w_z1 * (v - v_z1)
    return y


@triton.jit
def half_bits(v):
    """The bits of the bfloat16 next to v, to even ones: integers of 16 bits. (The interpreter only cuts off.)"""
    bits = v.to(tl.float32).to(tl.uint32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
