"""ONNX files: written the same way every time, read back with an error that a person understands."""

import hashlib
from pathlib import Path

import onnx
import onnx_ir as ir

from backends.errors import InvalidArtifact

# What the converter's onnx and onnx2tf read.
IR_VERSION = 10

OPSET = 20

# protobuf holds at most 2 GB, and readers hold all of it twice while they parse; weights of a larger model go beside
# it, in FILE.data, which runtimes map.
_EMBED_LIMIT_BYTES = 1 << 28

_PAGE_BYTES = 4096


def external_name(file_name: str) -> str:
    """The name of the external data of an ONNX file."""
    return f"{file_name}.data"


def save(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Write a model without anything of the machine it was made on. Returns the files: path, then external data.

    The same model gives the same bytes. External data is written weight by weight, straight from where each lies.
    """
    strip(model)
    if weight_bytes(model) < _EMBED_LIMIT_BYTES:
        ir.save(ir.external_data.load_to_model(model), path)  # what lies in another model's file comes along
        return (path,)
    data = path.parent / external_name(path.name)
    ir.save(model, path, external_data=data.name, alignment=_PAGE_BYTES, align_threshold=_PAGE_BYTES)
    data.chmod(path.stat().st_mode)  # made as a private temporary file
    return (path, data)


class DataFile:
    """Weights that several ONNX files of a folder share: each is written once, however many of the files have it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[bytes, int] = {}

    def save(self, model: ir.Model, path: Path) -> tuple[Path, ...]:
        """Write a model beside the data file, like `save`. Its large weights then lie there, and are mapped."""
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
    """Size of all initializers, without computing any of them."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def load(path: Path) -> ir.Model:
    """Read and check an ONNX file. Raises InvalidArtifact if it is damaged."""
    check(path)
    return ir.load(path)


def read(path: Path) -> ir.Model:
    """Read an ONNX file of ours. Raises InvalidArtifact where its weights' file has other names.

    onnx_ir would raise in the middle of the work: a link may lead to a file that is none of the model's business.
    """
    model = ir.load(path)
    tensors = (value.const_value for value in model.graph.initializers.values())
    for file in {Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}:
        if file.exists() and file.stat().st_nlink > 1:
            raise _linked(path)
    return model


def check(path: Path) -> None:
    """onnx.checker over the whole file, shapes included. Raises InvalidArtifact."""
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
    """Remove doc strings and metadata: exporters put stack traces with this machine's paths there."""
    model.doc_string = None
    model.metadata_props.clear()
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
