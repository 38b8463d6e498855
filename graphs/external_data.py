"""Where an ONNX file of anybody's keeps its weights: only in files beside it, and only in bytes that are there."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from backends.errors import InvalidArtifact
from graphs.opset import nodes


def external_files(path: Path) -> tuple[Path, ...]:
    """The files of a model's external data, by name, after a look at each weight's place in them.

    onnx's checker has seen to it that they lie beside the model: it refuses absolute paths, links and `..`.
    Raises InvalidArtifact naming the weight whose bytes are not all in its file.
    """
    model = onnx.load(path, load_external_data=False)
    names = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names.add(_checked(path, tensor))
    return tuple(path.parent / name for name in sorted(names))


def _checked(path: Path, tensor: onnx.TensorProto) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location: str = entries.get("location", "")
    offset, length = entries.get("offset", "0"), entries.get("length")
    for key, value in (("offset", offset), ("length", length or "0")):
        if not value.isdecimal():
            raise InvalidArtifact(f"{path}: weight {tensor.name!r}: expected a number as its {key}, got {value!r}")
    file = path.parent / location
    if not file.is_file():
        raise InvalidArtifact(f"{path}: weight {tensor.name!r}: no file {location!r} beside the model")
    size = file.stat().st_size
    need = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    for dim in tensor.dims:
        need *= dim
    claimed = need if length is None else int(length)
    if claimed < need or int(offset) + claimed > size:
        raise InvalidArtifact(
            f"{path}: weight {tensor.name!r}: expected {need} bytes from byte {offset} of {location}, which the file "
            f"says are {claimed}; it has {size} in all"
        )
    return location


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every weight and constant, those inside the branches of nodes too."""
    yield from graph.initializer
    for node in nodes(graph):
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer
            yield from (attribute.t, *attribute.tensors)
