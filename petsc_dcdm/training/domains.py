"""Random diffusion systems to train on, from seeds: geometry, boundaries and coefficients as conductances. numpy only.

Every system is a 7-point operator in the convention of the models: ``w[a]`` is the conductance of each cell's low face
along axis a = x, y, z, `s` the extra diagonal, both 0 at cells without an unknown, scaled to a largest diagonal of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from petsc_dcdm.grid.faces import all_but_first, all_but_last, connected, diagonal, largest_connected, padded
from petsc_dcdm.grid.layout import Plan, SerialLayout
from petsc_dcdm.grid.shape import NOT_PERIODIC, Periodic, Shape

Rng = np.random.Generator
Faces = tuple[np.ndarray, np.ndarray, np.ndarray]

#: What an open side of the grid is: pressure given half a cell outside (2 w), in a ghost cell (w), or a wall (0).
OPENINGS = (0.0, 1.0, 2.0)


@dataclass(frozen=True)
class System:
    """A stencil: float32 ``w[0..2]`` and `s`, each (nz, ny, nx). `closed`: singular, constants are its null space."""

    w: Faces
    s: np.ndarray
    closed: bool
    periodic: Periodic = NOT_PERIODIC  #: the axes (z, y, x) whose ends are neighbours
    plan: Plan | None = None  #: how far a solve coarsens it; None: training does not mind and goes on

    @property
    def shape(self) -> Shape:
        return (self.s.shape[0], self.s.shape[1], self.s.shape[2])

    @property
    def active(self) -> np.ndarray:
        """bool (nz, ny, nx): the cells that hold an unknown."""
        return self.diagonal() > 0

    def diagonal(self) -> np.ndarray:
        return diagonal([padded(face, SerialLayout(self.shape, (), periodic=self.periodic)) for face in self.w], self.s)


def assemble(
    fluid: np.ndarray,
    air: np.ndarray,
    sides: np.ndarray,
    coefficient: np.ndarray | None = None,
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> System:
    """The system of a geometry.

    Parameters
    ----------
    fluid
        bool (nz, ny, nx), cells with an unknown. All others are solid unless `air`.
    air
        bool, cells where the pressure is given: they add their conductance to s of their neighbours.
    sides
        [3, 2] extra diagonal over conductance at the low and high side of x, y, z; one of `OPENINGS`.
    coefficient
        of the cells, (nz, ny, nx) or along x, y, z [3, nz, ny, nx]; a face gets the harmonic mean. Default 1.
    ratio
        conductances along x, y, z of a cell of coefficient 1.

    Unknowns that no given pressure reaches are dropped, unless that is all of them: then the largest
    connected part stays, closed.
    """
    along = np.broadcast_to(1.0 if coefficient is None else coefficient, (3, *fluid.shape))
    s = np.zeros(fluid.shape)
    w = []
    for a, k in enumerate(along):
        wa = np.zeros(fluid.shape)
        k0, k1 = all_but_last(k, a), all_but_first(k, a)
        f0, f1, g0, g1 = all_but_last(fluid, a), all_but_first(fluid, a), all_but_last(air, a), all_but_first(air, a)
        face = ratio[a] * 2 * k0 * k1 / (k0 + k1)
        all_but_first(wa, a)[...] = face * (f0 & f1)
        all_but_last(s, a)[...] += face * (f0 & g1)
        all_but_first(s, a)[...] += face * (f1 & g0)
        if fluid.shape[2 - a] > 1:
            for side, layer in ((0, 0), (1, fluid.shape[2 - a] - 1)):
                index: list[slice | int] = [slice(None)] * 3
                index[2 - a] = layer
                s[tuple(index)] += sides[a, side] * ratio[a] * (k * fluid)[tuple(index)]
        w.append(wa)
    return finish((w[0], w[1], w[2]), s)


def finish(w: Faces, s: np.ndarray, periodic: Periodic = NOT_PERIODIC) -> System:
    """Drop parts of the domain that are closed off, scale, convert to float32."""
    reached = connected(s > 0, w, periodic)
    closed = not reached.any()
    if closed:
        reached = largest_connected(w, periodic)
    keep = [np.where(reached, wa, 0.0) for wa in w]
    s = np.where(reached, s, 0.0)
    top = max(System((keep[0], keep[1], keep[2]), s, closed, periodic).diagonal().max(), np.finfo(float).tiny)
    a, b, c = ((x / top).astype(np.float32) for x in keep)
    return System((a, b, c), (s / top).astype(np.float32), closed, periodic)


# Geometry -----------------------------------------------------------------------------------------


def grid(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell centres x, y, z in units of cells, broadcastable to (nz, ny, nx)."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return x + 0.5, y + 0.5, z + 0.5


def ball(shape: Shape, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """bool: the ellipsoid about `centre` (x, y, z). In 2D the z radius does not matter."""
    x, y, z = grid(shape)
    q = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    q = q + ((z - centre[2]) / radii[2]) ** 2 if shape[0] > 1 else q
    return np.broadcast_to(q < 1, shape)


def brick(shape: Shape, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """bool: the cells whose centre lies in the box from `low` to `high` (x, y, z)."""
    x, y, z = grid(shape)
    inside = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    return np.broadcast_to(inside & (z > low[2]) & (z < high[2]) if shape[0] > 1 else inside, shape)


def size(shape: Shape) -> np.ndarray:
    """(nx, ny, nz)."""
    return np.array(shape[::-1], float)


def obstacles(shape: Shape, rng: Rng, count: int, largest: float) -> np.ndarray:
    """bool: `count` random boxes and ellipsoids of radii up to `largest` times the grid."""
    solid = np.zeros(shape, bool)
    n = size(shape)
    span = n[n > 1].min()
    for _ in range(count):
        centre = rng.random(3) * n
        radii = np.maximum(span * largest * rng.uniform(0.15, 1.0, 3), 0.8)
        solid |= ball(shape, centre, radii) if rng.random() < 0.5 else brick(shape, centre - radii, centre + radii)
    return solid


def wavy_surface(shape: Shape, rng: Rng) -> np.ndarray:
    """bool: air above a wavy free surface, along a random axis and in a random sense."""
    axes = [a for a in range(3) if shape[2 - a] > 1]
    up = int(rng.choice(axes))
    n = size(shape)
    height = np.full(shape, n[up] * rng.uniform(0.3, 0.9))
    for a in axes:
        if a != up:
            position = grid(shape)[a] / n[a]
            height = height + n[up] * rng.uniform(0, 0.15) * np.sin(
                2 * np.pi * (rng.integers(1, 4) * position + rng.random())
            )
    along = grid(shape)[up]
    return np.broadcast_to((along if rng.random() < 0.5 else n[up] - along) > height, shape)


def plates(shape: Shape, rng: Rng) -> np.ndarray:
    """bool: thin plates across random axes at random distances, each with a hole."""
    solid = np.zeros(shape, bool)
    n = size(shape)
    axes = [a for a in range(3) if shape[2 - a] > 1]
    for a in rng.permutation(axes)[: rng.integers(1, len(axes) + 1)]:
        at = float(rng.integers(2, 10))
        while at < n[a] - 2:
            low, high = np.zeros(3), n.copy()
            low[a], high[a] = at, at + rng.integers(1, 3)
            wall = brick(shape, low, high)
            centre = rng.random(3) * n
            radii = np.maximum(rng.uniform(0.03, 0.3, 3) * n, 0.8)
            low, high = centre - radii, centre + radii
            low[a], high[a] = 0, n[a]
            solid |= wall & ~brick(shape, low, high)
            at += float(rng.integers(4, 16))
    return solid


def smooth_noise(shape: Shape, rng: Rng, modes: int = 6) -> np.ndarray:
    """A sum of a few long waves, values about -1..1."""
    field = np.zeros(shape)
    for _ in range(modes):
        phase = np.zeros(shape) + rng.random()
        for a in range(3):
            if shape[2 - a] > 1:
                phase = phase + rng.uniform(-2, 2) * grid(shape)[a] / shape[2 - a]
        field += np.cos(2 * np.pi * phase)
    return field / np.abs(field).max()


def random_sides(shape: Shape, rng: Rng, open_chance: float) -> np.ndarray:
    """[3, 2]: each side a wall or one of the two ways of being open."""
    return np.where(rng.random((3, 2)) < open_chance, rng.choice(OPENINGS[1:], (3, 2)), 0.0)


# Families -----------------------------------------------------------------------------------------

Family = Callable[[Shape, Rng], System]
#: Family -> what makes a system of it, and how often it is drawn in training beside the others.
FAMILIES: dict[str, tuple[Family, float]] = {}


def family(odds: float) -> Callable[[Family], Family]:
    """Decorator: draw systems of ``family_NAME`` in training, under NAME, so often beside the others."""

    def register(function: Family) -> Family:
        FAMILIES[function.__name__.removeprefix("family_")] = function, odds
        return function

    return register


@family(5.0)
def family_mixed(shape: Shape, rng: Rng) -> System:
    """Solid boxes and ellipsoids, with chances of a wavy free surface, bubbles and open sides."""
    solid = obstacles(shape, rng, int(rng.integers(0, 9)), 0.25)
    air = wavy_surface(shape, rng) if rng.random() < 0.6 else np.zeros(shape, bool)
    if rng.random() < 0.3:
        air = air | obstacles(shape, rng, int(rng.integers(1, 6)), 0.08)
    air = air & ~solid
    sides = random_sides(shape, rng, 0.2 if air.any() else 0.5)
    return assemble(~solid & ~air, air, sides)


@family(2.0)
def family_box(shape: Shape, rng: Rng) -> System:
    """An empty box with any sides; half of the time all of them given, as on vertex-centred grids."""
    sides = np.full((3, 2), rng.choice(OPENINGS[1:])) if rng.random() < 0.5 else random_sides(shape, rng, 0.4)
    none = np.zeros(shape, bool)
    return assemble(~none, none, sides)


@family(1.5)
def family_smooth(shape: Shape, rng: Rng) -> System:
    """Smooth coefficients over up to two decades and a few obstacles."""
    solid = obstacles(shape, rng, int(rng.integers(0, 4)), 0.2)
    k = 10.0 ** (rng.uniform(0.3, 1.0) * smooth_noise(shape, rng))
    return assemble(~solid, np.zeros(shape, bool), random_sides(shape, rng, 0.6), k)


@family(2.0)
def family_jumps(shape: Shape, rng: Rng) -> System:
    """Coefficients that jump by up to 1e4 between blocks, or between bodies and what surrounds them."""
    jump = 10.0 ** rng.uniform(0.5, 4.0)
    if rng.random() < 0.7:
        edge = int(rng.integers(2, 13))
        index = [(np.arange(n) + int(rng.integers(0, edge))) // edge for n in shape]
        pick = rng.random([int(i.max()) + 1 for i in index]) < rng.uniform(0.2, 0.8)
        stiff = pick[np.ix_(*index)]
    else:
        stiff = obstacles(shape, rng, int(rng.integers(2, 20)), 0.25)
    solid = obstacles(shape, rng, int(rng.integers(0, 3)), 0.2)
    return assemble(~solid, np.zeros(shape, bool), random_sides(shape, rng, 0.5), np.where(stiff, jump, 1.0))


@family(2.5)
def family_ratio(shape: Shape, rng: Rng) -> System:
    """Conductances that differ between the axes by up to 100, in boxes and mixed domains."""
    axes = [a for a in range(3) if shape[2 - a] > 1]
    ratio = np.ones(3)
    chosen = rng.permutation(axes)[: rng.integers(1, len(axes))] if len(axes) > 1 else axes
    ratio[chosen] = 10.0 ** rng.uniform(0.0, 2.0)
    if rng.random() < 0.3:
        ratio *= 10.0 ** rng.uniform(-0.5, 0.5, 3)
    solid = obstacles(shape, rng, int(rng.integers(0, 5)), 0.2) if rng.random() < 0.6 else np.zeros(shape, bool)
    air = wavy_surface(shape, rng) & ~solid if rng.random() < 0.3 else np.zeros(shape, bool)
    sides = random_sides(shape, rng, 0.5)
    return assemble(~solid & ~air, air, sides, ratio=(ratio[0], ratio[1], ratio[2]))


@family(1.0)
def family_plates(shape: Shape, rng: Rng) -> System:
    """Thin plates with holes."""
    none = np.zeros(shape, bool)
    return assemble(~plates(shape, rng), none, random_sides(shape, rng, 0.4))


@family(1.5)
def family_porous(shape: Shape, rng: Rng) -> System:
    """Many small spheres."""
    solid = obstacles(shape, rng, int(rng.integers(20, 80)), 0.12)
    return assemble(~solid, np.zeros(shape, bool), random_sides(shape, rng, 0.5))


@family(1.5)
def family_random(shape: Shape, rng: Rng) -> System:
    """Every cell solid with the same chance."""
    solid = rng.random(shape) < rng.uniform(0.02, 0.3)
    return assemble(~solid, np.zeros(shape, bool), random_sides(shape, rng, 0.5))


@family(0.5)
def family_channels(shape: Shape, rng: Rng) -> System:
    """Straight channels a cell or two wide through solid, that cross one another."""
    fluid = np.zeros(shape, bool)
    n = size(shape)
    axes = [a for a in range(3) if shape[2 - a] > 1]
    for _ in range(int(rng.integers(10, 60))):
        a = int(rng.choice(axes))
        low = np.floor(rng.random(3) * n)
        high = low + rng.integers(1, 3, 3)
        low[a], high[a] = 0, n[a]
        fluid |= brick(shape, low, high)
    return assemble(fluid, np.zeros(shape, bool), random_sides(shape, rng, 0.6))


@family(0.5)
def family_gaps(shape: Shape, rng: Rng) -> System:
    """Large bricks that leave gaps of one to three cells between them."""
    solid = np.ones(shape, bool)
    n = size(shape)
    for a in range(3):
        if shape[2 - a] > 1:
            at = float(rng.integers(0, 4))
            while at < n[a]:
                low, high = np.zeros(3), n.copy()
                low[a], high[a] = at, at + rng.integers(1, 4)
                solid &= ~brick(shape, low, high)
                at += float(rng.integers(4, 14))
    return assemble(~solid, np.zeros(shape, bool), random_sides(shape, rng, 0.5))


@family(1.5)
def family_closed(shape: Shape, rng: Rng) -> System:
    """Walls all around: pure Neumann, or open through one cell only."""
    solid = obstacles(shape, rng, int(rng.integers(0, 8)), 0.25)
    air = np.zeros(shape, bool)
    if rng.random() < 0.4:
        air.flat[int(rng.integers(air.size))] = True
    return assemble(~solid & ~air, air, np.zeros((3, 2)))


SHAPES_3D: tuple[Shape, ...] = ((32, 32, 32), (24, 24, 24), (16, 32, 24), (25, 21, 27), (20, 16, 44), (29, 34, 18))
SHAPES_2D: tuple[Shape, ...] = ((1, 128, 128), (1, 96, 120), (1, 97, 65), (1, 64, 64), (1, 150, 60))


def random_system(rng: Rng, two_dimensional: bool) -> tuple[str, System]:
    """A family's name and a system of it, drawn by the odds of `FAMILIES`; under 50 unknowns are drawn again."""
    names = list(FAMILIES)
    odds = np.array([FAMILIES[name][1] for name in names])
    while True:
        name = str(rng.choice(names, p=odds / odds.sum()))
        shapes = SHAPES_2D if two_dimensional else SHAPES_3D
        system = FAMILIES[name][0](shapes[int(rng.integers(len(shapes)))], rng)
        if system.active.sum() >= 50:
            return name, system
