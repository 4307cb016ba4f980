"""How good the cycle can be at all, whatever its weights: ``python -m petsc_dcdm.studies.fourier``.

Local Fourier analysis (Trottenberg, Oosterlee, Schueller, *Multigrid*, 2001, chapter 4) of V(p,p) in an unbounded
uniform medium with the next level solved exactly: sums over blocks down, injection up, coarse conductances gamma times
the sums of the fine ones. A frequency mixes with its 2^dim - 1 aliases only; the eigenvalues of the preconditioned
matrix are those of one small block for each. Per iteration, conjugate gradients then gain at least
q = (sqrt(k) - 1) / (sqrt(k) + 1), k being the ratio of the largest to the smallest.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys

import numpy as np
import torch

from petsc_dcdm.studies.ablation import JACOBI, chebyshev_candidates

SEARCH_STEPS = 500
"""Of the descent from each interval."""
AGGREGATION = torch.tensor(0.5, dtype=torch.float64)
"""The gamma of classical weights."""


class UniformMedium:
    """The cycle's symbols in `dim` dimensions, at the frequencies of 4 `count` cells along an axis, whose ends are
    joined with a change of sign.
    """

    def __init__(self, dim: int, count: int = 8) -> None:
        angles = (np.arange(count) + 0.5) / count * (np.pi / 2)
        low = np.array(list(itertools.product(angles, repeat=dim)))
        aliases = low[:, None] + np.pi * np.array(list(itertools.product((0, 1), repeat=dim)))
        self._fine = torch.from_numpy((1 - np.cos(aliases)).mean(axis=-1))  # D^-1 A
        self._coarse = torch.from_numpy(2 ** (dim - 1) * (1 - np.cos(2 * low)).mean(axis=-1))
        self._sums = torch.from_numpy((1 + np.exp(1j * aliases)).prod(axis=-1) / 2 ** (dim / 2))

    def condition(self, omega: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """Largest over smallest eigenvalue of the preconditioned matrix; infinite if the cycle diverges."""
        smoothed = torch.ones_like(self._fine)
        for weight in omega:
            smoothed = smoothed * (1 - weight * self._fine)
        ends = (smoothed * self._fine.sqrt()) * self._sums.conj()
        identity = torch.diag_embed(smoothed.square().to(ends.dtype))
        error = identity - ends[:, :, None] * ends.conj()[:, None, :] / (gamma * self._coarse)[:, None, None]
        values = 1 - torch.linalg.eigvalsh(error)
        return torch.where(values.min() > 0, values.max() / values.min().clamp_min(1e-9), torch.inf)

    def gain(self, omega: torch.Tensor, gamma: torch.Tensor) -> float:
        """The factor q of conjugate gradients per iteration."""
        root = math.sqrt(float(self.condition(omega, gamma)))
        return (root - 1) / (root + 1)

    def chebyshev_gain(self, steps: int) -> float:
        """That of the best of the Chebyshev intervals with scaled aggregation."""
        return min(self.gain(torch.from_numpy(omega), AGGREGATION) for omega in chebyshev_candidates(steps))

    def best(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Smoothing weights (steps,) and gamma of the least condition that a descent from each interval finds."""
        found: list[tuple[float, torch.Tensor]] = []
        for omega in chebyshev_candidates(steps):
            x = torch.from_numpy(np.log(np.append(omega, float(AGGREGATION)))).requires_grad_()
            descent = torch.optim.Adam([x], lr=0.02)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, SEARCH_STEPS)
            for _ in range(SEARCH_STEPS):
                descent.zero_grad()
                loss = self.condition(x[:-1].exp(), x[-1].exp()).log()
                found.append((float(loss.detach()), x.detach().clone()))
                loss.backward()
                descent.step()
                schedule.step()
        x = min(found, key=lambda one: one[0])[1].exp()
        return x[:-1], x[-1]


def main(argv: list[str]) -> int:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m petsc_dcdm.studies.fourier", description=__doc__)
    parser.add_argument("--dim", type=int, choices=(2, 3), default=3, help="(default %(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4], help="p of V(p,p) (default 1 to 4)")
    args = parser.parse_args(argv)
    medium = UniformMedium(args.dim)
    print("| V(p,p) | Jacobi, 2/3 | Chebyshev, best interval | best constants | times fewer than Jacobi; Chebyshev |")
    print("|---|---|---|---|---|")
    for p in args.steps:
        jacobi = medium.gain(torch.full((p,), JACOBI, dtype=torch.float64), AGGREGATION)
        chebyshev = medium.chebyshev_gain(p)
        omega, gamma = medium.best(p)
        best = medium.gain(omega, gamma)
        fewer = [math.log(best) / math.log(other) for other in (jacobi, chebyshev)]
        constants = f"{best:.4f} (omega {', '.join(f'{w:.2f}' for w in omega)}; gamma {float(gamma):.2f})"
        print(f"| {p} | {jacobi:.3f} | {chebyshev:.3f} | {constants} | {fewer[0]:.2f}; {fewer[1]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
