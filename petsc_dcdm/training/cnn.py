"""Training of the published network as the paper does it: unsupervised, on residuals made of Ritz vectors.

Loss of a sample (paper, section 4): |r - alpha A f(r)|^2 with alpha = r.f / (f.A f), for |r| = 1. The
optimiser is Adam; the paper's rate is a constant 1e-4 over weeks of GPU time, the default here is a cosine
from 1e-3 to 1e-5, which gets further in the hour that a CPU has.

A run lives in a directory: `checkpoint.safetensors` (network, Adam moments, step), `basis.safetensors`
(Lanczos), `loss.csv`, `validation.csv` and `loss.png`. A run that was interrupted goes on from its
checkpoint; with the schedule over steps it then ends with the same numbers as one that was not.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from petsc_dcdm.models import weights
from petsc_dcdm.models.cnn import DcdmNet, from_file, to_tensors
from petsc_dcdm.training.ritz import Lanczos, RitzSampler, box_lanczos, box_operator

#: Seeds of training batches start here, those of the held-out ones at 0.
_FIRST_SEED = 1_000_000


class TrainingError(ValueError):
    """Settings that do not fit each other or the directory of the run; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What a run does. Everything but `minutes` and `device` must be the same when it is resumed.

    `steps` or `minutes` sets the length of the schedule; the other is 0. `low` is the standard deviation of
    the low Ritz coefficients (9 in the paper), `ritz` the number of Ritz vectors m. The convolutions run in
    bfloat16 for the first fraction `bfloat16_until` of the schedule: 1.7 times faster on CPUs that have it,
    and too coarse for the end. Without `normalised` the residuals that the network sees keep a random
    magnitude, as they would in a solver that does not normalise.

    `follow` (0 in the paper) is the number of solver steps for which a residual stays in the batch: after a
    step of Adam the DCDM step of the network replaces it. So the network also sees what it leaves behind,
    which is what the later steps of a solve are made of.
    """

    resolution: int = 64
    variant: str = "64"
    steps: int = 0
    minutes: float = 0.0
    batch: int = 4
    rate: float = 1e-3
    final_rate: float = 1e-5
    ritz: int = 1000
    low: float = 9.0
    normalised: bool = True
    follow: int = 0
    bfloat16_until: float = 0.0
    seed: int = 0
    init: str = ""
    device: str = "cpu"

    def check(self) -> None:
        """Raise `TrainingError` on settings that cannot be run."""
        if (self.steps > 0) == (self.minutes > 0):
            raise TrainingError("give the length of the training either as --steps or as --minutes")
        if min(self.resolution, self.batch, self.ritz) < 2:
            raise TrainingError("--resolution, --batch and --ritz must be at least 2")


def paper_loss(r: Tensor, f: Tensor) -> Tensor:
    """Mean over the batch of |r - alpha A f|^2 / |r|^2 with the exact line search alpha = r.f / (f.A f).

    `r` and `f` are (batch, 1, n, n, n); A is the box operator. The squared residual is that of the paper for
    |r| = 1.
    """
    a = box_operator(f)
    dims = (1, 2, 3, 4)
    alpha = (r * f).sum(dims) / (f * a).sum(dims)
    rest = (r - alpha[:, None, None, None, None] * a).square().sum(dims)
    return (rest / r.square().sum(dims)).mean()


def unit_rms(r: Tensor) -> Tensor:
    """`r` scaled so that each sample has a root mean square of 1: what the network is fed."""
    return r / r.square().mean((1, 2, 3, 4), keepdim=True).sqrt()


def dcdm_history(
    operator: Callable[[Tensor], Tensor],
    direction: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float,
    most: int,
    history: int = 2,
) -> list[float]:
    """Relative residuals |r_k| / |b| of the DCDM loop from x = 0, float64 (n, n, n).

    It ends at `tolerance` or after `most` steps.
    """
    r = b.clone()
    last: list[tuple[Tensor, Tensor, Tensor]] = []
    norms = [1.0]
    while norms[-1] > tolerance and len(norms) <= most:
        d = direction(r)
        for p, ap, pap in last:
            d = d - (d * ap).sum() / pap * p
        ad = operator(d)
        dad = (d * ad).sum()
        r = r - (r * d).sum() / dad * ad
        if history:
            last = [*last, (d, ad, dad)][-history:]
        norms.append(float(r.norm() / b.norm()))
    return norms


def smooth_rhs(n: int, seed: int) -> Tensor:
    """A smooth right-hand side on n^3 cells, float64: eight Gaussian blobs ofrandom sign and place."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    b = torch.zeros((n, n, n), dtype=torch.float64)
    for _ in range(8):
        place = torch.rand(3, generator=generator, dtype=torch.float64)
        width = 0.08 + 0.12 * float(torch.rand(1, generator=generator))
        one = [torch.exp(-(((x - p) / width) ** 2)) for p in place]
        sign = 1.0 if torch.rand(1, generator=generator) < 0.5 else -1.0
        b += sign * one[0][:, None, None] * one[1][:, None] * one[2]
    return b


