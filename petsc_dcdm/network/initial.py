"""The multigrid network before training: Chebyshev smoothing and scaled aggregation.

With the last layer at zero, every field is its base value and the cycle is classical: the point where
training starts and what the learned network is compared with. numpy only.
"""

from __future__ import annotations

import numpy as np

from petsc_dcdm.network.multigrid_tensors import shapes

#: Interval of the spectrum of D^-1 A on which the smoothing polynomial is the Chebyshev one.
SMOOTHING_INTERVAL = (0.35, 1.95)
HYPER: dict[str, float | int | str] = {"steps": 4, "hidden": 16, "threshold": 2.5}


def chebyshev_weights(steps: int, interval: tuple[float, float] = SMOOTHING_INTERVAL) -> np.ndarray:
    """Damping factors 1/root of the Chebyshev polynomial of degree `steps` on `interval`, smallest first,
    float64.
    """
    low, high = interval
    k = np.arange(steps)
    roots = 0.5 * (high + low) + 0.5 * (high - low) * np.cos(np.pi * (2 * k + 1) / (2 * steps))
    return 1.0 / roots


def initial_tensors(steps: int, hidden: int, seed: int) -> dict[str, np.ndarray]:
    """float32 tensors of an untrained `multigrid` network; the hidden layers are random, the last one is
    zero.
    """
    rng = np.random.default_rng(seed)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes(steps, hidden).items()}
    for name, fan_in in (("conv.weight", 8 * 27), ("conv.flags", 3), ("hidden.weight", hidden)):
        # He initialisation, for layers that are followed by a ReLU
        tensors[name] = (rng.standard_normal(tensors[name].shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    tensors["log_c"][:steps] = np.log(chebyshev_weights(steps))
    return tensors
