"""Weights from a file, loaded safely and strictly, or drawn from a seed."""

import argparse
import hashlib
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.spec import ModelSpec

# What published files also hold, and detection and embedding do not need. `embedder.msg_processor` repeats
# `embedder.unet.msg_processor`. Any other key must belong to a network of the model.
IGNORED = ("attenuation.", "rgb2yuv.", "blender.", "augmenter.", "discriminator", "embedder.msg_processor.")

States = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Weights:
    """A checked state dict for each role of a model.

    origin is "trained" (here), "checkpoint" (a file of someone else) or "random"; source is the file's name or
    "seed N"; sha256 covers the file, or the drawn weights.
    """

    origin: str
    source: str
    sha256: str
    states: States


def load_checkpoint(path: Path, spec: ModelSpec, origin: str = "checkpoint") -> Weights:
    """Read a .safetensors file, or a .pth of the published layout, for every network of a model.

    Nothing in the file is executed. Keys are `{role}.{name in the network}`; IGNORED lists what may be there too.
    Raises NotAvailable if there is no file; InvalidArtifact if it cannot be read, or naming the keys that are
    missing, unknown, of another shape or not finite.
    """
    if not path.is_file():
        raise NotAvailable(f"{path}: no such checkpoint file; download it, or use random weights from a seed")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return Weights(origin, path.name, sha256_of(path), _split(tensors, spec, path))


def random_weights(seed: int, spec: ModelSpec) -> Weights:
    """Weights from a seed, the same on every machine, scaled so that signals neither die nor explode.

    Every value that training would move is moved off its start, so that no part of the network is an identity.
    """
    generator = torch.Generator().manual_seed(seed)
    states: States = {}
    for graph in spec.graphs:
        expected = _expected(spec, graph.role)
        states[graph.role] = {name: _draw(name, like, generator) for name, like in expected.items()}
    digest = _sha256_of_states(states)
    return Weights("random", f"seed {seed}", digest, states)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidArtifact(f"{path}: not a readable safetensors file: {error}; download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Training scripts store their arguments as a Namespace beside the weights: plain data, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        # The first line says which object was refused; the rest is advice to turn the check off.
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InvalidArtifact(
            f"{path}: refused, because it holds more than tensors and could run code: {reason}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArtifact(f"{path}: not a readable torch checkpoint: {reason}; download it again") from error
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise InvalidArtifact(f'{path}: expected {{"model": state dict, ...}}, got {_outline(content)}')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InvalidArtifact(f"{path}: model[{name!r}]: expected a tensor, got {type(value).__name__}")
    return dict(state)


def _outline(content: object) -> str:
    if isinstance(content, Mapping):
        return f"the keys {', '.join(map(repr, list(content)[:8]))}"
    return type(content).__name__


def _split(tensors: Mapping[str, Tensor], spec: ModelSpec, path: Path) -> States:
    expected = {
        f"{graph.role}.{name}": like for graph in spec.graphs for name, like in _expected(spec, graph.role).items()
    }
    given = {key for key in tensors if not key.startswith(IGNORED)}
    problems = [f"missing {key}" for key in sorted(expected.keys() - given)]
    problems += [f"unknown {key}" for key in sorted(given - expected.keys())]
    for key in sorted(expected.keys() & given):
        want, got = expected[key], tensors[key]
        if got.shape != want.shape:
            problems.append(f"{key}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
        elif got.is_floating_point() != want.is_floating_point():
            problems.append(f"{key}: expected {want.dtype}, got {got.dtype}")
        elif not torch.isfinite(got).all():
            problems.append(f"{key}: holds NaN or infinity")
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise InvalidArtifact(f"{path}: does not fit {spec.name}: {shown}. Is it the checkpoint of another model?")
    states: States = {}
    for graph in spec.graphs:
        # Half-precision files become float32, which is what every network here computes in.
        states[graph.role] = {
            name: tensors[f"{graph.role}.{name}"].to(like.dtype) for name, like in _expected(spec, graph.role).items()
        }
    return states


def _expected(spec: ModelSpec, role: str) -> dict[str, Tensor]:
    """Names, shapes and dtypes of a network's state, without memory for its values."""
    with torch.device("meta"):
        return dict(spec.graph(role).build().state_dict())


def _draw(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    noise: Tensor = torch.randn(like.shape, generator=generator)
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if "grn." in name or "msg_embeddings" in name or "_pos" in name:
        return 0.3 * noise
    if like.ndim == 1 or name.endswith("norm.gamma"):
        return 0.1 * noise + (1 if name.endswith(("weight", "gamma")) else 0)
    return noise * math.sqrt(2 / like[0].numel())  # He: keeps the variance through a ReLU or GELU


def _sha256_of_states(states: States) -> str:
    digest = hashlib.sha256()
    for role, state in states.items():
        digest.update(role.encode())
        digest.update(save(dict(sorted(state.items()))))
    return digest.hexdigest()
