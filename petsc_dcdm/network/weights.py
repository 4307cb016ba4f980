"""The weights file: safetensors that describe themselves, read with numpy only.

Every file carries in its metadata the kind of network, the dimensions it serves, what it was trained on and
how, the network's hyper-parameters, and hashes over its tensors and over all of this, checked on load. Nothing is
unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import petsc_dcdm
from petsc_dcdm.network.registry import NETWORKS, Network

#: The weights in the package. `cnn` was trained up to 32^3 cells, `cnn-64` is `cnn` trained on at 64^3.
SHIPPED = ("multigrid", "cnn", "cnn-64")
#: Metadata that every file has; hyper-parameters of the network come on top, as text.
REQUIRED_META = ("kind", "dims", "training_domain", "seed", "package_version", "command", "hash", "metadata_hash")


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file, what was found and what to do."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A weights file in memory. `tensors` are as stored (float32) and never written to, `meta` is the file's metadata
    as text.
    """

    kind: str
    dims: tuple[int, ...]
    tensors: dict[str, np.ndarray]
    meta: dict[str, str] = field(default_factory=dict)
    source: str = "(in memory)"

    def number(self, name: str) -> float:
        """The hyper-parameter `name`, e.g. ``steps``; `WeightsError` when it is missing or no number."""
        try:
            return float(self.meta[name])
        except KeyError:
            raise WeightsError(
                f"{self.source}: no hyper-parameter '{name}' in its metadata; train anew with 'petsc-dcdm train'"
            ) from None
        except ValueError:
            raise WeightsError(
                f"{self.source}: hyper-parameter '{name}' is '{self.meta[name]}', expected a number"
            ) from None

    def require_kind(self, kind: str) -> None:
        """Raise `WeightsError` unless this is a network of that kind."""
        if self.kind != kind:
            raise WeightsError(f"{self.source}: a '{self.kind}' network, expected '{kind}'")

    def require_dimension(self, dimension: int) -> None:
        """Raise `WeightsError` unless the network serves grids of this dimension (2 or 3)."""
        if dimension not in self.dims:
            served = " and ".join(f"{d}D" for d in self.dims)
            raise WeightsError(
                f"{self.source}: these weights serve {served} grids but the grid is {dimension}D; "
                f"choose other weights with -pc_dcdm_model"
            )


def tensor_hash(tensors: dict[str, np.ndarray]) -> str:
    """sha256 over the sorted names, dtypes, shapes and bytes of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        a = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}|{a.dtype.str}|{a.shape}|".encode())
        digest.update(a.tobytes())
    return digest.hexdigest()


def metadata_hash(meta: dict[str, str]) -> str:
    """sha256 over the sorted names and values of the metadata but this hash itself: a hyper-parameter with another
    digit is as wrong a network as a tensor with one.
    """
    rest = sorted((name, value) for name, value in meta.items() if name != "metadata_hash")
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


def save(
    path: str | Path,
    kind: str,
    dims: tuple[int, ...],
    tensors: dict[str, np.ndarray],
    *,
    training_domain: str,
    seed: int,
    command: str,
    hyper: dict[str, float | int | str] | None = None,
) -> None:
    """Write a weights file.

    Parameters
    ----------
    kind
        a key of `petsc_dcdm.network.registry.NETWORKS`.
    dims
        dimensions the network serves, e.g. ``(2, 3)``.
    training_domain
        one line of text on what it was trained on.
    command
        the command that makes the file again.
    hyper
        hyper-parameters, stored as text under their own names.

    Raises:
        WeightsError: unknown kind, a missing or misshapen tensor, or a value that is not finite.
    """
    clean = {name: np.ascontiguousarray(a) for name, a in tensors.items()}
    meta = {name: str(value) for name, value in (hyper or {}).items()}
    meta.update(
        kind=kind,
        dims=",".join(str(d) for d in dims),
        training_domain=training_domain,
        seed=str(seed),
        package_version=petsc_dcdm.__version__,
        command=command,
        hash=tensor_hash(clean),
    )
    meta["metadata_hash"] = metadata_hash(meta)
    _check(ModelFile(kind, dims, clean, meta, str(path)))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    from safetensors.numpy import save as save_tensors

    Path(path).write_bytes(_in_order(save_tensors(clean, metadata=meta)))
    Path(path).chmod(0o644)


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in another order each time, and the same
    training is to give the same bytes.
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


def shipped(name: str) -> Path:
    """Where the package keeps the weights of a name in `SHIPPED`."""
    return Path(__file__).with_name("weights") / f"{name}.safetensors"


def stamp(name: str | Path) -> tuple[str, int, int, int]:
    """What tells a file that `load` would read from another one and from itself before it was written anew: path,
    inode, size and time of the last change; `WeightsError` where there is none. Not collective.
    """
    path = _path_of(name)
    try:
        status = os.stat(path)
    except OSError:
        raise _no_such_file(Path(path)) from None
    return path, status.st_ino, status.st_size, status.st_mtime_ns


_paths = {name: str(shipped(name)) for name in SHIPPED}


def _path_of(name: str | Path) -> str:
    return _paths.get(str(name), str(name))


def _no_such_file(path: Path) -> WeightsError:
    return WeightsError(
        f"{path}: no such weights file; give {' or '.join(SHIPPED)} for the shipped weights, "
        f"or the path of a file written by 'petsc-dcdm train'"
    )


def load(name: str | Path) -> ModelFile:
    """Read weights: a name in `SHIPPED`, else a path. Not collective.

    Raises:
        WeightsError: missing, not safetensors, without metadata or tensors, or a hash does not match.
    """
    path = Path(_path_of(name))
    if not path.is_file():
        raise _no_such_file(path)
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise WeightsError(
            f"{path}: weights are read with safetensors, which is not installed here: pip install safetensors"
        ) from None
    try:
        with safe_open(str(path), framework="numpy") as f:
            meta = dict(f.metadata() or {})
            tensors = {key: f.get_tensor(key) for key in f.keys()}
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(
            f"{path}: not a readable safetensors file ({error}); write it anew with 'petsc-dcdm train'"
        ) from error
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing:
        raise WeightsError(f"{path}: its metadata lacks {', '.join(missing)}; write it anew with 'petsc-dcdm train'")
    for what, key, found in (
        ("tensors", "hash", tensor_hash(tensors)),
        ("metadata", "metadata_hash", metadata_hash(meta)),
    ):
        if found != meta[key]:
            raise WeightsError(
                f"{path}: the {what} hash to {found[:12]} but the file says {meta[key][:12]}; "
                f"it is damaged, fetch or train it again"
            )
    if not set(meta["dims"].split(",")) <= {"2", "3"}:
        raise WeightsError(f"{path}: dimensions '{meta['dims']}' are not a list such as '2,3'")
    dims = tuple(int(d) for d in meta["dims"].split(","))
    file = ModelFile(meta["kind"], dims, tensors, meta, str(path))
    _check(file)
    return file


def _check(file: ModelFile) -> None:
    """Raise `WeightsError` unless kind, shapes and values make sense."""
    network = network_of(file)
    for name, a in file.tensors.items():
        if not np.isfinite(a).all():
            raise WeightsError(f"{file.source}: tensor '{name}' holds NaN or infinity; train it again")
    if network.check is not None:
        network.check(file)


def network_of(file: ModelFile) -> Network:
    """The entry of the registry that serves these weights; `WeightsError` where there is none."""
    try:
        return NETWORKS[file.kind]
    except KeyError:
        raise WeightsError(
            f"{file.source}: unknown kind of network '{file.kind}'; this version knows {', '.join(NETWORKS)}"
        ) from None
