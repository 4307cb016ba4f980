"""What the scripts of the gallery share: `-picture FILE` leaves a picture of the answer, which docs/gallery shows."""

from __future__ import annotations

import numpy as np
from petsc4py import PETSc


def save(field: np.ndarray, title: str, mask: np.ndarray | None = None) -> None:
    """A field (ny, nx) in colours where `-picture FILE` is given; cells of ``mask`` stay grey."""
    name = PETSc.Options().getString("picture", "")
    if not name or PETSc.COMM_WORLD.rank:
        return
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.4, 3.4), layout="constrained")
    shown = field if mask is None else np.ma.masked_array(field, mask)
    axes.set_facecolor("0.35")
    figure.colorbar(axes.imshow(shown, origin="lower", cmap=pyplot.get_cmap("viridis", 32)), ax=axes)
    axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(name, dpi=90)


def right(error: float, limit: float, what: str) -> None:
    """The one line that each script prints; ends with status 1 if the answer is not right."""
    if PETSc.COMM_WORLD.rank == 0:
        print(f"{'right' if error < limit else 'WRONG'}: {what}")
    if not error < limit:
        raise SystemExit(1)
