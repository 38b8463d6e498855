"""Weights of a model, read from files and checked, or drawn from a seed; memory holds one network at a time."""

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
from graphs.networks.spec import GraphSpec, ModelSpec, unwrapped
from graphs.weights_file import checkpoint_files, read_tensors

# Parts of the names of parameters that multiply nothing: they are added to a map, or stand among its tokens.
_OF_TOKENS = ("grn.", "msg_embeddings", "_pos", "pos_embed", "position_embedding", "_token", "class_embedding")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A checked state dict for each role of a model.

    origin: "trained" (in this project), "checkpoint" (files from elsewhere) or "random". source: the names of the
    files, or "seed N". sha256: of the files, of the drawn values, or, where a file holds another model too, of the
    tensors read. states: may make the tensors of a role anew at every access, so a caller that needs them twice keeps
    them. learned: the tensors that ModelSpec.learned names.
    """

    origin: str
    source: str
    sha256: str
    states: Mapping[str, State]
    learned: State = field(default_factory=dict)


class _OnDemand(Mapping[str, State]):
    """Role -> state, made at every access and not kept: the largest model has 4 GB in one network."""

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
    """Read the weights of every network of a model from a file, or from several files that each hold a part.

    A file is a .safetensors, the FILE.index.json of a sharded one, or a .pth of the published layout. Nothing in it is
    executed, and its values stay in it until they are used. Its keys are those of GraphSpec.key and
    ModelSpec.key_names; tensors of another model in the same file are not read.
    Raises NotAvailable if there is no file; InvalidArtifact if a file cannot be read, or for keys that are missing,
    unknown, given twice, of another shape or dtype, or not finite: the message names the first of them and the models
    that the files fit.
    """
    files = _Files((paths,) if isinstance(paths, Path) else tuple(paths), spec)
    files.check()
    states = _OnDemand(spec.roles, lambda role: files.state(spec.graph(role)))
    for graph, *_ in spec.networks:  # checked now, and not after an hour's work
        files.check_finite([graph.key(name) for name in graph.expected_state()])
    learned = files.learned()
    files.check_finite(learned)
    source = " + ".join(path.name for path in files.paths)
    return Weights(origin, source, files.sha256(), states, learned)


def random_weights(seed: int, spec: ModelSpec) -> Weights:
    """Draw weights from a seed, the same on every machine, scaled so that signals neither vanish nor explode.

    Every value that training would change is moved off its start, so that no part of the network is an identity.
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
    """The files of a checkpoint.

    Each is opened for each use and closed after it, so that memory holds at most one network.
    """

    def __init__(self, paths: tuple[Path, ...], spec: ModelSpec) -> None:
        for path in paths:
            if not path.is_file():
                raise NotAvailable(f"{path}: no such checkpoint file; download it, or use random weights from a seed")
        self.paths = paths
        self._spec = spec
        self._where = " + ".join(map(str, paths))
        self._expected = spec.expected_state()
        self._left_out = spec.may_hold()
        self._learned = [tensor.name for tensor in spec.learned]
        self._unwanted = (*spec.key_names.ignored, *spec.key_names.foreign)

    def check(self) -> None:
        """Check names, shapes and dtypes without reading values. Raises InvalidArtifact naming at most ten problems."""
        given = self._tensors()
        expected = self._expected
        if self._spec.left_out and not any(name in given for name in self._learned):
            # A graph alone does not need the tensors that only the runner of the whole model reads.
            expected = {key: like for key, like in expected.items() if key not in self._learned}
        problems = [f"missing {key}" for key in sorted(expected.keys() - given.keys())]
        problems += [f"unknown {key}" for key in sorted(given.keys() - expected.keys())]
        for key in sorted(expected.keys() & given.keys()):
            want, got = expected[key], given[key]
            if got.shape != want.shape:
                problems.append(f"{key}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
            elif got.dtype not in (_FLOATS if want.is_floating_point() else (want.dtype,)):
                problems.append(f"{key}: expected {want.dtype}, got {got.dtype}")
        problems += self._of_another_model()
        if problems:
            shapes = {key: tuple(value.shape) for path in self.paths for key, value in read_tensors(path).items()}
            hint = recognized(shapes, self._spec) or "is it of another model?"
            shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
            raise InvalidArtifact(f"{self._where}: does not fit {self._spec.name}: {hint} In it: {shown}")

    def _of_another_model(self) -> list[str]:
        """Return the tensors of graphs that were left out whose shapes show that the file is another model's."""
        left_out = self._spec.left_out_state()
        return [
            f"{key}: expected shape {tuple(left_out[key].shape)}, got {tuple(value.shape)}"
            for _, _, key, value in self._read()
            if key in left_out and value.shape != left_out[key].shape
        ]

    def check_finite(self, keys: Iterable[str]) -> None:
        """Read every value of these keys. Raises InvalidArtifact naming a key that holds NaN or infinity."""
        tensors = self._tensors()
        for key in keys:
            if not torch.isfinite(tensors[key]).all():
                raise InvalidArtifact(f"{self._where}: {key}: holds NaN or infinity; download it again")

    def learned(self) -> State:
        """Return copies, as float32, of the small tensors that no graph holds: none if the files hold none."""
        tensors = self._tensors()
        names = [name for name in self._learned if name in tensors]
        return {name: tensors[name].to(torch.float32, copy=True) for name in names}

    def state(self, graph: GraphSpec) -> State:
        """Return the tensors of one network, in the dtypes in which it computes: half precision becomes float32."""
        tensors = self._tensors()
        return {
            name: tensors[graph.key(name)].to(like.dtype).contiguous() for name, like in graph.expected_state().items()
        }

    def sha256(self) -> str:
        """Return the SHA-256 of the files, or, if a file holds another model too, of this model's tensors, by name."""
        foreign = self._spec.key_names.foreign
        if not any(read_tensors(path, lambda name: unwrapped(name).startswith(foreign)) for path in self.paths):
            return sha256_of(*(file for path in self.paths for file in checkpoint_files(path)))
        digest = hashlib.sha256()
        for key, value in sorted(self._tensors().items()):
            digest.update(key.encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors of this model in the files, by this project's keys."""
        tensors: dict[str, Tensor] = {}
        for path, name, key, value in self._read():
            if key in tensors:
                raise InvalidArtifact(f"{path}: {name}: {key} was given already; give each weight once")
            if key in self._expected or not self._left_out(key):
                tensors[key] = value
        return tensors

    def _read(self) -> Iterator[tuple[Path, str, str, Tensor]]:
        """Yield each tensor that may be this model's: its file, its name there, its key here, and its values."""
        for path in self.paths:
            for name, value in read_tensors(path, lambda name: not unwrapped(name).startswith(self._unwanted)).items():
                yield path, name, self._spec.key_names.key(name), value


def _draw(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random values in the shape and dtype of `like`, scaled by the kind of parameter that the name tells."""
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
