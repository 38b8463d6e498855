"""Tensors of a .safetensors or .pth file, mapped into memory: nothing in the file is executed, nothing is copied."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from backends.errors import InvalidArtifact, one_line

# The pickle of a .pth names tensors and holds settings; the values lie in members of their own.
_PICKLE_LIMIT_BYTES = 64 << 20


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a .safetensors file, or of `model` in a .pth of the published layout, by name.

    The values are read from the file when they are first used, and the file is let go with the last of them.
    Raises InvalidArtifact if the file is damaged, holds anything but plain tensors, or would run code.
    """
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise InvalidArtifact(f"{path}: {name}: expected a plain dense tensor; save the weights as such")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own, torch's for dtypes that it does not have, the system's
        raise InvalidArtifact(
            f"{path}: not a readable safetensors file: {one_line(error)}; download it again"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    _check_archive(path)
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
    except Exception as error:  # a pickle that was made by hand can make its reader fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArtifact(f"{path}: not a readable torch checkpoint: {reason}; download it again") from error
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
    if isinstance(content, Mapping):
        return f"the keys {', '.join(map(repr, list(content)[:8]))}"
    return type(content).__name__
