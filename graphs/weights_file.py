"""Reads the tensors of .safetensors and .pth files, mapped into memory: nothing is executed, nothing is copied."""

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from backends.errors import InvalidArtifact, one_line

# The pickle of a .pth names tensors and holds settings; the values lie in other members of the archive.
_PICKLE_LIMIT_BYTES = 64 << 20
# The index of a model with hundreds of shards has one or two megabytes.
_INDEX_LIMIT_BYTES = 64 << 20
_INDEX_SUFFIX = ".index.json"
# The keys under which training scripts keep the state dict of a network, and the prefix that a wrapper puts before each
# name in it.
_STATE_KEYS = ("state_dict", "model", "model_state_dict")
_WRAPPER = "module."


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold the tensors: `path`, or the shards that an index (FILE.index.json) lists.

    Raises InvalidArtifact if the index is damaged or a shard is missing.
    """
    if not path.name.endswith(_INDEX_SUFFIX):
        return (path,)
    shards = tuple(path.parent / name for name in sorted(set(_weight_map(path).values())))
    for shard in shards:
        if not shard.is_file():
            raise InvalidArtifact(f"{path}: lists {shard.name}, which is not beside it; download it too")
    return shards


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Return the tensors whose names `wanted` accepts, by name.

    `path` is a .safetensors file, the index of a sharded one (FILE.index.json), or a .pth of the published layout,
    which holds the tensors under "model". Values are read from the file when they are first used; the file is closed
    with the last tensor.
    Raises InvalidArtifact if a file is damaged, holds anything but plain tensors, or would run code.
    """
    if path.name.endswith(_INDEX_SUFFIX):
        tensors = _read_shards(path, wanted)
    elif path.suffix == ".safetensors":
        tensors = _read_safetensors(path, wanted)
    else:
        tensors = {name: value for name, value in _read_pickle(path).items() if wanted(name)}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise InvalidArtifact(f"{path}: {name}: expected a plain dense tensor; save the weights as such")
    return tensors


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict of any network, by name.

    `path` is a .safetensors file, or what torch.save wrote: a state dict, alone or under "state_dict", "model" or
    "model_state_dict". Names are without the prefix "module." that a parallel wrapper adds.
    Raises InvalidArtifact as `read_tensors` does.
    """
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path, lambda name: True)
    else:
        content = _load_pickle(path)
        held = content if isinstance(content, Mapping) else {}
        state = next((held[key] for key in _STATE_KEYS if isinstance(held.get(key), Mapping)), held)
        tensors = {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}
        if not tensors or len(tensors) < len(state):
            raise InvalidArtifact(f"{path}: expected a state dict, tensors by name, got {_outline(content)}")
    if all(name.startswith(_WRAPPER) for name in tensors):
        tensors = {name.removeprefix(_WRAPPER): value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118  no mapping
    except Exception as error:  # errors of safetensors, of torch for dtypes that it lacks, of the system
        raise InvalidArtifact(
            f"{path}: not a readable safetensors file: {one_line(error)}; download it again"
        ) from error


def _read_shards(path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    names = {name: shard for name, shard in _weight_map(path).items() if wanted(name)}
    checkpoint_files(path)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(names.values())):
        listed = {name for name, place in names.items() if place == shard}
        found = _read_safetensors(path.parent / shard, listed.__contains__)
        if missing := sorted(listed - found.keys()):
            raise InvalidArtifact(
                f"{path}: says that {shard} holds {missing[0]}, which it does not; download both again"
            )
        tensors |= found
    return tensors


def _weight_map(path: Path) -> dict[str, str]:
    """Return {name of a tensor: name of the file beside the index that holds it}."""
    try:
        if path.stat().st_size > _INDEX_LIMIT_BYTES:
            raise ValueError(f"expected at most {_INDEX_LIMIT_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArtifact(f"{path}: not a readable index: {one_line(error)}; download it again") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise InvalidArtifact(f'{path}: expected {{"weight_map": {{tensor: file}}}}; download it again')
    for name, shard in names.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InvalidArtifact(f"{path}: {name}: expected the name of a .safetensors file beside it, got {shard!r}")
    return names


def _load_pickle(path: Path) -> object:
    _check_archive(path)
    try:
        # Training scripts store their arguments as a Namespace beside the weights: plain data, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return content
    except pickle.UnpicklingError as error:
        # The first line says which object was refused; the rest is advice to turn the check off.
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InvalidArtifact(
            f"{path}: refused, because it holds more than tensors and could run code: {reason}"
        ) from error
    except Exception as error:  # a pickle that was made by hand can make its reader fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArtifact(f"{path}: not a readable torch checkpoint: {reason}; download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    content = _load_pickle(path)
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise InvalidArtifact(f'{path}: expected {{"model": state dict, ...}}, got {_outline(content)}')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InvalidArtifact(f"{path}: model[{name!r}]: expected a tensor, got {type(value).__name__}")
    return {name: value.detach() for name, value in state.items()}


def _check_archive(path: Path) -> None:
    """Refuse an archive whose members would unpack to more than the file holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidArtifact(
            f"{path}: not a readable torch checkpoint: {one_line(error)}; download it again, or save it with a "
            "torch newer than 1.6"
        ) from error
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise InvalidArtifact(
            f"{path}: a TorchScript file, which holds code; save its weights alone: "
            f'torch.save({{"model": torch.jit.load({path.name!r}).state_dict()}}, "weights.pth")'
        )
    size = path.stat().st_size
    for member in members:
        limit = _PICKLE_LIMIT_BYTES if member.filename.endswith(".pkl") else size
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise InvalidArtifact(f"{path}: {member.filename} is compressed, which torch never does; download it again")
        if member.file_size > limit:
            raise InvalidArtifact(
                f"{path}: {member.filename} claims {member.file_size} bytes, expected at most {limit}; "
                "download it again"
            )


def _outline(content: object) -> str:
    """Describe what a file holds, for an error message: the first eight keys of a mapping, or the name of a type."""
    if isinstance(content, Mapping):
        return f"the keys {', '.join(map(repr, list(content)[:8]))}"
    return type(content).__name__
