"""The networks that there are: for each kind what checks its weights files, makes it ready for a matrix and trains it.

Nothing is imported until it is called for, so that a solve in compiled kernels loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from petsc_dcdm.grid.layout import Layout
from petsc_dcdm.network.hierarchy import Hierarchy

if TYPE_CHECKING:
    from petsc_dcdm.network.weights import ModelFile

Check = Callable[["ModelFile"], None]
MakeHierarchy = Callable[["ModelFile", Sequence[np.ndarray], np.ndarray, Layout, str], Hierarchy]


@dataclass(frozen=True)
class Network:
    """One kind of network.

    Parameters
    ----------
    hierarchy
        called with (file, w, s, layout, device), returns a `Hierarchy`; a class will do. ``w`` are three
        arrays, the conductances of the low faces along x, y, z, and ``s`` is the extra diagonal, float64
        (nz, ny, nx) of this rank's box, views that need not be contiguous, scaled to a largest diagonal of 1, 0 at
        inactive cells; ``layout`` is this rank's box of the grid, ``device`` a torch device such as ``"cuda:0"``.
        Collective.
    check
        raises `WeightsError` for a file that lacks a tensor, or has another shape of one than the network
        takes. Called when a file is read or written, on one rank.
    levels
        whether the network works on several levels, as `Layout.plan` has them, and leaves the last one to
        another solver. Its files have the hyper-parameter ``threshold``: up to which ratio of couplings axes are
        coarsened together. Else boxes of several ranks have even edges.
    train
        module with ``add_arguments(parser)`` and ``run(options)``, which returns the exit code, for
        ``petsc-dcdm train KIND``; empty for a network that is trained elsewhere.
    """

    hierarchy: MakeHierarchy
    check: Check | None = None
    levels: bool = False
    train: str = ""


def _on_call(module: str, name: str) -> Callable[..., Any]:
    """A function of the package that is imported when it is called."""
    return lambda *arguments: getattr(import_module(f"petsc_dcdm.network.{module}"), name)(*arguments)


NETWORKS = {
    "multigrid": Network(
        hierarchy=_on_call("multigrid", "TorchHierarchy"),
        check=_on_call("multigrid_tensors", "check"),
        levels=True,
        train="petsc_dcdm.training.multigrid_run",
    ),
    "cnn": Network(hierarchy=_on_call("cnn", "CnnHierarchy"), train="petsc_dcdm.training.cnn_run"),
}
"""By the kind that weights files name. A further network is a file and an entry here, or a call of `register`."""


def register(kind: str, network: Network) -> None:
    """Let weights files of this kind be read, written and solved with, in this process. To be called on all ranks.

    Raises ValueError where there is a network of that kind.
    """
    if kind in NETWORKS:
        raise ValueError(f"there is a network of kind '{kind}' already")
    NETWORKS[kind] = network
