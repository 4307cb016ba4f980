"""Failures that all ranks report together: an error on one rank must neither hang nor surprise the others."""

from __future__ import annotations

from mpi4py import MPI

from petsc_dcdm.grid.reductions import over_all


class UnsupportedSystem(ValueError):
    """Base of what can be wrong with the user's system; the message is one sentence that says what, where and what
    to do.
    """


class GridError(UnsupportedSystem):
    """No grid was found, or it does not fit the matrix."""


class MatrixError(UnsupportedSystem):
    """The matrix is not one the network can serve."""


class FormError(MatrixError):
    """Its entries are not those of a 5- or 7-point stencil with one sign, but it may be near one that is."""


class NeighbourError(FormError):
    """The matrix couples cells that share no face: perhaps its rows are other cells than was thought."""


class BrokenMatrix(MatrixError):
    """No solver could do anything with it."""


class NoRows(MatrixError):
    """It has no rows of entries, which PETSc's common preconditioners want as well."""


class BuildError(UnsupportedSystem):
    """PETSc was configured in a way that the network cannot work with."""


class OptionError(ValueError):
    """An option has a value that cannot be used; the message names the option, the value and what is allowed."""


def raise_together(comm: MPI.Intracomm, error: Exception | None, before: type[Exception] | None = None) -> None:
    """Raise on every rank the error of the lowest rank that has one. Collective; one small reduction when all is well.

    The type is kept if it takes a single message, which those of this package do. One of the type ``before``, which
    takes none, goes before all others.
    """
    size = comm.Get_size()
    if size == 1:
        if error is not None:
            raise error
        return
    rank = -1 if before and isinstance(error, before) else comm.Get_rank() if error is not None else size
    first = int(over_all(comm, float(rank), op=MPI.MIN))
    if first == size:
        return
    if before and first < 0:
        raise before
    kind, message = comm.bcast((type(error), str(error)) if comm.Get_rank() == first else None, root=first)
    # A new one there as well: frames that hold what they raise wait for Python's collector, and vectors in them would
    # be left for all ranks to destroy on one of them only, at which PetscFinalize hangs.
    raise kind(message)
