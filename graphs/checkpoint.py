"""Weights from a file, checked strictly, or drawn from a seed; one network of a model in memory at a time."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from backends.bundle import sha256_of
from backends.errors import InvalidArtifact, NotAvailable
from graphs.networks.models import recognized
from graphs.networks.spec import GraphSpec, ModelSpec
from graphs.weights_file import checkpoint_files, read_tensors

# Parts of the names of what is added to a map or stands among its tokens, and multiplies nothing.
_OF_TOKENS = ("grn.", "msg_embeddings", "_pos", "pos_embed", "position_embedding", "_token", "class_embedding")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A checked state dict for each role of a model.

    origin is "trained" (here), "checkpoint" (a file of someone else) or "random"; source is the files' names or
    "seed N"; sha256 covers the files, or what was drawn, or what was read out of a file that holds another model too.
    states may make a role's tensors anew at every access: a caller that wants them twice keeps them.
    learned holds the tensors that ModelSpec.learned names.
    """

    origin: str
    source: str
    sha256: str
    states: Mapping[str, State]
    learned: State = field(default_factory=dict)


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


def load_checkpoint(paths: Path | Sequence[Path], spec: ModelSpec, origin: str = "checkpoint") -> Weights:
    """Read the weights of every network of a model from a file, or from several that hold its parts.

    A file is a .safetensors, the FILE.index.json of a sharded one, or a .pth of the published layout. Nothing in it is
    executed, and its values stay in it until they are used. Which keys it has is in GraphSpec.key and ModelSpec's
    key_names; what belongs to another model in the same file is never read.
    Raises NotAvailable if there is no file; InvalidArtifact if one cannot be read, or naming the keys that are
    missing, unknown, given twice, of another shape or dtype, or not finite, and the models that the files fit.
    """
    files = _Files((paths,) if isinstance(paths, Path) else tuple(paths), spec)
    files.check()
    states = _OnDemand(spec.roles, lambda role: files.state(spec.graph(role)))
    for graph, *_ in spec.networks:  # said now, and not after an hour's work
        files.check_finite([graph.key(name) for name in graph.expected_state()])
    files.check_finite([tensor.name for tensor in spec.learned])
    source = " + ".join(path.name for path in files.paths)
    return Weights(origin, source, files.sha256(), states, files.learned())


def random_weights(seed: int, spec: ModelSpec) -> Weights:
    """Weights from a seed, the same on every machine, scaled so that signals neither die nor explode.

    Every value that training would move is moved off its start, so that no part of the network is an identity.
    """
    generator = torch.Generator().manual_seed(seed)
    starts: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for key, like in spec.expected_state().items():
        starts[key] = generator.get_state()
        digest.update(key.encode())
        digest.update(_draw(key, like, generator).numpy().data)

    def draw_again(role: str) -> State:
        graph, again, state = spec.graph(role), torch.Generator(), {}
        for name, like in graph.expected_state().items():
            again.set_state(starts[graph.key(name)])
            state[name] = _draw(graph.key(name), like, again)
        return state

    learned = {}
    for tensor in spec.learned:
        generator.set_state(starts[tensor.name])
        learned[tensor.name] = _draw(tensor.name, torch.empty(tensor.shape, device="meta"), generator)
    return Weights("random", f"seed {seed}", digest.hexdigest(), _OnDemand(spec.roles, draw_again), learned)


class _Files:
    """The files of a checkpoint. Each is opened anew for each use, and let go with it, so that memory holds one network
    at most."""

    def __init__(self, paths: tuple[Path, ...], spec: ModelSpec) -> None:
        for path in paths:
            if not path.is_file():
                raise NotAvailable(f"{path}: no such checkpoint file; download it, or use random weights from a seed")
        self.paths = paths
        self._spec = spec
        self._where = " + ".join(map(str, paths))
        self._expected = spec.expected_state()
        self._left_out = spec.may_hold()
        self._unwanted = (*spec.key_names.ignored, *spec.key_names.foreign)

    def check(self) -> None:
        """Names, shapes and dtypes; no value is read."""
        given = self._tensors()
        expected = self._expected
        problems = [f"missing {key}" for key in sorted(expected.keys() - given.keys())]
        problems += [f"unknown {key}" for key in sorted(given.keys() - expected.keys())]
        for key in sorted(expected.keys() & given.keys()):
            want, got = expected[key], given[key]
            if got.shape != want.shape:
                problems.append(f"{key}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
            elif got.dtype not in (_FLOATS if want.is_floating_point() else (want.dtype,)):
                problems.append(f"{key}: expected {want.dtype}, got {got.dtype}")
        if problems:
            shapes = {key: tuple(value.shape) for path in self.paths for key, value in read_tensors(path).items()}
            hint = recognized(shapes, self._spec) or "is it of another model?"
            shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
            raise InvalidArtifact(f"{self._where}: does not fit {self._spec.name}: {hint} In it: {shown}")

    def check_finite(self, keys: Iterable[str]) -> None:
        """Read every value of some keys."""
        tensors = self._tensors()
        for key in keys:
            if not torch.isfinite(tensors[key]).all():
                raise InvalidArtifact(f"{self._where}: {key}: holds NaN or infinity; download it again")

    def learned(self) -> State:
        """The small tensors that no graph holds, in memory."""
        tensors = self._tensors()
        return {tensor.name: tensors[tensor.name].to(torch.float32, copy=True) for tensor in self._spec.learned}

    def state(self, graph: GraphSpec) -> State:
        """One network's tensors. Half-precision ones become float32, which is what every network here computes in."""
        tensors = self._tensors()
        return {
            name: tensors[graph.key(name)].to(like.dtype).contiguous() for name, like in graph.expected_state().items()
        }

    def sha256(self) -> str:
        """Over the files; or over the tensors that are ours, by name, where most of the bytes may be another's."""
        foreign = self._spec.key_names.foreign
        if not any(read_tensors(path, lambda name: name.startswith(foreign)) for path in self.paths):
            return sha256_of(*(file for path in self.paths for file in checkpoint_files(path)))
        digest = hashlib.sha256()
        for key, value in sorted(self._tensors().items()):
            digest.update(key.encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        """What the files hold of this model, by our keys."""
        names = self._spec.key_names
        tensors: dict[str, Tensor] = {}
        for path in self.paths:
            for name, value in read_tensors(path, lambda name: not name.startswith(self._unwanted)).items():
                key = names.key(name)
                if key in tensors:
                    raise InvalidArtifact(f"{path}: {name}: {key} was given already; give each weight once")
                if key in self._expected or not self._left_out(key):
                    tensors[key] = value
        return tensors


def _draw(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    noise: Tensor = torch.randn(like.shape, generator=generator)
    if name.endswith("running_var"):
        return noise.abs_().mul_(0.1).add_(1)
    if any(part in name for part in _OF_TOKENS):
        return noise.mul_(0.3)
    if like.ndim == 1 or name.endswith("norm.gamma"):
        return noise.mul_(0.1).add_(1 if name.endswith(("weight", "gamma", "lambda1")) else 0)
    return noise.mul_(math.sqrt(2 / like[0].numel()))  # He: keeps the variance through a ReLU or GELU
