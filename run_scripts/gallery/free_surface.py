"""A free surface

Water in a tank, a little higher on the left, falls and rises; air is pressure zero, every step has another matrix. When
the left side passes the middle, a quarter of the period of linear waves has gone by, to the order of the step.
"""

import sys

import petsc4py

petsc4py.init(sys.argv)
import numpy as np
from petsc4py import PETSc
from picture import right, save

from petsc_dcdm.flow.scenes import Wishes, sides
from petsc_dcdm.flow.staggered import Grid
from petsc_dcdm.flow.tank import Tank

n, dt = PETSc.Options().getInt("n", 64), PETSc.Options().getReal("dt", 0.02)
wishes = Wishes((1, n, n))
grid = Grid(wishes.shape, sides(wishes), None)
x, y, _ = grid.centres()
depth, height = 0.5 * n, 0.05 * n
level = y - depth - height * np.cos(np.pi * x / n) + np.zeros(grid.zeros().shape)
tank = Tank(grid, level, gravity=(0.0, -1.0 * n, 0.0))  # cells per unit of time squared


def height_left():
    """Of the water's surface in the first column of cells, from the middle on."""
    return float(np.clip(0.5 - grid.gather(tank.level)[0, :, 0], 0.0, 1.0).sum()) - depth


save(np.clip(0.5 - grid.gather(tank.level)[0], 0, 1), "Water before it falls")
times, heights, iterations, divergence = [0.0], [height_left()], [], 0.0
while heights[-1] > 0 and tank.time < 3:
    solved = tank.step(dt)
    iterations.append(solved.iterations)
    divergence = max(divergence, solved.divergence)
    times.append(tank.time)
    heights.append(height_left())
crossing = np.interp(0.0, heights[:-3:-1], times[:-3:-1])

quarter = 0.5 * np.pi / np.sqrt(np.pi * np.tanh(np.pi * depth / n))
error = abs(crossing / quarter - 1)
steps = f"{len(iterations)} steps of at most {max(iterations)} iterations, divergence left {divergence:.0e}"
right(error, 3 * dt, f"{steps}, quarter period {error:.1%} from that of linear waves")