def random_rhs(n: int, seed: int) -> Tensor:
    """A right-hand side of independent normal numbers on n^3 cells, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, n, n), generator=generator, dtype=torch.float64)


class Chain:
    """Residuals on their way through DCDM with m = 2, and their last two directions: (batch, 1, n, n, n)."""

    r: Tensor
    p: Tensor
    ap: Tensor
    older_p: Tensor
    older_ap: Tensor
    _NAMES = ("r", "p", "ap", "older_p", "older_ap")

    def state(self) -> dict[str, Tensor]:
        """The tensors by name; empty before the first step."""
        return {name: getattr(self, name) for name in self._NAMES if hasattr(self, name)}

    def restart(self, samples: list[int], r: Tensor) -> None:
        """Put new residuals in place of those of `samples`, which then have no directions."""
        for name in self._NAMES:
            getattr(self, name)[samples] = r if name == "r" else 0.0

    def advance(self, r: Tensor, f: Tensor) -> None:
        """One DCDM step from `r` along `f`; the residuals that come out are normalised."""
        if not hasattr(self, "p"):
            self.p, self.ap, self.older_p, self.older_ap = (torch.zeros_like(r) for _ in range(4))
        d = f
        for p, ap in ((self.p, self.ap), (self.older_p, self.older_ap)):
            d = d - _dot(f, ap) / _dot(p, ap).clamp_min(1e-30) * p
        ad = box_operator(d)
        dad = _dot(d, ad).clamp_min(1e-30)
        r = r - _dot(r, d) / dad * ad
        size = dad.sqrt()
        self.older_p, self.older_ap, self.p, self.ap = self.p, self.ap, d / size, ad / size
        self.r = r / _dot(r, r).clamp_min(1e-30).sqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3, 4), keepdim=True)


class Trainer:
    """One run: the network, its optimiser and the directory it lives in.

    Raises:
        TrainingError: the settings make no sense, or the directory holds a run with others.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        settings.check()
        self.settings = settings
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        net = from_file(weights.load(settings.init)).train() if settings.init else DcdmNet(settings.variant)
        if net.variant != settings.variant:
            raise TrainingError(f"{settings.init} holds the '{net.variant}' network, not the '{settings.variant}' one")
        self.net = net.to(self.device, memory_format=torch.channels_last_3d)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=settings.rate)
        self._chain = Chain()
        self.step = 0
        self.elapsed = 0.0
        self._resume()
        self.sampler = RitzSampler(self._basis(), settings.resolution, settings.low)
        self._clock = time.monotonic()

    @property
    def progress(self) -> float:
        """Fraction of the schedule that is behind us, 0 to 1."""
        if self.settings.steps:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.seconds / (60.0 * self.settings.minutes))

    @property
    def seconds(self) -> float:
        """Wall-clock time of all parts of the run together."""
        return self.elapsed + time.monotonic() - self._clock

    def train_step(self) -> float:
        """One step of Adam; returns the loss of its batch before the step."""
        s = self.settings
        rate = s.final_rate + 0.5 * (s.rate - s.final_rate) * (1.0 + math.cos(math.pi * self.progress))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        r = self._next_residuals()
        coarse = self.progress < s.bfloat16_until
        f = self.forward(self._magnitude(r), coarse)
        loss = paper_loss(r, f)
        if s.follow:
            self._chain.advance(r, f.detach())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _next_residuals(self) -> Tensor:
        s = self.settings
        seed = s.seed + _FIRST_SEED + self.step
        if not s.follow or self.step == 0:
            return self.sampler.batch(s.batch, seed).to(self.device)
        fresh = [i for i in range(s.batch) if (self.step + i * s.follow // s.batch) % s.follow == 0]
        if fresh:
            self._chain.restart(fresh, self.sampler.batch(len(fresh), seed).to(self.device))
        return self._chain.r

    def forward(self, x: Tensor, coarse: bool = False) -> Tensor:
        """The network, its convolutions in bfloat16 if `coarse`, on (batch, 1, n, n, n); float32 out."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=coarse):
            y = self.net(x.contiguous(memory_format=torch.channels_last_3d))
        return y.float()

    def _magnitude(self, r: Tensor) -> Tensor:
        x = unit_rms(r)
        if self.settings.normalised:
            return x
        generator = torch.Generator().manual_seed(self.settings.seed + self.step)
        exponent = -6.0 * torch.rand((len(r), 1, 1, 1, 1), generator=generator)
        return x * (10.0**exponent).to(self.device)

    def direction(self, r: Tensor) -> Tensor:
        """f(r / |r|) for one residual (n, n, n), float64 in and out."""
        with torch.no_grad():
            return self.forward(unit_rms(r[None, None].to(self.device).float()))[0, 0].to("cpu", torch.float64)

    def validate(self) -> dict[str, float]:
        """Held-out loss, and DCDM iterations to 1e-4 and 1e-6 for a random and a smooth right-hand side."""
        n = self.settings.resolution
        batch = max(1, min(8, 2**20 // n**3))
        with torch.no_grad():
            r = self.sampler.batch(batch, self.settings.seed).to(self.device)
            result = {"loss": float(paper_loss(r, self.forward(unit_rms(r))))}
        for name, b in (("random", random_rhs(n, 7)), ("smooth", smooth_rhs(n, 7))):
            norms = dcdm_history(box_operator, self.direction, b, tolerance=1e-6, most=60)
            for tolerance in (1e-4, 1e-6):
                result[f"{name}_{tolerance:.0e}"] = next((k for k, v in enumerate(norms) if v <= tolerance), -1)
        return result

    def save_checkpoint(self) -> None:
        """Write network, moments, step and time to the directory, atomically."""
        tensors = {f"net.{name}": p.detach().cpu().contiguous() for name, p in self.net.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"adam.{index}.{name}"] = value.detach().cpu().contiguous()
        tensors.update({f"chain.{name}": value.cpu() for name, value in self._chain.state().items()})
        meta = {
            "step": str(self.step),
            "seconds": repr(self.seconds),
            "settings": json.dumps(asdict(self.settings)),
        }
        part = self.directory / "checkpoint.part"
        save_file(tensors, str(part), metadata=meta)
        part.replace(self.directory / "checkpoint.safetensors")

    def save_weights(self, path: Path, command: str) -> None:
        """Write a weights file with the settings and the validation of the run in its metadata."""
        s = self.settings
        hyper: dict[str, float | int | str] = {
            "variant": s.variant,
            "resolution": s.resolution,
            "training_steps": self.step,
            "training_minutes": round(self.seconds / 60.0, 1),
            "torch_version": torch.__version__,
            "settings": json.dumps(asdict(s)),
            "validation": json.dumps(self.validate()),
        }
        domain = f"box of {s.resolution}^3 cells with Dirichlet walls, {s.ritz} Ritz vectors at {s.low:g} : 1"
        weights.save(
            path,
            "cnn",
            (3,),
            to_tensors(self.net),
            training_domain=domain,
            seed=s.seed,
            command=command,
            hyper=hyper,
        )

    def _resume(self) -> None:
        path = self.directory / "checkpoint.safetensors"
        if not path.is_file():
            return
        with safe_open(str(path), framework="pt") as f:
            meta = f.metadata()
        _check_same(json.loads(meta["settings"]), self.settings, self.directory)
        tensors = load_file(str(path))
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
            elif key.startswith("chain."):
                setattr(self._chain, key[6:], value.to(self.device))
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.elapsed = int(meta["step"]), float(meta["seconds"])

    def _basis(self) -> Lanczos:
        """The Lanczos basis, from the directory when it is there: at 64^3 it takes minutes."""
        s, path = self.settings, self.directory / "basis.safetensors"
        if path.is_file():
            t = load_file(str(path))
            return Lanczos(t["alpha"], t["beta"], t["basis"].to(self.device))
        run = box_lanczos(s.resolution, s.ritz, s.seed, device=s.device)
        save_file({"alpha": run.alpha, "beta": run.beta, "basis": run.basis.cpu()}, str(path))
        return run


def _check_same(old: dict[str, Any], settings: Settings, directory: Path) -> None:
    free = ("minutes", "device")
    new = asdict(settings)
    other = [f.name for f in fields(Settings) if f.name not in free and old.get(f.name) != new[f.name]]
    if other:
        raise TrainingError(
            f"{directory} holds a run with another {', '.join(other)}; "
            f"give its settings to resume it, or another --run-dir"
        )


class CsvLog:
    """Appends rows to a table of the run; the header comes from the first row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows_after(self, step: int) -> None:
        """Drop rows beyond `step`: an interrupted run logged them after its last checkpoint."""
        if self.path.is_file():
            rows = read_csv(self.path)
            kept = [row for row in rows if row["step"] <= step]
            self.path.unlink()
            for row in kept:
                self.add(row)

    def add(self, row: dict[str, float]) -> None:
        new = not self.path.is_file()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a table that `CsvLog` wrote."""
    with path.open(newline="") as f:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(f)]


def plot(directory: Path) -> Path:
    """Draw the loss curve and the validation of a run to `loss.png` in its directory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    loss = read_csv(directory / "loss.csv")
    validation = read_csv(directory / "validation.csv")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    steps = [row["step"] for row in loss]
    left.semilogy(steps, [row["loss"] for row in loss], lw=0.5, alpha=0.4, label="training")
    left.semilogy([row["step"] for row in validation], [row["loss"] for row in validation], "k.-", label="held out")
    left.set(xlabel="step", ylabel=r"$|r - \alpha A f(r)|^2$")
    left.legend()
    for name in ("random_1e-04", "smooth_1e-04", "random_1e-06", "smooth_1e-06"):
        counts = [row[name] if row[name] >= 0 else np.nan for row in validation]
        right.plot(
            [row["step"] for row in validation],
            counts,
            ".-",
            label=name.replace("_", " right-hand side, to "),
        )
    right.set(xlabel="step", ylabel="DCDM iterations", ylim=(0, 60))
    right.legend()
    figure.tight_layout()
    path = directory / "loss.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
