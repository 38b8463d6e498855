"""What the lowering cannot do, said before it starts: by node and operator, from the converter's own list."""

import json
import tempfile
from pathlib import Path

import onnx_ir as ir

from backends.bundle import Bundle
from backends.errors import NotAvailable
from toolkit.convert.converter import ConversionFailed, Progress, run_worker
from toolkit.convert.slices import open_graph
from toolkit.environments import converter_python

_TIMEOUT_S = 300.0
_SHOWN = 5
_ASKED: dict[Path, frozenset[str]] = {}  # by the converter's Python


def supported_operators(log: Path, progress: Progress = lambda step: None) -> frozenset[str]:
    """The ONNX operators that the installed converter lowers, asked once. Raises NotAvailable without a converter.

    What the converter prints is added to `log`. Raises ConversionFailed if it does not answer.
    """
    python = converter_python()
    if python not in _ASKED:
        progress("asking onnx2tf which operators it lowers")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            result = run_worker({"task": "operators"}, folder, log, _TIMEOUT_S, progress)
            _ASKED[python] = frozenset(json.loads(result.files["operators"].read_text(encoding="utf-8")))
    return _ASKED[python]


def unsupported_nodes(model: ir.Model, supported: frozenset[str]) -> list[str]:
    """Nodes, inside the branches of others too, whose operator is not among `supported`: "'name' (Operator)"."""
    return [
        f"{node.name or node.outputs[0].name!r} ({node.domain + '.' if node.domain else ''}{node.op_type})"
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.domain not in ("", "ai.onnx") or node.op_type not in supported
    ]


def check_support(path: Path, model: ir.Model, supported: frozenset[str]) -> None:
    """Raise NotAvailable that names the nodes which the converter does not lower, and what would be needed."""
    if nodes := unsupported_nodes(model, supported):
        raise NotAvailable(f"{path}: {_explained(nodes)}")


def lowering_problems(bundle: Bundle, progress: Progress = lambda step: None) -> list[str]:
    """For a person, before a conversion: one line a graph. Empty where every operator is lowered."""
    log = bundle.folder / "operators.log"
    try:
        supported = supported_operators(log, progress)
    except (NotAvailable, ConversionFailed) as error:
        return [f"whether TFLite has every operator is not known: {error}"]
    log.unlink(missing_ok=True)  # it stays only where it explains something
    found = {
        artifact.file: unsupported_nodes(open_graph(bundle.folder / artifact.file), supported)
        for artifact in bundle.artifacts
        if artifact.format == "onnx"
    }
    return [f"{file}: {_explained(nodes)}" for file, nodes in found.items() if nodes]


def _explained(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    return (
        f"no TFLite file can be made: onnx2tf does not lower {shown}; run it on ONNX Runtime, or export the model with "
        "operators that it lowers in their place"
    )
