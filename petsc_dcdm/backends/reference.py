"""Networks as they are written, in torch, as one of the backends: on any device, without a loop of their own."""

from __future__ import annotations

from petsc_dcdm.backends.base import Problem
from petsc_dcdm.network.weights import ModelFile, network_of


class ReferenceBackend:
    """See `petsc_dcdm.backends.base.Backend`. Serves every network of the registry.

    ``device`` is one of torch's, ``threads`` how many torch may use on this rank. Collective. Raises what the network
    raises, such as `WeightsError`.
    """

    def __init__(self, file: ModelFile, problem: Problem, device: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.hierarchy = network_of(file).hierarchy(file, *problem.arrays(), problem.layout, device)
        self.description = f"torch on {device}"

    def operator(self, problem: Problem) -> None:
        """None: the steps are taken on the vectors of whoever applies the network."""
