"""The published network: a 3D convolutional network that maps a residual to a search direction.

Source: Kaneda, Akar, Chen, Kala, Hyde, Teran, "A Deep Conjugate Direction Method for Iteratively Solving
Linear Systems", ICML 2023 (arXiv 2205.10763). Kernels of 3x3x3, 16 channels, 'same' padding: a linear
convolution, residual pairs with ReLU at full resolution, average pooling by 2, residual pairs at half
resolution, nearest up-sampling plus the skip, residual pairs, and a 1x1x1 linear layer. It sees the residual
only, never the matrix.

It departs from the paper in one place: the input is scaled to a root mean square of 1 over the unknowns, not
to a norm of 1. At the training size that is a constant factor, which the weights absorb; at another size it
keeps the values of a cell in the range that the biases were trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petsc_dcdm.grid.faces import diagonal, padded
from petsc_dcdm.grid.layout import Layout, LevelInfo
from petsc_dcdm.network.hierarchy import CoarseSolve
from petsc_dcdm.network.weights import ModelFile, WeightsError

CHANNELS = 16
#: Convolutions before the pooling, at half resolution, and after the up-sampling.
VARIANTS = {"64": (5, 6, 4), "128": (7, 10, 6)}

Convolve = Callable[[nn.Conv3d, Tensor], Tensor]


def _trained(layer: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution as torch does it, with gradients: 'same' padding with zeros."""
    return layer(x)


def inferred(layer: nn.Conv3d, x: Tensor) -> Tensor:
    """The same without gradients and on a fast path, for `DcdmNet.forward`."""
    return _convolution(x, layer, int(layer.padding[0]))


def _convolution(x: Tensor, layer: nn.Conv3d, padding: int) -> Tensor:
    """A convolution for inference, through oneDNN on CPUs.

    For one sample of a small grid torch itself picks another, which is twenty times slower.
    """
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, layer.weight, layer.bias, [padding] * 3, [1] * 3, [1] * 3, 1)
    return F.conv3d(x, layer.weight, layer.bias, padding=padding)


class DcdmNet(nn.Module):
    """The network of the paper, fully convolutional: any grid of at least one cell along each axis.

    Parameters
    ----------
    variant
        ``"64"`` (97,457 parameters) or ``"128"`` (152,881).
    """

    def __init__(self, variant: str = "64") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant '{variant}' of the network; there are {', '.join(VARIANTS)}")
        head, body, tail = VARIANTS[variant]
        self.variant = variant
        self.head = _convolutions(1, head)
        self.body = _convolutions(CHANNELS, body)
        self.tail = _convolutions(CHANNELS, tail)
        self.last = nn.Conv3d(CHANNELS, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, convolve: Convolve = _trained) -> Tensor:
        """Direction for a residual: (batch, 1, nz, ny, nx) in and out.

        `convolve` applies a layer; on several ranks it fetches the halo of a 3x3x3 one first.
        """
        a = F.relu(convolve(self.head[1], convolve(self.head[0], x)))
        a = _residual_pairs(self.head[2:-1], a, convolve)
        skip = F.relu(convolve(self.head[-1], a))
        a = _residual_pairs(self.body, _pool(skip), convolve)
        a = _residual_pairs(self.tail, _unpool(a, skip), convolve)
        return convolve(self.last, a) if a.numel() else a[:, :1]


def _convolutions(first: int, count: int) -> nn.ModuleList:
    sizes = [first] + [CHANNELS] * (count - 1)
    return nn.ModuleList(nn.Conv3d(size, CHANNELS, 3, padding=1) for size in sizes)


def _residual_pairs(layers: Sequence[nn.Module] | nn.ModuleList, a: Tensor, convolve: Convolve) -> Tensor:
    """``a = relu(second(relu(first(a)))) + a`` for every two layers."""
    pairs = list(layers)
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        a = F.relu(convolve(second, F.relu(convolve(first, a)))) + a
    return a


