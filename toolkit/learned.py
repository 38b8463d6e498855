"""Small learned tensors that no graph holds, in a manifest: what the first query asks, the token that names a pass."""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from backends.manifest import Fields
from backends.tensor import Array

if TYPE_CHECKING:
    from torch import Tensor

_FLOAT32 = np.dtype("<f4")


def learned_json(tensors: "Mapping[str, Tensor]") -> dict[str, Any]:
    """{"learned": {name: {"shape", "float32"}}} with the values in base64, little-endian; {} where there are none."""
    if not tensors:
        return {}
    return {
        "learned": {
            name: {
                "shape": list(tensor.shape),
                "float32": base64.b64encode(tensor.numpy().astype(_FLOAT32).tobytes()).decode(),
            }
            for name, tensor in tensors.items()
        }
    }


def read_learned(bundle: Bundle, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """The tensors of a bundle's manifest, which must be those of `shapes`. Raises InvalidArtifact."""
    where = f"{bundle.folder}: model.learned"
    held = Fields(bundle.model.get("learned"), where, tuple(shapes))
    return {name: _read(held[name], shape, f"{where}.{name}") for name, shape in shapes.items()}


def _read(value: object, shape: tuple[int, ...], where: str) -> Array:
    data = Fields(value, where, ("shape", "float32"))
    if data.integers("shape") != shape:
        raise InvalidArtifact(f"{where}: expected shape {shape}, got {data.integers('shape')}")
    try:
        array = np.frombuffer(base64.b64decode(data.text("float32"), validate=True), _FLOAT32).reshape(shape)
    except (binascii.Error, ValueError) as error:
        raise InvalidArtifact(f"{where}: not float32 of shape {shape} in base64: {error}") from error
    if not np.isfinite(array).all():
        raise InvalidArtifact(f"{where}: holds NaN or infinity")
    return array.astype(np.float32)
