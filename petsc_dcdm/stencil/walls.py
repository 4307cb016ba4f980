"""Where the grid stops making sense: walls and jumps of the coefficient that a coarser level would merge.

A coarse cell whose children lie on both sides of a thin wall joins what the wall separates, and its correction is wrong
on both sides (thin plates: more than 60 iterations instead of 8). Such cells are torn: their children are not
connected within the block and one ring of cells around it. Children separated by a loose grain find a way around,
those separated by a wall do not. A face connects unless it is much weaker (``WEAK``) than the strongest face of one of
its two cells: a stiff body and the soft matter beside it are apart, as are rooms joined by a small hole.

The skin of a body is not torn, though it is curved and cuts through blocks: what is beside a stiff body follows it, for
a face between them is as strong as any other that the soft cell has. That holds where block and ring show two parts
only, each larger than a corner (``skinless_cells``), and faces connect them that are not weak beside the softer of
their cells. Parts of two bodies, single stiff cells and what lies on both sides of a wall stay apart. Soft grains in a
stiff medium are no wall, however small and many they are: each follows what is around it (bubbles of 2 to 5 cells: 4
iterations on a plan that ignores them).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from math import prod

import numpy as np

from petsc_dcdm.grid.faces import interior, padded
from petsc_dcdm.grid.layout import Layout, Plan, SerialLayout, coarse_box
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.native.binding import declared
from petsc_dcdm.native.build import have_kernels, library
from petsc_dcdm.native.memory import address_of
from petsc_dcdm.native.node_team import ONE_RANK, Workers
from petsc_dcdm.native.structures import mirrors
from petsc_dcdm.stencil.agreement import most_agree, some_axis_is_strong, strong_cells
from petsc_dcdm.stencil.packed import PackedStencil
from petsc_dcdm.stencil.plan import VISITS, coarse_strength, strong_axes
from petsc_dcdm.stencil.torn import WEAK, children, count_torn, weak_face, whole_blocks

TORN_LIMIT = 0.002
"""Share of torn coarse cells from which on a level is not used; thin plates have 0.1 and more, random solids 0.0005.
Drops that are too small for a level show in few of its cells: 0.005 let levels through that took 12 / 16 iterations.
"""

TORN_LIMIT_FLAT = 0.0003
"""The same in the plane, where ways around are few: a correlated log-normal coefficient of deviation 2 at 1024^2 takes
28 iterations with a level of 0.002, 13 with 0.0007 and 5 without; ordinary systems have up to 0.00003."""

TORN_LIMIT_JUMPS, TORN_CELLS_JUMPS = 0.0005, 100
"""The same, and how many they are at least, for the first level where coefficients jump, in space: bodies that are torn
are slow modes, each of its own, of which the loop takes care of a few. Bubbles of 2 to 5 cells at 128^3 have 0.0009 and
take 9 iterations with the level, 5 without, in 0.85 of the time; a wavy surface at 40^3 has 10 such cells."""

AHEAD_LIMIT = 0.1
"""Share of torn cells one level further from which on a level is not used: its cells are as large as rooms or bodies,
which it describes by one number each. Jumps of 1 : 1000 at 128^3 need 11 to 15 iterations with it, 8 to 10 without.
"""

VISITS_AT_WALLS = 3
"""How often a cycle visits the second level where walls end the plan early: plates at 2048^2 take 7 / 8 iterations
instead of 8 / 10. Not where coefficients jump: every level corrects too much there; a second visit makes up for that,
after a third one it is back.
"""


def keep_walls(
    w: list[np.ndarray] | PackedStencil,
    layout: Layout,
    plan: Plan,
    mean_w: tuple[float, ...],
    threshold: float,
    threads: int,
    team: Workers = ONE_RANK,
) -> tuple[Plan, int]:
    """The part of ``plan`` that keeps apart what walls and jumps separate, and how often the second level is visited.
    Collective; the same on any number of ranks.

    Where coarsening all axes of a level would tear coarse cells, only those axes are coarsened along which it does
    not, as long as the axes left out are not so strongly coupled (``threshold``, see :func:`plan_coarsening`) that
    the smoother could not do without them; there the plan ends, and where most cells see other axes as the strong ones
    (:mod:`petsc_dcdm.stencil.agreement`). Where much would be torn (``AHEAD_LIMIT``) it ends a level earlier, the first
    coarsening excepted.

    Parameters
    ----------
    w
        padded float64 arrays (nz + 2, ny + 2, nx + 2) of the finest level, conductances of the low faces along
        x, y, z, or packed; halos are filled
    mean_w
        their global means
    team
        who works on the box
    """
    level = _Faces(w, threads, team)
    exchanged: Sequence[np.ndarray] = [w.cells] if isinstance(w, PackedStencil) else w
    strength, few = list(mean_w), TORN_LIMIT_FLAT if layout.global_shape[0] == 1 else TORN_LIMIT
    kept: list[tuple[int, ...]] = []
    whole, box = layout.global_shape, (layout.shape, layout.offset)
    for planned in plan:
        for face in exchanged:
            layout.exchange(face, corners=True)
        asked = level.faces and not (kept or any(layout.periodic))
        if asked and not some_axis_is_strong(level.strong_cells, planned, threshold, box[1], whole, layout):
            break
        torn = level.torn_share(planned, layout, AHEAD_LIMIT if len(kept) > 1 else few)
        if torn > AHEAD_LIMIT and len(kept) > 1:
            kept.pop()
            break
        if level.faces and not most_agree(level.strong_cells, planned, threshold, box[1], whole, layout):
            break
        limit, fewer = few, max(TORN_LIMIT_JUMPS, TORN_CELLS_JUMPS / prod(coarse_box(whole, (0, 0, 0), planned)[0]))
        if level.faces and not kept and fewer < torn <= few and _jumps(level, layout):
            limit = fewer
        axes = planned if torn <= limit else _untorn(level, planned, strength, layout, threshold, limit)
        if not axes:
            break
        strength = coarse_strength(strength, axes)
        kept.append(axes)
        whole, _ = coarse_box(whole, (0, 0, 0), axes)
        box = coarse_box(*box, axes)
        level = level.coarse(axes, whole)
        exchanged = level.faces
    else:
        if len(kept) > 1 and _torn_ahead(level, kept, strong_axes(strength, threshold), layout, threads) > AHEAD_LIMIT:
            kept.pop()
    if len(kept) < 2:
        return tuple(kept), 1
    return tuple(kept), VISITS_AT_WALLS if len(kept) < len(plan) and not _jumps(level, layout) else VISITS


def _jumps(level: _Faces, layout: Layout) -> bool:
    """Whether some coarse faces conduct, but much less than others: few of them conduct less for holes in walls.
    Collective.
    """
    strongest = layout.max(np.array([max(float(face.max(initial=0.0)) for face in level.faces)]))
    weak = any(((face > 0) & (face < WEAK * strongest)).any() for face in level.faces)
    return bool(layout.max(np.array([float(weak)])))


def _torn_ahead(
    level: _Faces, kept: list[tuple[int, ...]], axes: tuple[int, ...], layout: Layout, threads: int
) -> float:
    """Share of torn cells one level beyond the plan, to which boxes are not aligned: seen on the whole level, which has
    a few thousand cells. Collective.
    """
    shape, offset, whole = layout.shape, layout.offset, layout.global_shape
    for halved in kept:
        shape, offset = coarse_box(shape, offset, halved)
        whole, _ = coarse_box(whole, (0, 0, 0), halved)
    if (layout.alone or layout.one_team) and not any(layout.periodic):
        return level.torn_share(axes, layout, whole=whole)  # the halo is 0 there
    everything = SerialLayout(whole, (), periodic=layout.periodic)
    faces = np.zeros((3, *(n + 2 for n in whole)))
    own = tuple(slice(1 + first, 1 + first + n) for first, n in zip(offset, shape, strict=True))
    for axis, face in enumerate(level.faces):
        faces[(axis, *own)] = interior(face)
    faces = layout.sum(faces)
    everything.exchange(faces, corners=True)
    return _Faces(list(faces), threads).torn_share(axes, everything)


def _untorn(
    level: _Faces, planned: tuple[int, ...], strength: list[float], layout: Layout, threshold: float, few: float
) -> tuple[int, ...]:
    """The axes of ``planned`` that can be coarsened together with so ``few`` torn cells; none if the others are needed
    too.
    """
    whole = tuple(axis for axis in planned if level.torn_share((axis,), layout, few) <= few)
    left_out = [strength[axis] for axis in planned if axis not in whole]
    if not whole or (left_out and max(left_out) > threshold * max(strength[axis] for axis in whole)):
        return ()
    return whole if level.torn_share(whole, layout, few) <= few else ()


@mirrors("walls_grid")
class _Grid(ctypes.Structure):
    """walls_grid of walls.h."""

    _fields_ = [
        ("face", ctypes.c_void_p * 3),
        ("pitch_y", ctypes.c_int64),
        ("pitch_z", ctypes.c_int64),
        ("n", ctypes.c_int64 * 3),
        ("block", ctypes.c_int64 * 3),
        ("weak", ctypes.c_double),
        ("skinless", ctypes.c_int64),
        ("enough", ctypes.c_int64),
        ("cells", ctypes.c_void_p),
        ("c", ctypes.c_double * 3),
    ]


@functools.cache
def _kernels() -> ctypes.CDLL:
    """The library with the signatures of these kernels declared. Raises KernelsUnavailable."""
    i64, i32, pointer, grid = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Grid)
    three = ctypes.POINTER(i64 * 3)
    signatures = {
        "dcdm_walls_torn": (None, [grid, i32, pointer]),
        "dcdm_walls_coarsen": (None, [grid, *[pointer] * 3, i64, i64, i32, i32]),
        "dcdm_walls_strong": (None, [grid, three, three, ctypes.c_double, pointer]),
    }
    return declared(library(), signatures)


class _Faces:
    """The low faces of one level, padded. Compiled code, or numpy where there is none; packed ones are always
    compiled. `faces` is empty if they are packed.
    """

    def __init__(self, source: list[np.ndarray] | PackedStencil, threads: int, team: Workers = ONE_RANK) -> None:
        self._packed = source if isinstance(source, PackedStencil) else None
        self.faces = [] if isinstance(source, PackedStencil) else source
        self._shape = source.cells.shape if isinstance(source, PackedStencil) else source[0].shape
        self._threads, self._team = team.threads or threads, team
        self._grid: _Grid | None = None
        self._library: ctypes.CDLL | None = _kernels() if have_kernels() else None

    def torn_share(
        self, axes: tuple[int, ...], layout: Layout, limit: float = 1.0, whole: Shape | None = None
    ) -> float:
        """Share of the living coarse cells that are torn if ``axes`` are coarsened; of more than ``limit`` only that it
        is more. ``whole``: shape of a level that is coarser than that of the layout. Collective.
        """
        whole = whole or layout.global_shape
        # no level has more coarse cells on all ranks than the finest one: what one rank has seen is enough then
        most = prod(-(-n // b) for n, b in zip(whole, _block(axes), strict=True))
        weak = weak_face(axes, whole)
        living, torn = layout.sum(self.torn(axes, skinless_cells(whole), int(limit * most), weak))
        return float(torn / max(living, 1))

    def torn(self, axes: tuple[int, ...], skinless: int, enough: int = 2**62, weak: float = WEAK) -> np.ndarray:
        """Living and torn coarse cells on this rank, float64 [2]; bodies of up to ``skinless`` cells of a patch have no
        skin, faces connect from ``weak`` on. Of more than ``enough`` torn ones not all need be counted.
        """
        if self._library is None:
            return np.array(count_torn(self.faces, _block(axes), skinless, weak), float)
        counts = np.zeros(2, np.int64)
        grid = self._c_grid(axes, skinless)
        grid.enough, grid.weak = enough, weak
        self._team.do(self._library.dcdm_walls_torn, ctypes.byref(grid), self._threads, address_of(counts))
        return counts.astype(float)

    def strong_cells(self, first: list[int], stride: list[int], threshold: float) -> np.ndarray:
        """:func:`petsc_dcdm.stencil.agreement.strong_cells` of these faces, which are not packed."""
        if self._library is None:
            return strong_cells(self.faces, first, stride, threshold)
        counts, xyz = np.zeros(4, np.int64), ctypes.c_int64 * 3
        grid, places = self._c_grid(()), (xyz(*first[::-1]), xyz(*stride[::-1]))
        self._library.dcdm_walls_strong(ctypes.byref(grid), *places, threshold, address_of(counts))
        return counts

    def coarse(self, axes: tuple[int, ...], whole: Shape) -> _Faces:
        """The next level, of that global shape, if the medium were uniform: sums over the fine faces, halved along
        ``axes``. Halo at 0.
        """
        block = _block(axes)
        shape = tuple(-(-(n - 2) // b) + 2 for n, b in zip(self._shape, block, strict=True))
        closed = [axis for axis in range(3) if whole[2 - axis] == 1]  # the ends of a ring have come together
        if self._library is not None:
            memory = self._team.room if self._team.leads else self._team.zeros  # of those who lead others write to it
            room = memory(3 * prod(shape), np.float64)
            to = [address_of(room) + axis * room.nbytes // 3 for axis in range(3)]
            grid, more = self._c_grid(axes), (shape[2], shape[1] * shape[2], sum(1 << axis for axis in closed))
            self._team.do(self._library.dcdm_walls_coarsen, ctypes.byref(grid), *to, *more, self._threads)
            return _Faces(list(room.reshape(3, *shape)), self._threads, self._team)
        coarse = [np.zeros(shape) for _ in range(3)]
        for axis, out in enumerate(coarse):
            if axis in closed:
                continue
            face = whole_blocks(padded(interior(self.faces[axis])), block)
            for child in np.ndindex(*block):
                if child[2 - axis] == 0:
                    interior(out)[...] += children(face, child, block) * (0.5 if axis in axes else 1.0)
        return _Faces(coarse, self._threads, self._team)

    def _c_grid(self, axes: tuple[int, ...], skinless: int = 0) -> _Grid:
        grid = self._grid
        if grid is None:
            nz, ny, nx = (n - 2 for n in self._shape)
            grid = self._grid = _Grid(pitch_y=nx + 2, pitch_z=(nx + 2) * (ny + 2), n=(nx, ny, nz))
            if self._packed is not None:
                grid.cells, grid.c[:] = address_of(self._packed.cells), self._packed.c
            else:
                grid.face[:] = list(map(address_of, self.faces))
        grid.block[:] = _block(axes)[::-1]
        grid.skinless = skinless
        return grid


def skinless_cells(shape: Shape) -> int:
    """Cells in a patch up to which a body is not resolved there: one and a half times what a patch shows of a corner.

    In the patches of single stiff cells, of small cubes and of needles' ends there are no more. (A level that has 5 %
    single stiff cells is of no use: 73 to 99 iterations.)
    """
    return 3 * 2 ** sum(n > 1 for n in shape) // 2


@functools.cache  # of the few sets of axes that there are
def _block(axes: tuple[int, ...]) -> Shape:
    z, y, x = (2 if axis in axes else 1 for axis in (2, 1, 0))
    return z, y, x
