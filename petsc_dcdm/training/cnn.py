"""Training of the published network as the paper does it: unsupervised, on residuals made of Ritz vectors.

Loss of a sample (paper, section 4): |r - alpha A f(r)|^2 with alpha = r.f / (f.A f), for |r| = 1. The
optimiser is Adam; the paper's rate is a constant 1e-4, the default here is a cosine from 1e-3 to 1e-5, which
gets further in the hour that a CPU has. The residuals are those of the paper; `Settings.follow` adds to them
what the network leaves behind in a solve.

A run lives in a directory: `checkpoint.safetensors` (network, Adam moments, step), `basis.safetensors`
(Lanczos), `loss.csv`, `validation.csv` and `loss.png`. A run that was interrupted goes on from its
checkpoint; with the schedule over steps it then ends with the same numbers as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from petsc_dcdm.models import weights
from petsc_dcdm.models.cnn import DcdmNet, from_file, to_tensors
from petsc_dcdm.training.dcdm import Chain, dcdm_history, paper_loss, random_rhs, smooth_rhs, unit_rms
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
