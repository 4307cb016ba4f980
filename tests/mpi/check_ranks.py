"""Systems of some hundred thousand cells: iterations, solutions, messages and reductions do not depend on the ranks."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from petsc4py import PETSc

from petsc_dcdm.native.petsc_library import petsc_library
from petsc_dcdm.poisson import dmda, families, mesh, rhs, scene
from petsc_dcdm.poisson.assemble import assemble
from petsc_dcdm.poisson.pockets import seal_pockets
from petsc_dcdm.studies.scaling import measure

RANKS = (3, 8)
TIMEOUT = 240
COMM = PETSc.COMM_WORLD
FOX = Path(__file__).resolve().parents[2] / "meshes" / "fox.obj"
WIDE, CUBE = (33, 64, 97), (64, 64, 64)


def uneven(n, parts):
    """n cells for some ranks, more and more of them."""
    cuts = np.round(n * (np.arange(parts + 1) / parts) ** 1.4).astype(int)
    return [int(m) for m in np.diff(cuts)]


def system_of(kind, shape, comm, ranges, fluid_only):
    dm = dmda.create(shape, comm=comm, ranges=ranges)
    if kind == "fox":
        placed = mesh.place(mesh.load(FOX), shape, 0.6)
        world = scene.around_mesh(shape, dmda.box_of(dm), placed)
    else:
        world = families.make(kind, shape, 3, dmda.box_of(dm))
    seal_pockets(world, dm)
    return assemble(world, dm, fluid_only)


def ksp_of(system, source, **options):
    """Set up; the grid comes from the DMDA, from its size or from the matrix."""
    database = PETSc.Options()
    if source == "size":
        options["pc_dcdm_grid"] = "{2},{1},{0}".format(*system.world.shape)
    for name, value in options.items():
        database[name] = value
    ksp = PETSc.KSP().create(system.dm.comm)
    if source == "dmda":
        system.attach(ksp)
    else:
        ksp.setOperators(system.A)
    ksp.setType("python")
    ksp.setPythonType("petsc_dcdm.KSP")
    ksp.setTolerances(rtol=1e-10, max_it=40)
    ksp.setFromOptions()
    ksp.setUp()
    for name in options:
        database.delValue(name)
    return ksp


def answer(kind, shape, comm, ranges, fluid_only, source):
    """Iterations, the field on rank 0, and the boxes."""
    system = system_of(kind, shape, comm, ranges, fluid_only)
    b = rhs.make("random", system, 1)
    x = b.duplicate()
    ksp = ksp_of(system, source)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0, (kind, ksp.getConvergedReason())
    found = ksp.getIterationNumber(), dmda.gather(system.dm, system.field(x))
    boxes = ksp.getPC().getPythonContext()._system.layout.boxes.procs
    ksp.destroy()
    system.destroy()
    return *found, boxes


def compare(kind, shape, ranges=None, fluid_only=False, source="dmda"):
    many, y, boxes = answer(kind, shape, COMM, ranges, fluid_only, source)
    if COMM.getRank() == 0:
        one, x, _ = answer(kind, shape, PETSc.COMM_SELF, None, fluid_only, source)
        assert abs(one - many) <= 1, (kind, one, many)
        assert np.linalg.norm(x - y) <= 1e-9 * np.linalg.norm(x), (kind, np.linalg.norm(x - y) / np.linalg.norm(x))
    assert np.prod(boxes) == COMM.getSize(), boxes
    COMM.barrier()


def test_mixed_domain_on_uneven_slabs_of_a_dmda():
    compare("mixed", CUBE, [[64], [64], uneven(64, COMM.getSize())])


def test_inferred_grid_on_uneven_slabs():
    compare("mixed", WIDE, [[97], [64], uneven(33, COMM.getSize())], source="matrix")


def test_mesh_obstacle_with_fluid_cells_only():
    compare("fox", CUBE, fluid_only=True, source="size")


def test_mesh_obstacle_on_uneven_columns_of_a_dmda():
    ranks = COMM.getSize()
    columns = 2 if ranks % 2 == 0 else 1
    compare("fox", WIDE, [[97], uneven(64, columns), uneven(33, ranks // columns)])


def test_pure_neumann_on_odd_boxes():
    compare("neumann", WIDE)


def test_jumps_whose_second_level_is_visited_twice():
    compare("jumps", WIDE)


def counts(layout):
    petsc = ctypes.c_double.in_dll(petsc_library(), "petsc_allreduce_ct").value
    return np.array([layout.messages, layout.bytes, layout.reductions, petsc])


def per_step(system, b, x, **options):
    """What six steps count more than three, by three; after one that PETSc makes its own buffers in."""
    found = []
    for steps in (1, 3, 6):  # none of them may converge, however good the weights are
        ksp = ksp_of(system, "dmda", ksp_max_it=steps, ksp_rtol=1e-14, **options)
        layout = ksp.getPC().getPythonContext()._system.layout
        before = counts(layout)
        ksp.solve(b, x)
        assert ksp.getIterationNumber() == steps
        found.append(counts(layout) - before)
        network = ksp.getPC().getPythonContext().hierarchy
    return (found[2] - found[1]) / 3, layout, network


def given(layout, level, width, faces=False):
    """To how many ranks this one gives cells of its box that lie within `width` of theirs, and how many in all."""
    boxes = []
    for rank in range(COMM.getSize()):
        low, shape = layout.boxes.box(rank)
        high = [a + n for a, n in zip(low, shape, strict=True)]
        for axes in layout.plan[:level]:
            low, high = ([-(-c // 2) if 2 - i in axes else c for i, c in enumerate(cut)] for cut in (low, high))
        boxes.append((np.array(low), np.array(high)))
    low, high = boxes.pop(COMM.getRank())
    shares = []
    for other_low, other_high in boxes:
        apart = np.count_nonzero((other_low >= high) | (other_high <= low))
        share = np.minimum(high, other_high + width) - np.maximum(low, other_low - width)
        shares.append(np.prod(np.maximum(share, 0)) * (apart == 1 or not faces))
    return np.array([np.count_nonzero(shares), sum(shares)])


def test_messages_and_reductions_per_step():
    system = system_of("mixed", WIDE, COMM, None, False)
    b = rhs.make("random", system, 1)
    x = b.duplicate()
    (messages, size, reductions, petsc), layout, network = per_step(system, b, x)
    smoothing, plan = network._steps, layout.plan
    # Of a level travel the right-hand side and the iterate of the way down, as far as a leg looks, of the level below
    # the correction, as far as there are children, and of the result the cells beside the box. A second visit of the
    # second level begins with what it has: its iterate, from which it takes a residual.
    wanted = given(layout, 0, (1, 1, 1), faces=True)
    assert layout.visits == 2
    for number, axes in enumerate(plan):
        children = tuple(-(-smoothing // 2) if 2 - i in axes else smoothing for i in range(3))
        right = iterate = given(layout, number, (smoothing,) * 3)
        correction = given(layout, number + 1, children)
        wanted += right + iterate + correction
        if number:
            again = given(layout, number, (smoothing + 1,) * 3) if number == 1 else right
            wanted += again + iterate + correction
    assert messages == wanted[0] and size == 4 * wanted[1], (messages, size, wanted)
    assert reductions == 2 and petsc == 0
    (messages, _, reductions, petsc), _, _ = per_step(system, b, x, ksp_dcdm_operator="mat")
    assert messages == wanted[0] - given(layout, 0, (1, 1, 1), faces=True)[0]
    assert reductions == 0 and petsc == 3, (reductions, petsc)


def test_row_of_the_scaling_table():
    row = measure(24, "mixed", 1, 1e-6)
    assert row["ranks"] == f"{COMM.getSize()} x 1" and row["reductions"] == "3"
    assert int(row["messages"]) > 0 and int(row["kilobytes"]) > 0 and int(row["setup"]) > 0
