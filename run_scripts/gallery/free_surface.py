"""A free surface

Water in a tank, a little higher on the left, falls and rises; air is pressure zero, every step has another matrix. When
its longest wave is flat for the first time, a quarter of the period of linear waves has gone by: to a percent, and
what the length of the step adds.
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


def wave():
    """Height of the longest wave in the surface: the second harmonic that comes of its own has no part in it."""
    columns = np.clip(0.5 - grid.gather(tank.level)[0], 0.0, 1.0).sum(axis=0)
    return 2.0 / n * float(columns @ np.cos(np.pi * (np.arange(n) + 0.5) / n))


save(np.clip(0.5 - grid.gather(tank.level)[0], 0, 1), "Water before it falls")
times, heights, iterations, divergence = [0.0], [wave()], [], 0.0
while heights[-1] > 0 and tank.time < 3:
    solved = tank.step(dt)
    iterations.append(solved.iterations)
    divergence = max(divergence, solved.divergence)
    times.append(tank.time)
    heights.append(wave())
crossing = np.interp(0.0, heights[:-3:-1], times[:-3:-1])

quarter = 0.5 * np.pi / np.sqrt(np.pi * np.tanh(np.pi * depth / n))
error = abs(crossing / quarter - 1)
steps = f"{len(iterations)} steps of at most {max(iterations)} iterations, divergence left {divergence:.0e}"
right(error, 0.01 + dt, f"{steps}, quarter period {error:.1%} from that of linear waves")