def _pool(a: Tensor) -> Tensor:
    """Mean over blocks of 2 cells along each axis; at an odd end, over the cells that exist."""
    if not a.numel():
        return a.new_zeros((*a.shape[:2], *((n + 1) // 2 for n in a.shape[2:])))
    odd = [n % 2 for n in a.shape[2:]]
    if any(odd):  # repeating the last cell leaves the mean over the cells that exist
        a = F.pad(a, (0, odd[2], 0, odd[1], 0, odd[0]), mode="replicate")
    return F.avg_pool3d(a, 2)


def _unpool(a: Tensor, skip: Tensor) -> Tensor:
    """Nearest up-sampling of `a`, cut to the shape of `skip`, plus `skip`."""
    if not skip.numel():
        return skip
    nz, ny, nx = skip.shape[2:]
    return F.interpolate(a, scale_factor=2, mode="nearest")[:, :, :nz, :ny, :nx] + skip


def parameter_count(net: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in net.parameters())


def to_tensors(net: DcdmNet) -> dict[str, np.ndarray]:
    """The parameters as contiguous float32 arrays, named as in the weights file."""
    return {name: p.detach().cpu().contiguous().numpy().astype(np.float32) for name, p in net.state_dict().items()}


def from_file(file: ModelFile) -> DcdmNet:
    """The network of a weights file of kind ``cnn``.

    Raises:
        WeightsError: another kind, an unknown variant, or tensors that are missing or of another shape.
    """
    file.require_kind("cnn")
    variant = file.meta.get("variant", "")
    if variant not in VARIANTS:
        raise WeightsError(f"{file.source}: variant '{variant}' of the cnn is not one of {', '.join(VARIANTS)}")
    net = DcdmNet(variant)
    want = net.state_dict()
    for name, p in want.items():
        got = file.tensors.get(name)
        if got is None or got.shape != tuple(p.shape):
            what = "missing" if got is None else f"of shape {got.shape}"
            raise WeightsError(f"{file.source}: tensor '{name}' is {what}, expected shape {tuple(p.shape)}")
    net.load_state_dict({name: torch.from_numpy(file.tensors[name].copy()) for name in want})
    return net.eval()


class CnnHierarchy:
    """The published network made ready for one matrix; see `petsc_dcdm.network.hierarchy.Hierarchy`.

    It has one level and no coarse system. Of the matrix it uses only which cells hold an unknown: everything
    else is zero on entry and on exit.

    Parameters
    ----------
    file
        weights of kind ``cnn``.
    w
        three arrays (nz, ny, nx), conductance of the low face along x, y, z.
    s
        (nz, ny, nx), extra diagonal.
    layout
        this rank's box; where it meets another rank's, its edges must be even.
    device
        a torch device, ``"cpu"`` or ``"cuda"``.

    Raises:
        WeightsError: the weights do not fit the class, or the grid is 2D.
        ValueError: the box edges of this layout are not even. Collective: every rank raises.
    """

    coarse = None
    coarse_solve: CoarseSolve  # nothing to solve: never asked for

    def __init__(
        self, file: ModelFile, w: Sequence[np.ndarray], s: np.ndarray, layout: Layout, device: str = "cpu"
    ) -> None:
        file.require_dimension(3 if min(layout.global_shape) > 1 else 2)
        if layout.max(np.array([float(any(o % 2 for o in layout.offset))]))[0]:
            raise ValueError(
                "the cnn pools over blocks of 2 cells, but the boxes of the ranks do not have even edges; "
                "use fewer ranks or -pc_dcdm_model multigrid"
            )
        self._device = torch.device(device)
        self._layout = layout
        self._net = from_file(file).to(self._device, memory_format=torch.channels_last_3d)
        self._whole_grid = tuple(layout.shape) == tuple(layout.global_shape) and not any(layout.periodic)
        active = diagonal([padded(face, layout) for face in w], s) > 0
        self._active = active
        self._count = float(layout.sum(np.array([active.sum()], dtype=np.float64))[0])
        self.levels = [LevelInfo(layout.global_shape, layout.offset, layout.shape, (), int(self._count))]

    def apply(self, r: np.ndarray, out: np.ndarray, scale_in: float, scale_out: float) -> None:
        """``out = scale_out * |r'| f(r' / |r'|)``, ``r' = scale_in * r``; zero at inactive cells. Collective.

        `r` and `out` are float64 arrays of this rank's box. f is not linear, so r' is normalised here.
        """
        full = np.where(self._active, r, 0.0)
        square = np.array([float(np.vdot(full, full))])
        rms = abs(scale_in) * np.sqrt(float(self._layout.sum(square)[0]) / max(self._count, 1.0))
        if rms == 0.0 or not np.isfinite(rms):
            out[...] = 0.0 if rms == 0.0 else np.nan
            return
        x = torch.from_numpy(full * (scale_in / rms)).to(self._device, torch.float32)[None, None]
        with torch.no_grad():
            x = x.contiguous(memory_format=torch.channels_last_3d)
            y = self._net(x, inferred if self._whole_grid else self._wide)
        np.multiply(y[0, 0].to("cpu", torch.float64).numpy(), self._active * (scale_out * rms), out=out)

    def _wide(self, layer: nn.Conv3d, x: Tensor) -> Tensor:
        """A convolution on several ranks or a periodic grid: its whole halo comes from the neighbours. Collective."""
        if layer is self._net.last:
            return _convolution(x, layer, 0)
        padded = F.pad(x.contiguous(), (1, 1, 1, 1, 1, 1))
        self._layout.exchange(padded[0], corners=True)
        if not x.numel():
            return x.new_zeros((1, layer.out_channels, *x.shape[2:]))
        return _convolution(padded, layer, 0)
