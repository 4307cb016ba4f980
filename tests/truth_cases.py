"""Random systems of the kind that the package promises to solve, each from its seed alone, in natural numbering.

Nothing here knows the package or PETSc: :mod:`truth_oracle` says what is right for a system, :mod:`truth_check` solves
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

MOST_CELLS, MOST_WIDE = 1500, 3000
WIDE = 1_000_000
"""Cases from this seed on are wide: 1 to 40 cells along 1 to 3 axes, periodic sides, matrices times 1e-30 to 1e30."""
Shape = tuple[int, ...]
"""Cells along x, y[, z]."""


@dataclass
class Recipe:
    """What a matrix is made of; lengths are those of the cells, x fastest."""

    shape: Shape
    k: np.ndarray
    walls: dict[tuple[int, int], float]
    """Conductance factor of the walls by axis and end; 0 is closed."""
    solid: np.ndarray
    """Cells without couplings: a row with only ``identity`` on its diagonal."""
    fixed: np.ndarray
    """Cells with a given value: such a row, too, while the others' couplings to it stay, in the matrix or in b."""
    one_way: bool
    """Columns of fixed cells stay in the rows of the others."""
    identity: float
    """Diagonal of such rows, of the final matrix."""
    held: np.ndarray
    penalty: float
    """Added to the diagonal of held cells (and times their value to b), against the largest conductance."""
    extra: np.ndarray
    scale: float
    periodic: tuple[bool, ...] = (False, False, False)
    skew: float = 0.0
    """Makes one coupling that much larger than its mirror: the matrix is to be refused then."""


@dataclass
class System:
    """A matrix and what is known of it by construction."""

    A: sp.csr_matrix
    alone: np.ndarray
    held: np.ndarray
    rooms: list[np.ndarray]
    """Parts without any tie to a wall or a fixed value: constants on each are a null space."""
    near: bool
    """A tie is so weak against the diagonal that rounding blurs it."""
    supported: bool
    source: np.ndarray
    """What given values bring to b."""


@dataclass
class Case:
    """A system, a right-hand side, a guess, and how the solver is to be used on them."""

    seed: int
    recipe: Recipe
    system: System
    b: np.ndarray
    guess: np.ndarray | None
    guess_kind: str
    null_space: list[np.ndarray]
    """Orthonormal vectors that the user attaches; none if empty."""
    rtol: float
    atol: float
    norm: str
    options: dict[str, Any]
    dmda: bool
    symmetric_known: bool
    second: Recipe | None = None
    """The matrix of a second solve with the same KSP ..."""
    new_object: bool = False
    """... in a Mat of its own, or in that of the first."""
    reuse: bool = False
    """... with the preconditioner of the first."""
    rescaled: tuple[float, float] | None = None
    """Powers of two that A and b are multiplied with to be solved once more: to the same end in as many steps."""
    words: list[str] = field(default_factory=list)


def strides(shape: Shape) -> list[int]:
    return [int(np.prod(shape[:axis])) for axis in range(len(shape))]


