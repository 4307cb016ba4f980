"""Training of the published network as the paper does it: unsupervised, on residuals made of Ritz vectors.

Loss of a sample (paper, section 4): |r - alpha A f(r)|^2 with alpha = r.f / (f.A f), for |r| = 1. The
optimiser is Adam; the paper's rate is a constant 1e-4, here every stage has a cosine from a higher one, which
gets further in the hour that a CPU has. The residuals are those of the paper, from Ritz vectors or from the modes
that these stand for (`Stage.exact`). `Stage.follow` adds to them what the network leaves behind in a solve,
`Stage.log` and `Stage.energy` say what a step of a solve is then judged by.

A run lives in a directory: `checkpoint.safetensors` (network, Adam moments, step), `basis-*.safetensors`
(Lanczos), `loss.csv`, `validation.csv` and `loss.png`. A run that was interrupted, at any moment, goes on from
its checkpoint and ends with the same numbers as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from petsc_dcdm.network import weights
from petsc_dcdm.network.cnn import DcdmNet, from_file, inferred, to_tensors
from petsc_dcdm.training.cnn_recipes import Stage, TrainingError
from petsc_dcdm.training.dcdm import Chain, dcdm_history, energy_loss, paper_loss, random_rhs, smooth_rhs, unit_rms
from petsc_dcdm.training.modes import ModeSampler, error_energy
from petsc_dcdm.training.ritz import Lanczos, RitzSampler, box_lanczos, box_operator

#: Seeds of training batches start here, those of the held-out ones at 0.
_FIRST_SEED = 1_000_000


@dataclass(frozen=True)
class Settings:
    """What a run does: its stages one after the other, each with a new Adam.

    Without `normalised` the residuals that the network sees keep a random magnitude, as they would in a
    solver that does not normalise. `init` is a weights file to start from, empty for random weights.
    """

    stages: tuple[Stage, ...]
    variant: str = "64"
    normalised: bool = True
    seed: int = 0
    init: str = ""
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


class Trainer:
    """One run: the network, its optimiser and the directory it lives in.

    Raises:
        TrainingError: the settings make no sense, or the directory holds a run with others. A run whose
            stages are the first of these is continued.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        for stage in settings.stages:
            stage.check()
        self.settings = settings
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        net = from_file(weights.load(settings.init)).train() if settings.init else DcdmNet(settings.variant)
        if net.variant != settings.variant:
            raise TrainingError(f"{settings.init} holds the '{net.variant}' network, not the '{settings.variant}' one")
        self.net = net.to(self.device, memory_format=torch.channels_last_3d)
        self.optimiser = torch.optim.Adam(self.net.parameters())
        self._chain = Chain()
        self.step = 0
        self._elapsed = 0.0
        self._resume()
        self._enter(max(0, self.step - 1))
        self._clock = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all parts of the run together."""
        return self._elapsed + time.monotonic() - self._clock

    def _enter(self, step: int) -> int:
        """Make the stage of `step` the current one; returns the number of the step within it."""
        for stage in self.settings.stages:
            if step < stage.steps:
                break
            step -= stage.steps
        if stage is not getattr(self, "stage", None):
            self.stage = stage
            self._sampler = self._residuals()
        return step

    def train_step(self) -> float:
        """One step of Adam; returns the loss of its batch before the step."""
        k = self._enter(self.step)
        s = self.stage
        if k == 0:  # moments of the small gradients at the end of a stage would make the first steps of the next huge
            self.optimiser = torch.optim.Adam(self.net.parameters())
        done = k / s.steps
        rate = s.final_rate + 0.5 * (s.rate - s.final_rate) * (1.0 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (k + 1) / s.warm_up)
        r = self._next_residuals(k)
        f = self.forward(self._magnitude(r), coarse=done < s.bfloat16_until)
        loss = paper_loss(r, f)
        if s.follow:
            self._chain.advance(r, f.detach())
        self.optimiser.zero_grad(set_to_none=True)
        wanted = loss.log() if s.log else loss
        if s.energy:
            wanted = 0.5 * (wanted + energy_loss(r, f, error_energy(r)).log())
        wanted.mean().backward()
        self.optimiser.step()
        self.step += 1
        return float(loss.detach().mean())

    def _next_residuals(self, k: int) -> Tensor:
        s = self.stage
        seed = self.settings.seed + _FIRST_SEED + self.step
        if not s.follow or k == 0:
            self._chain = Chain()
            return self._sampler.batch(s.batch, seed).to(self.device)
        fresh = [i for i in range(s.batch) if (k + i * s.follow // s.batch) % s.follow == 0]
        if fresh:
            self._chain.restart(fresh, self._sampler.batch(len(fresh), seed).to(self.device))
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
            x = unit_rms(r[None, None].to(self.device).float()).contiguous(memory_format=torch.channels_last_3d)
            return self.net(x, inferred)[0, 0].to("cpu", torch.float64)

    def validate(self) -> dict[str, float]:
        """Held-out loss, and DCDM iterations to 1e-4 and 1e-6 for a random and a smooth right-hand side.

        On the box of the current stage; -1 where 60 iterations do not suffice.
        """
        n = self.stage.resolution
        with torch.no_grad():
            r = self._sampler.batch(max(1, min(8, 2**20 // n**3)), self.settings.seed).to(self.device)
            result = {"loss": float(paper_loss(r, self.forward(unit_rms(r))).mean())}
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
        _save(tensors, self.directory / "checkpoint.safetensors", meta)

    def save_weights(self, path: Path, command: str) -> None:
        """Write a weights file with the settings and the validation of the run in its metadata."""
        s = self.settings
        hyper: dict[str, float | int | str] = {
            "variant": s.variant,
            "resolution": self.stage.resolution,
            "training_steps": self.step,
            "training_minutes": round(self.seconds / 60.0, 1),
            "torch_version": torch.__version__,
            "torch_threads": torch.get_num_threads(),
            "settings": json.dumps(asdict(s)),
            "validation": json.dumps(self.validate()),
        }
        sizes = ", ".join(dict.fromkeys(f"{stage.resolution}^3" for stage in s.stages))
        kinds = dict.fromkeys("of exact modes" if stage.exact else "of Ritz vectors" for stage in s.stages)
        followed = " and of the solver's steps" if any(stage.follow for stage in s.stages) else ""
        weights.save(
            path,
            "cnn",
            (3,),
            to_tensors(self.net),
            training_domain=f"boxes of {sizes} cells with Dirichlet walls, residuals {', '.join(kinds)}{followed}",
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
        self.step, self._elapsed = int(meta["step"]), float(meta["seconds"])

    def _residuals(self) -> RitzSampler | ModeSampler:
        s = self.stage
        if s.exact:
            return ModeSampler(s.resolution, s.ritz, s.low)
        return RitzSampler(self._basis(), s.resolution, s.low)

    def _basis(self) -> Lanczos:
        """The Lanczos basis of the stage, from the directory when it is there: at 64^3 it takes minutes."""
        s = self.stage
        path = self.directory / f"basis-{s.resolution}-{s.ritz}.safetensors"
        if path.is_file():
            t = load_file(str(path))
            return Lanczos(t["alpha"], t["beta"], t["basis"].to(self.device))
        run = box_lanczos(s.resolution, s.ritz, self.settings.seed, device=self.settings.device)
        _save({"alpha": run.alpha, "beta": run.beta, "basis": run.basis.cpu()}, path)
        return run


def _save(tensors: dict[str, Tensor], path: Path, meta: dict[str, str] | None = None) -> None:
    """Write a file that is whole or not there, whenever the process is killed."""
    part = path.with_suffix(".part")
    save_file(tensors, str(part), metadata=meta)
    part.replace(path)


def _check_same(old: dict[str, object], settings: Settings, directory: Path) -> None:
    new = json.loads(json.dumps(asdict(settings)))
    before, now = old.pop("stages", None), new.pop("stages")
    other = [name for name, value in new.items() if name != "device" and old.get(name) != value]
    if not isinstance(before, list) or now[: len(before)] != before:
        other.append("stages")
    if other:
        raise TrainingError(
            f"{directory} holds a run with another {', '.join(other)}; "
            f"give its settings to resume it, or another --run-dir"
        )
