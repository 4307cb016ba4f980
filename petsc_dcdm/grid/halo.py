"""Halo exchange and reductions of a grid split over ranks: the Layout that the networks are given under mpirun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from petsc_dcdm.grid.boxes import BoxPartition, Shape

Plan = tuple[tuple[int, ...], ...]


@dataclass
class _Face:
    """One side of a box: what is sent, what is received, and the buffers and requests that stay for good."""

    send: tuple[slice, ...]
    receive: tuple[slice, ...]
    send_buffer: np.ndarray
    receive_buffer: np.ndarray
    requests: tuple[MPI.Prequest, MPI.Prequest]


class BoxLayout:
    """This rank's box of a `BoxPartition` (see :class:`petsc_dcdm.models.layout.Layout`).

    The exchange sends one message per neighbour through persistent requests, one set per shape of array, made on first
    use.
    ``messages`` and ``bytes`` count what this rank has sent in halo exchanges, ``reductions`` its global reductions.
    """

    def __init__(self, comm: MPI.Intracomm, boxes: BoxPartition, plan: Plan) -> None:
        """Not collective. ``comm`` must carry no other messages; call :meth:`close` at the end."""
        self.comm = comm
        self.boxes = boxes
        self.plan = plan
        self.global_shape: Shape = boxes.shape
        self.offset, self.shape = boxes.box(comm.Get_rank())
        self._neighbours = [
            (axis, step, boxes.neighbour(comm.Get_rank(), axis, step)) for axis in range(3) for step in (-1, 1)
        ]
        self._neighbours = [n for n in self._neighbours if n[2] >= 0]
        self._faces: dict[tuple[Any, ...], list[list[_Face]]] = {}
        self.messages = self.bytes = self.reductions = 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Element-wise sum over all ranks. Collective."""
        return self._reduce(values, MPI.SUM)

    def max(self, values: np.ndarray) -> np.ndarray:
        """Element-wise maximum over all ranks. Collective."""
        return self._reduce(values, MPI.MAX)

    def _reduce(self, values: np.ndarray, operation: MPI.Op) -> np.ndarray:
        self.reductions += 1
        out = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), out, op=operation)
        return out

    def exchange(self, a: Any, corners: bool = False) -> None:
        """Fill the one-cell halo of the padded array ``a`` (numpy or torch, last three dimensions padded). Collective.

        Face halos take one message per neighbour, all at once; with ``corners`` three rounds, axis by axis, that carry
        the edges along.
        """
        if not self._neighbours or 0 in self.shape:
            return
        if isinstance(a, np.ndarray):
            self._exchange(a, corners)
            return
        host = a.detach().cpu()  # shares memory on the CPU, a staging copy for a GPU
        self._exchange(host.numpy(), corners)
        if a.device.type != "cpu":
            a.copy_(host)

    def _exchange(self, a: np.ndarray, corners: bool) -> None:
        key = (a.shape, a.dtype.str, corners)
        if key not in self._faces:
            self._faces[key] = self._make_faces(a, corners)
        for stage in self._faces[key]:
            for face in stage:
                face.requests[0].Start()
            for face in stage:
                np.copyto(face.send_buffer, a[face.send])
                face.requests[1].Start()
            for face in stage:
                face.requests[0].Wait()
                a[face.receive] = face.receive_buffer
            MPI.Prequest.Waitall([face.requests[1] for face in stage])
            self.messages += len(stage)
            self.bytes += sum(face.send_buffer.nbytes for face in stage)

    def _make_faces(self, a: np.ndarray, corners: bool) -> list[list[_Face]]:
        lead = (slice(None),) * (a.ndim - 3)
        n = a.shape[-3:]
        stages: list[list[_Face]] = [[], [], []] if corners else [[]]
        for axis, step, rank in self._neighbours:
            span = [slice(0, m) if corners and other < axis else slice(1, m - 1) for other, m in enumerate(n)]
            send, receive = list(span), list(span)
            send[axis] = slice(1, 2) if step < 0 else slice(n[axis] - 2, n[axis] - 1)
            receive[axis] = slice(0, 1) if step < 0 else slice(n[axis] - 1, n[axis])
            send_buffer = np.empty_like(a[(*lead, *send)], order="C")
            receive_buffer = np.empty_like(send_buffer)
            tags = (2 * axis + (step > 0), 2 * axis + (step < 0))
            requests = (
                self.comm.Recv_init(receive_buffer, source=rank, tag=tags[1]),
                self.comm.Send_init(send_buffer, dest=rank, tag=tags[0]),
            )
            stages[axis if corners else 0].append(
                _Face((*lead, *send), (*lead, *receive), send_buffer, receive_buffer, requests)
            )
        return stages

    def close(self) -> None:
        """Frees the requests; the communicator stays its owner's."""
        for stages in self._faces.values():
            for face in (face for stage in stages for face in stage):
                for request in face.requests:
                    request.Free()
        self._faces.clear()
