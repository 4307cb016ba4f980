"""Families of scenes, sealed pockets, assembly and right-hand sides on one rank (mpi/check_poisson.py: on several)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("petsc4py")
from petsc4py import PETSc

from petsc_dcdm.grid.faces import interior
from petsc_dcdm.grid.shape import Shape
from petsc_dcdm.poisson import dmda, families, flow, rhs, scene
from petsc_dcdm.poisson.assemble import AssemblyError, System, assemble
from petsc_dcdm.poisson.flags import FLUID, OPEN, SIDES, SOLID, Box, normal, sides_of, uniform, whole
from petsc_dcdm.poisson.pockets import seal_pockets

ODD: tuple[Shape, ...] = ((13, 9, 17), (1, 21, 15), (1, 1, 12), (2, 33, 5))


def make(name: str, shape: Shape, seed: int = 1, fluid_only: bool = False) -> System:
    dm = dmda.create(shape)
    world = families.make(name, shape, seed, dmda.box_of(dm))
    seal_pockets(world, dm)
    return assemble(world, dm, fluid_only)


def dense(A: PETSc.Mat) -> np.ndarray:
    B = A.convert("dense", PETSc.Mat())
    return B.getDenseArray().copy()


def box_world(shape: Shape, open_sides: str = "", **kwargs: object) -> scene.World:
    return scene.build(shape, whole(shape), scene.all_fluid(whole(shape)), sides_of(open_sides), **kwargs)


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("name", families.families)
def test_every_family_gives_a_symmetric_matrix_with_the_right_row_sums(name: str, shape: Shape) -> None:
    try:
        full, cells = make(name, shape), make(name, shape, fluid_only=True)
    except AssemblyError:
        pytest.skip("no fluid on a grid this small")
    A, B = dense(full.A), dense(cells.A)
    np.testing.assert_array_equal(A, A.T)
    active = full.active.ravel()
    np.testing.assert_array_equal(B, A[np.ix_(active, active)])
    outside = A[~active]
    assert np.count_nonzero(outside) == len(outside) and (outside.sum(axis=1) == A.diagonal().max()).all()
    off = B - np.diag(B.diagonal())
    assert (off <= 0).all() and (B.diagonal() > 0).all()
    np.testing.assert_allclose(B.sum(axis=1), full.world.s[full.active], atol=1e-12 * B.max())
    if full.singular:
        # constants, by the row sums above, and nothing but constants
        B += B.max() / len(B)
    np.linalg.cholesky(B)  # LinAlgError where it is not positive definite
    assert bool(full.A.getNullSpace()) == bool(cells.A.getNullSpace()) == full.singular
    np.testing.assert_array_equal(cells.A.query("dcdm_cells").getIndices(), np.flatnonzero(active))


@pytest.mark.parametrize("name", families.families)
def test_a_box_of_a_family_is_its_part_of_the_whole(name: str) -> None:
    for shape, box in (((21, 18, 25), Box((5, 0, 11), (7, 18, 14))), ((1, 30, 22), Box((0, 9, 4), (1, 12, 9)))):
        everything, part = families.make(name, shape, 3, whole(shape)), families.make(name, shape, 3, box)
        own = tuple(slice(o, o + n) for o, n in zip(box.offset, box.shape, strict=True))
        padded = tuple(slice(o, o + n + 2) for o, n in zip(box.offset, box.shape, strict=True))
        np.testing.assert_array_equal(part.flags, everything.flags[padded])
        np.testing.assert_array_equal(part.s, everything.s[own])
        np.testing.assert_array_equal(part.diagonal(), everything.diagonal()[own])


@pytest.mark.parametrize("name", families.families)
def test_families_differ_by_seed_only_where_they_are_random(name: str) -> None:
    shape = (16, 16, 16)
    worlds = [families.make(name, shape, seed, whole(shape)) for seed in (0, 0, 1)]
    same = [
        all(np.array_equal(a, b) for a, b in zip((worlds[0].s, *worlds[0].w), (w.s, *w.w), strict=True)) for w in worlds
    ]
    assert same[1] and same[2] != families.families[name].random


def test_dam_break_fills_a_third() -> None:
    for seed in range(4):
        world = families.make("dam_break", (48, 48, 48), seed, whole((48, 48, 48)))
        assert 0.25 < world.fluid.mean() < 0.42


def test_an_unknown_family_is_answered_with_the_list() -> None:
    with pytest.raises(ValueError, match="no family 'lake'.*dam_break"):
        families.make("lake", (4, 4, 4), 0, whole((4, 4, 4)))
    with pytest.raises(ValueError, match="no side 'up'"):
        sides_of("up")


def test_couplings_of_air_and_sides() -> None:
    shape = (1, 1, 4)
    flags = scene.all_fluid(whole(shape))
    flags[1, 1, 3], flags[1, 1, 4] = OPEN, SOLID
    world = scene.build(shape, whole(shape), flags, sides_of("x- y-"))
    # y is one cell thick, so y- stays closed; x- counts twice, air once.
    np.testing.assert_array_equal(world.s.ravel(), [2, 1, 0, 0])
    np.testing.assert_array_equal(interior(world.w[0]).ravel(), [0, 1, 0, 0])
    np.testing.assert_array_equal(world.diagonal().ravel(), [3, 2, 0, 0])


def test_coefficients_and_axis_factors() -> None:
    shape = (1, 2, 2)
    k = np.ones((3, 4, 4))
    k[1, 1, 1], k[1, 1, 2] = 1.0, 3.0
    world = scene.build(
        shape, whole(shape), scene.all_fluid(whole(shape)), sides_of("x+"), coefficient=k, axis=(10, 1, 1)
    )
    assert world.w[0][1, 1, 2] == pytest.approx(10 * 1.5)
    assert world.w[1][1, 2, 2] == pytest.approx(1.5)
    assert world.s[0, 0, 1] == pytest.approx(2 * 10 * 3)


def test_pockets_are_sealed() -> None:
    shape = (1, 5, 9)
    flags = scene.all_fluid(whole(shape))
    flags[1, 1:6, 4] = SOLID
    held = scene.build(shape, whole(shape), flags.copy(), sides_of("x+"))
    assert seal_pockets(held) == 15  # what x+ does not reach
    closed = scene.build(shape, whole(shape), flags.copy(), sides_of())
    assert seal_pockets(closed) == 15  # the smaller of two closed parts
    assert not closed.fluid[0, :, :4].any() and closed.fluid[0, :, 4:].any()
    assert (closed.w[0][1, 1:6, 1:5] == 0).all()


def test_a_world_without_unknowns_is_an_error() -> None:
    shape = (2, 2, 2)
    dm = dmda.create(shape)
    flags = scene.all_fluid(whole(shape))
    flags[...] = SOLID
    with pytest.raises(AssemblyError, match="no fluid cell"):
        assemble(scene.build(shape, whole(shape), flags, sides_of("x+")), dm)
    with pytest.raises(AssemblyError, match="other boxes"):
        assemble(box_world((2, 2, 3), "x+"), dm)


def solved(system: System, b: PETSc.Vec, rtol: float = 1e-10) -> PETSc.Vec:
    ksp = PETSc.KSP().create(system.A.comm)
    system.attach(ksp)
    ksp.setType("cg")
    ksp.getPC().setType("gamg")
    ksp.setTolerances(rtol=rtol, atol=1e-14)
    x = b.duplicate()
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    ksp.destroy()
    return x


@pytest.mark.parametrize("sides", [" ".join(SIDES), "x+ y-", ""])
@pytest.mark.parametrize("flat", [False, True])
def test_a_manufactured_solution_converges_at_second_order(sides: str, flat: bool) -> None:
    errors = []
    for n in (16, 32, 64) if flat else (16, 32):
        shape = (1, n, n + n // 2) if flat else (n, n // 2, n)
        dm = dmda.create(shape)
        system = assemble(box_world(shape, sides), dm, fluid_only=flat)
        values, exact = rhs.manufactured(system.world)
        error = system.field(solved(system, rhs.compatible(system, values))) - exact
        errors.append(np.sqrt(np.mean((error - system.singular * error.mean()) ** 2)))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 1.9).all() and (rates < 2.2).all()
    flags = scene.all_fluid(whole((4, 4, 4)))
    flags[2, 2, 2] = SOLID
    with pytest.raises(ValueError, match="full of fluid"):
        rhs.manufactured(scene.build((4, 4, 4), whole((4, 4, 4)), flags, sides_of("x+")))


@pytest.mark.parametrize("name", ["channel", "tank", "neumann", "porous"])
def test_the_projected_velocity_is_free_of_divergence(name: str) -> None:
    system = make(name, (12, 14, 16))
    pressure = system.field(solved(system, rhs.make("flow", system), 1e-12))
    # The rate at which volume leaves each cell, from face velocities put together by hand.
    world, rate = system.world, -flow.divergence(system.world, system.world.flow)
    x = system.vector(pressure)
    y = x.duplicate()
    system.A.mult(x, y)
    np.testing.assert_allclose(system.field(y), -rate, atol=1e-8)
    velocity = flow.projected_velocity(system, pressure)
    assert (velocity[~world.fluid] == 0).all()
    if name == "channel":  # as much leaves at x+ as enters at x-, and more than the stream at the obstacle's flanks
        assert velocity[..., 0].sum(axis=(0, 1))[[0, -1]] == pytest.approx(12 * 14, rel=0.01)
        assert velocity[..., 0].max() > 1.1


def test_a_uniform_stream_has_no_source_in_an_empty_channel() -> None:
    assert not flow.divergence(families.make("box", (4, 5, 6), 0, whole((4, 5, 6))), (1.0, 2.0, 3.0)).any()
    blocked = flow.divergence(box_world((1, 3, 5)), (1.0, 0.0, 0.0))
    np.testing.assert_array_equal(blocked[0], [[-1, 0, 0, 0, 1]] * 3)


@pytest.mark.parametrize("kind", rhs.kinds)
def test_right_hand_sides_are_in_the_range(kind: str) -> None:
    system = make("neumann", (8, 9, 10), fluid_only=True)
    b = rhs.make(kind, system, 4)
    assert b.norm() > 0 and abs(b.sum()) < 1e-10 * b.norm()
    with pytest.raises(ValueError, match="no right-hand side 'rain'.*smooth"):
        rhs.make("rain", system)


def test_the_hash_is_uniform_and_the_normal_is_normal() -> None:
    numbers = np.arange(20000)
    u, z = uniform(1, 0, numbers), normal(1, 0, numbers)
    assert np.histogram(u, 10, (0, 1))[0] == pytest.approx(2000, rel=0.1)
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=0.03)
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03 and abs(np.corrcoef(u, uniform(2, 0, numbers))[0, 1]) < 0.03
    assert FLUID == 1