def faces(shape: Shape, k: np.ndarray, periodic: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells on both sides of each inner face, and the harmonic mean of their coefficients. The ends of a periodic axis
    have one between them, also where there are only two cells and another face.
    """
    cell = np.arange(k.size)
    low, high = [], []
    for n, step, ring in zip(shape, strides(shape), periodic, strict=False):
        last = cell // step % n == n - 1
        low.append(cell[~last] if not ring or n == 1 else cell)
        high.append(np.where(last, cell - (n - 1) * step, cell + step)[low[-1]])
    i, j = np.concatenate(low), np.concatenate(high)
    return i, j, 2.0 / (1.0 / k[i] + 1.0 / k[j])


def assemble(recipe: Recipe, values: np.ndarray) -> System:
    """``values``: what fixed and held cells are to have."""
    n, shape = recipe.k.size, recipe.shape
    i, j, c = faces(shape, recipe.k, recipe.periodic)
    open_ = ~recipe.solid[i] & ~recipe.solid[j]
    i, j, c = i[open_], j[open_], c[open_]
    alone = recipe.solid | recipe.fixed
    cell = np.arange(n)
    tie = np.where(alone, 0.0, recipe.extra)
    for (axis, end), factor in recipe.walls.items():
        at = cell // strides(shape)[axis] % shape[axis] == (shape[axis] - 1 if end else 0)
        tie[at & ~alone] += factor * recipe.k[at & ~alone]
    big = recipe.penalty * max(float(c.max(initial=0.0)), float(recipe.k.max()))
    held = recipe.held & ~alone
    tie[held] += big
    source = np.where(held, big * values, 0.0)
    diagonal = tie + np.bincount(i, c, n) + np.bincount(j, c, n)
    rows, columns, entries = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([c, c])
    keep = ~alone[rows]
    rows, columns, entries = rows[keep], columns[keep], entries[keep]
    bound = alone[columns]
    tie += np.bincount(rows[bound], entries[bound], n)
    if not recipe.one_way:
        source += np.bincount(rows[bound], (entries * values[columns])[bound], n)
        rows, columns, entries, bound = rows[~bound], columns[~bound], entries[~bound], bound[~bound]
    parts = connected_components(sp.coo_matrix((entries[~bound], (rows[~bound], columns[~bound])), (n, n)))[1]
    if recipe.skew and entries.size:
        entries[entries.size // 2] *= 1 + recipe.skew
    diagonal = np.where(alone, 1.0, diagonal)
    A = sp.coo_matrix((-entries, (rows, columns)), (n, n)).tocsr() + sp.diags(diagonal)
    A = (A * recipe.scale).tocsr()
    # A cell between solids has no coupling and maybe no tie: its row is all zero, and the package's identity row.
    lonely = ~alone & (diagonal == 0.0)
    single = alone | (np.bincount(rows, minlength=n) == 0)
    own = A.diagonal()
    own[alone | lonely] = recipe.identity
    A.setdiag(own)
    source *= recipe.scale
    source[alone | lonely] = recipe.identity * values[alone | lonely]
    strength = np.zeros(parts.max() + 1)
    np.maximum.at(strength, parts, np.where(single, 1.0, tie / np.where(diagonal > 0, diagonal, 1.0)))
    rooms = [np.flatnonzero(parts == p) for p in np.flatnonzero(strength == 0.0)]
    near = bool(((strength > 0.0) & (strength < 1e-11)).any())
    same_sign = recipe.identity * recipe.scale > 0 or not (alone | lonely).any()
    return System(A.tocsr(), single, held, rooms, near, same_sign and not recipe.skew, source)


def random_shape(random: np.random.Generator, wide: bool) -> Shape:
    axes = int(random.choice([1, 2, 3], p=[0.1, 0.4, 0.5]) if wide else random.choice([2, 3]))
    shape = [int(n) for n in random.integers(1, 41 if wide else 25, axes)]
    if random.random() < 0.5:
        shape = [max(n, 6) for n in shape]
    while np.prod(shape) > (MOST_WIDE if wide else MOST_CELLS):
        shape[int(np.argmax(shape))] //= 2
    return tuple(shape)


def coefficients(random: np.random.Generator, shape: Shape) -> tuple[np.ndarray, str]:
    n, decades = int(np.prod(shape)), float(random.choice([0.5, 2.0, 4.0, 8.0]))
    kind = str(random.choice(["constant", "random", "smooth", "two phases"], p=[0.4, 0.2, 0.2, 0.2]))
    cell = np.arange(n)
    if kind == "constant":
        return np.ones(n), kind
    if kind == "random":
        power = random.random(n)
    elif kind == "smooth":
        power = np.zeros(n)
        for size, step in zip(shape, strides(shape), strict=True):
            power += np.sin(random.uniform(0, 6) + random.uniform(0, 6) * (cell // step % size) / size) / 2 / len(shape)
    else:
        power = (random.random(n) < 0.3).astype(float)
        if random.random() < 0.7:  # a body instead of dust
            power = (cell // strides(shape)[-1] % shape[-1] < (shape[-1] + 1) // 2).astype(float)
    return 10.0 ** (decades * (power - 0.5)), f"k {kind} over {decades:g} decades"


def random_walls(random: np.random.Generator, shape: Shape) -> tuple[dict[tuple[int, int], float], str]:
    sides = [(axis, end) for axis in range(len(shape)) for end in (0, 1)]
    kind = str(random.choice(["open", "closed", "one open", "mixed"], p=[0.35, 0.3, 0.15, 0.2]))
    if kind == "one open":
        chosen = {sides[int(random.integers(len(sides)))]: 2.0}
    else:
        chance = {"open": 1.0, "closed": 0.0, "mixed": 0.5}[kind]
        chosen = {side: 2.0 for side in sides if random.random() < chance}
    return chosen, f"walls {kind}"


def random_recipe(random: np.random.Generator, wide: bool) -> tuple[Recipe, list[str]]:
    shape = random_shape(random, wide)
    n = int(np.prod(shape))
    k, about_k = coefficients(random, shape)
    walls, about_walls = random_walls(random, shape)
    words = ["x".join(map(str, shape)), about_k, about_walls]
    rings = tuple(bool(random.random() < 0.4) for _ in shape) if wide else (False,) * len(shape)
    if any(rings):
        walls = {(axis, end): factor for (axis, end), factor in walls.items() if not rings[axis]}
        words.append("periodic along " + ",".join(axis for axis, ring in zip("xyz", rings, strict=False) if ring))
    solid, fixed, held, extra = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool), np.zeros(n)
    for name, mask, chance in (("solids", solid, 0.3), ("identity rows", fixed, 0.35), ("penalties", held, 0.12)):
        if random.random() < chance:
            mask |= random.random(n) < random.choice([0.01, 0.05, 0.3])
            words.append(f"{mask.sum()} {name}")
    if random.random() < 0.1:
        fixed[int(random.integers(n))] = True
        words.append("a pinned cell")
    penalty = 10.0 ** random.uniform(8, 30) if held.any() else 0.0
    if random.random() < 0.25:
        extra += 10.0 ** random.uniform(-14, 0) * (random.random(n) if random.random() < 0.3 else 1.0)
        words.append(f"extra {extra.max():.1e}")
    scale = 1.0
    if random.random() < 0.4:
        scale = float(random.choice([-1.0, 1.0]) * 10.0 ** (random.uniform(-12, 12) * (2.5 if wide else 1.0)))
    sign = 1.0 if scale > 0 else -1.0
    identity = float(random.choice([sign, scale, scale * 10.0 ** random.uniform(-9, 9)]))
    one_way = bool(random.random() < 0.5)
    if fixed.any():
        words.append(f"{'one way' if one_way else 'columns moved'}")
    words.append(f"scale {scale:.1e} identity {identity:.1e}")
    return Recipe(shape, k, walls, solid, fixed, one_way, identity, held, penalty, extra, scale, rings), words


def changed(random: np.random.Generator, recipe: Recipe) -> tuple[Recipe, str]:
    n = recipe.k.size
    what = str(random.choice(["values", "identity rows", "bodies", "size"]))
    some = random.random(n) < 0.05
    if what == "values":
        return replace(recipe, k=recipe.k * np.exp(0.3 * random.standard_normal(n))), what
    if what == "identity rows":
        return replace(recipe, fixed=some), what
    if what == "bodies":
        return replace(recipe, solid=some), what
    size = 10.0 ** float(random.uniform(-3, 3))
    return replace(recipe, scale=recipe.scale * size, identity=recipe.identity * size), what


def right_hand_side(random: np.random.Generator, system: System, shape: Shape) -> tuple[np.ndarray, str]:
    n = system.A.shape[0]
    size = (
        abs(system.A.diagonal()[~system.alone & ~system.held]).mean() if (~system.alone & ~system.held).any() else 1.0
    )
    kind = str(random.choice(["random", "smooth", "wells", "image", "zero"], p=[0.35, 0.2, 0.15, 0.25, 0.05]))
    cell, f = np.arange(n), np.zeros(n)
    if kind == "random":
        f = random.standard_normal(n)
    elif kind == "smooth":
        f = 1.0 + np.sin(3.0 * (cell % shape[0]) / shape[0] + 5.0 * (cell // shape[0]) / n)
    elif kind == "wells":
        f[random.integers(0, n, 3)] = random.standard_normal(3)
    elif kind == "image":
        x = random.standard_normal(n)
        return np.asarray(system.A @ x), kind
    f = np.where(system.alone | system.held, 0.0, f * size)
    if system.rooms:
        for room in system.rooms:
            f[room] -= f[room].mean()
        if random.random() < 0.4 and kind != "zero":
            rooms = system.rooms[: 1 + int(random.integers(len(system.rooms)))]
            for room in rooms:
                f[room] += 0.3 * size * float(random.choice([1.0, -1.0]))
            kind += " inconsistent"
    return f + (0.0 if kind == "zero" else system.source), kind


def random_null_space(random: np.random.Generator, system: System) -> tuple[list[np.ndarray], str]:
    n, draw = system.A.shape[0], random.random()
    if system.rooms and draw < 0.4:
        vectors = []
        for room in system.rooms:
            vector = np.zeros(n)
            vector[room] = 1 / np.sqrt(room.size)
            vectors.append(vector)
        return vectors, "null space attached"
    if draw > 0.93 or (system.rooms and draw > 0.85):
        return [np.full(n, n**-0.5)], "constants attached"
    return [], ""


def make(seed: int) -> Case:
    """The case of this seed."""
    random, wide = np.random.default_rng(seed), seed >= WIDE
    recipe, words = random_recipe(random, wide)
    n = recipe.k.size
    level = float(random.choice([1.0, 1e6, 1e-4], p=[0.8, 0.1, 0.1]))
    if random.random() < 0.04 and n > 30:
        recipe = replace(recipe, skew=float(random.choice([0.5, 1e-3])))
        words.append("not symmetric")
    system = assemble(recipe, level * random.standard_normal(n))
    b, about_b = right_hand_side(random, system, recipe.shape)
    null_space, about_null_space = random_null_space(random, system)
    guess_kind = str(random.choice(["zero", "random", "huge", "solution"], p=[0.6, 0.2, 0.05, 0.15]))
    factor = {"zero": 0.0, "random": 1.0, "huge": 1e12, "solution": 0.0}[guess_kind]
    options: dict[str, Any] = {
        "ksp_dcdm_history": int(random.choice([0, 1, 2, 4], p=[0.05, 0.1, 0.75, 0.1])),
        "ksp_dcdm_operator": str(random.choice(["auto", "mat"], p=[0.7, 0.3])),
        "ksp_dcdm_true_residual_every": int(random.choice([0, 1, 7, 50])),
        "ksp_max_it": 300,
    }
    norm = str(random.choice(["", "natural", "preconditioned", "none"], p=[0.75, 0.13, 0.06, 0.06]))
    if norm == "none":
        options["ksp_max_it"] = 5
    case = Case(
        seed=seed,
        recipe=recipe,
        system=system,
        b=b,
        guess=None if guess_kind == "zero" else factor * level * random.standard_normal(n),
        guess_kind=guess_kind,
        null_space=null_space,
        rtol=10.0 ** -float(random.choice([3, 5, 8, 10, 12, 14], p=[0.15, 0.3, 0.25, 0.15, 0.1, 0.05])),
        atol=1e-50 if random.random() < 0.85 else float(np.linalg.norm(b)) * 1e-7,
        norm=norm,
        options=options,
        dmda=bool(random.random() < 0.6),
        symmetric_known=bool(random.random() < 0.3) and not (recipe.one_way and recipe.fixed.any()) and not recipe.skew,
    )
    if random.random() < 0.3:
        case.second, what = changed(random, recipe)
        case.new_object, case.reuse = bool(random.random() < 0.5), bool(random.random() < 0.6)
        how = f"{'new Mat' if case.new_object else 'same Mat'}{', PC reused' if case.reuse else ''}"
        words.append(f"then other {what} ({how})")
    elif random.random() < 0.4 and norm != "none" and case.atol == 1e-50:
        sign = float(random.choice([1.0, -1.0]))
        case.rescaled = sign * 2.0 ** int(random.integers(-30, 31)), 2.0 ** int(random.integers(-30, 31))
        if wide:  # all of it to about 1e-30 to 1e30
            factor = 2.0 ** (int(random.integers(-100, 101)) - round(np.log2(abs(recipe.scale))))
            case.rescaled = sign * factor, max(case.rescaled[1], 1.0) * factor  # rounding of b stays above atol
        words.append(f"once more times {case.rescaled[0]:.0e}, {case.rescaled[1]:.0e}")
    words += [f"b {about_b}", about_null_space, f"guess {guess_kind}", f"rtol {case.rtol:.0e}", norm and f"norm {norm}"]
    words += ["DMDA" if case.dmda else "natural order", ", ".join(f"{k[9:]} {v}" for k, v in options.items())]
    case.words = [word for word in words if word]
    return case
