"""Small graphs for tests of the import, and the command line in this process."""

from pathlib import Path

import onnx
import onnx.parser
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from backends.artifact import Artifact
from backends.tensor import Binding, TensorSpec
from toolkit.cli import main


def toolkit(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def save_graph(folder: Path, graph: onnx.GraphProto, opset: int = 17) -> Path:
    path = folder / "source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def onnx_artifact(path: Path, x: TensorSpec, y: TensorSpec) -> Artifact:
    """The artifact of a float32 ONNX file with one input and one output. Its hash is not that of the file."""
    return Artifact(
        file=path.name,
        role="model",
        format="onnx",
        precision="fp32",
        route=None,
        inputs=(Binding.same(x),),
        outputs=(Binding.same(y),),
        sha256="0" * 64,
        bytes=path.stat().st_size,
        external_files=(),
        parent=None,
        tools={},
        architecture=None,
    )


def square_root(folder: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    nodes = [helper.make_node("Sqrt", ["x"], ["y"])]
    return save_graph(folder, helper.make_graph(nodes, "g", values[:1], values[1:]))
