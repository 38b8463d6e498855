"""Reads, checks and writes ONNX files.

The same model always gives the same bytes; errors name the file and a remedy.
"""

import hashlib
from pathlib import Path

import onnx
import onnx_ir as ir

from backends.artifact import SIZES
from backends.errors import InvalidArtifact
from graphs.onnx.sizes import close_axes

# The IR version that the converter's onnx and onnx2tf can read.
IR_VERSION = 10
OPSET = 20

# From this size on, weights lie in FILE.data, which runtimes map: protobuf holds at most 2 GB, and readers hold all of
# it twice while they parse.
_EMBED_LIMIT_BYTES = 1 << 28
_PAGE_BYTES = 4096


def external_name(file_name: str) -> str:
    """Return the name of the file that holds the external data of an ONNX file."""
    return f"{file_name}.data"


def save(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Write a model without metadata of the machine it was made on.

    Returns the files: `path`, then external data if any. The same model gives the same bytes. External data is written
    one weight at a time, directly from its source.
    """
    strip(model)
    if weight_bytes(model) < _EMBED_LIMIT_BYTES:
        ir.save(ir.external_data.load_to_model(model), path)  # includes weights that lie in another model's file
        return (path,)
    data = path.parent / external_name(path.name)
    ir.save(model, path, external_data=data.name, alignment=_PAGE_BYTES, align_threshold=_PAGE_BYTES)
    data.chmod(path.stat().st_mode)  # onnx_ir gives it the mode of a private temporary file
    return (path, data)


class DataFile:
    """A file of weights that several ONNX files of a folder share. Equal weights are written once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[bytes, int] = {}

    def save(self, model: ir.Model, path: Path) -> tuple[Path, ...]:
        """Write a model beside the data file, and return its files, as `save` does.

        Weights of 4096 bytes or more lie in the data file.
        """
        strip(model)
        shared = False
        for value in model.graph.initializers.values():
            if value.const_value is not None and value.const_value.nbytes >= _PAGE_BYTES:
                value.const_value = self._place(value.const_value)
                shared = True
        ir.save(model, path)
        return (path, self.path) if shared else (path,)

    def _place(self, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        data = tensor.tobytes()
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            with self.path.open("ab") as file:
                file.write(bytes(-file.tell() % _PAGE_BYTES))
                self._offsets[digest] = file.tell()
                file.write(data)
        return ir.ExternalTensor(
            self.path.name,
            self._offsets[digest],
            len(data),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(tensor.name),
            base_dir=self.path.parent,
        )


def weight_bytes(model: ir.Model) -> int:
    """Return the size of all initializers in bytes, without computing their values."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def load(path: Path) -> ir.Model:
    """Read and check an ONNX file. Raises InvalidArtifact if the file is not a valid ONNX model."""
    check(path)
    return ir.load(path)


def read(path: Path) -> ir.Model:
    """Read an ONNX file of this project, without checking it. Open axes get the sizes that the file states for them.

    Raises InvalidArtifact if a file of its weights has hard links. onnx_ir refuses hard links, which may lead to files
    that do not belong to the model, but only when it reads a weight.
    """
    model = ir.load(path)
    tensors = (value.const_value for value in model.graph.initializers.values())
    for file in {Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}:
        if file.exists() and file.stat().st_nlink > 1:
            raise _linked(path)
    return close_axes(model)


def check(path: Path) -> None:
    """Run onnx.checker over the whole file, shapes included. Raises InvalidArtifact if the model is not valid."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "multiple hard links" in reason:
            raise _linked(path) from error
        raise InvalidArtifact(f"{path}: not a valid ONNX model: {reason}; export it again") from error


def _linked(path: Path) -> InvalidArtifact:
    return InvalidArtifact(
        f"{path}: the file of its weights has several names (hard links), and onnx reads none that has: copy it to one "
        "of its own, `cp FILE COPY && mv COPY FILE`"
    )


def strip(model: ir.Model) -> None:
    """Remove doc strings and metadata, in place: exporters put stack traces with paths of this machine there.

    The sizes of open axes are kept.
    """
    model.doc_string = None
    kept = {key: value for key, value in model.metadata_props.items() if key == SIZES}
    model.metadata_props.clear()
    model.metadata_props.update(kept)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.doc_string = None
        graph.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            _strip_value(value)
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                _strip_value(value)


def _strip_value(value: ir.Value) -> None:
    value.doc_string = None
    value.metadata_props.clear()
