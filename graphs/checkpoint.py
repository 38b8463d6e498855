"""Weights from a file, checked strictly, or drawn from a seed; one network of a model in memory at a time."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backends.artifact import ROLES
from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.recognition import recognized
from graphs.spec import GraphSpec, ModelSpec
from graphs.weights_file import read_tensors

# What published files also hold, and detection and embedding do not need. `embedder.msg_processor` repeats
# `embedder.unet.msg_processor`. Any other key must belong to a network of the model.
IGNORED = ("attenuation.", "rgb2yuv.", "blender.", "augmenter.", "discriminator", "embedder.msg_processor.")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A checked state dict for each role of a model.

    origin is "trained" (here), "checkpoint" (a file of someone else) or "random"; source is the file's name or
    "seed N"; sha256 covers the file, or the drawn weights. states may make a role's tensors anew at every access:
    a caller that wants them twice keeps them.
    """

    origin: str
    source: str
    sha256: str
    states: Mapping[str, State]


class _OnDemand(Mapping[str, State]):
    """role -> state, made when it is asked for and kept by nobody: the largest model has 4 GB in one network."""

    def __init__(self, roles: tuple[str, ...], make: Callable[[str], State]) -> None:
        self._roles = roles
        self._make = make

    def __getitem__(self, role: str) -> State:
        if role not in self._roles:
            raise KeyError(role)
        return self._make(role)

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)


def load_checkpoint(path: Path, spec: ModelSpec, origin: str = "checkpoint") -> Weights:
    """Read a .safetensors file, or a .pth of the published layout, for every network of a model.

    Nothing in the file is executed, and its values stay in the file until they are used. Keys are
    `{role}.{name in the network}`; IGNORED lists what may be there too, besides networks that `spec` leaves out.
    Raises NotAvailable if there is no file; InvalidArtifact if it cannot be read, or naming the keys that are
    missing, unknown, of another shape or dtype, or not finite, and the models that the file fits.
    """
    if not path.is_file():
        raise NotAvailable(f"{path}: no such checkpoint file; download it, or use random weights from a seed")
    tensors = read_tensors(path)
    ignored = (*IGNORED, *(f"{role}." for role in ROLES if role not in spec.roles))
    _check(path, spec, {key: value for key, value in tensors.items() if not key.startswith(ignored)})
    del tensors
    states = _OnDemand(spec.roles, lambda role: _state(path, spec.graph(role)))
    for graph in spec.graphs:  # said now, and not after an hour's work
        _check_finite(path, graph)
    return Weights(origin, path.name, sha256_of(path), states)


def random_weights(seed: int, spec: ModelSpec) -> Weights:
    """Weights from a seed, the same on every machine, scaled so that signals neither die nor explode.

    Every value that training would move is moved off its start, so that no part of the network is an identity.
    """
    generator = torch.Generator().manual_seed(seed)
    starts: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for graph in spec.graphs:
        starts[graph.role] = generator.get_state()
        for name, like in graph.expected_state().items():
            digest.update(f"{graph.role}.{name}".encode())
            digest.update(_draw(name, like, generator).numpy().data)

    def draw_again(role: str) -> State:
        again = torch.Generator()
        again.set_state(starts[role])
        return {name: _draw(name, like, again) for name, like in spec.graph(role).expected_state().items()}

    return Weights("random", f"seed {seed}", digest.hexdigest(), _OnDemand(spec.roles, draw_again))


def _check(path: Path, spec: ModelSpec, given: State) -> None:
    """Names, shapes and dtypes; no value is read."""
    expected = {f"{graph.role}.{name}": like for graph in spec.graphs for name, like in graph.expected_state().items()}
    problems = [f"missing {key}" for key in sorted(expected.keys() - given.keys())]
    problems += [f"unknown {key}" for key in sorted(given.keys() - expected.keys())]
    for key in sorted(expected.keys() & given.keys()):
        want, got = expected[key], given[key]
        if got.shape != want.shape:
            problems.append(f"{key}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
        elif got.dtype not in (_FLOATS if want.is_floating_point() else (want.dtype,)):
            problems.append(f"{key}: expected {want.dtype}, got {got.dtype}")
    if problems:
        hint = recognized({key: tuple(value.shape) for key, value in given.items()}, spec)
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise InvalidArtifact(f"{path}: does not fit {spec.name}: {hint or 'is it of another model?'} In it: {shown}")


def _check_finite(path: Path, graph: GraphSpec) -> None:
    """Read every value of one network. The file is let go with it, so that memory holds one network at most."""
    tensors = read_tensors(path)
    for name in graph.expected_state():
        key = f"{graph.role}.{name}"
        if not torch.isfinite(tensors[key]).all():
            raise InvalidArtifact(f"{path}: {key}: holds NaN or infinity; download it again")


def _state(path: Path, graph: GraphSpec) -> State:
    """One network's tensors. Half-precision ones become float32, which is what every network here computes in."""
    tensors = read_tensors(path)
    state = {}
    for name, like in graph.expected_state().items():
        state[name] = tensors[f"{graph.role}.{name}"].to(like.dtype).contiguous()
    return state


def _draw(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    noise: Tensor = torch.randn(like.shape, generator=generator)
    if name.endswith("running_var"):
        return noise.abs_().mul_(0.1).add_(1)
    if "grn." in name or "msg_embeddings" in name or "_pos" in name:
        return noise.mul_(0.3)
    if like.ndim == 1 or name.endswith("norm.gamma"):
        return noise.mul_(0.1).add_(1 if name.endswith(("weight", "gamma")) else 0)
    return noise.mul_(math.sqrt(2 / like[0].numel()))  # He: keeps the variance through a ReLU or GELU
