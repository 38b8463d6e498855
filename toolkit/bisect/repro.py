"""The smallest part of two files that shows a difference, in a folder that needs nothing of this project."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx_file import save
from graphs.onnx_part import needed_nodes, part_of
from toolkit.bisect import repro_script
from toolkit.bisect.graph import named_values
from toolkit.bisect.measure import Worst
from toolkit.bisect.report import LayerReport
from toolkit.bisect.tensors import Match

SCRIPT = "repro.py"


def write_repro(
    folder: Path,
    reference: ir.Model,
    worst: Worst,
    layer: LayerReport,
    sample: Mapping[str, Array],
    suffix: str,
    described: dict[str, Any],
) -> None:
    """Fill a folder with the one layer of both files, its inputs, and the script that runs them.

    reference.onnx, candidate.tflite or .onnx (by `suffix`), inputs.npz, layer.json and repro.py. described: what
    layer.json says of the two files beside that.
    """
    cut = worst.measured.layer
    values = named_values(reference)
    # What the reference makes the tensor of may be more than what the candidate does: then inputs of the graph come in.
    _, inputs = needed_nodes([cut.value], {values[name] for name in worst.feeds})
    save(part_of(reference, inputs, [cut.value]), folder / "reference.onnx")
    file = f"candidate{suffix}"
    cut.part.write(folder / file)
    feeds = dict(sample) | dict(worst.feeds)
    names = dict.fromkeys([*(str(value.name) for value in inputs), *worst.feeds])
    keys = {name: f"input_{i}" for i, name in enumerate(names)}
    arrays: dict[str, Any] = {key: feeds[name] for name, key in keys.items()}
    np.savez(folder / "inputs.npz", **arrays)
    document = {
        **described,
        "file": file,
        "onnx_node": layer.onnx_node,
        "onnx_op": layer.onnx_op,
        "module": layer.module,
        "operators": layer.tflite_ops,
        "introduced": worst.introduced,
        "reference_inputs": {str(value.name): keys[str(value.name)] for value in inputs},
        "inputs": [_stored(match) | {"array": keys[match.name]} for match in cut.inputs],
        "output": {"name": layer.tensor, "shape": layer.shape, "stored": _stored(cut.match)},
    }
    (folder / "layer.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(repro_script.__file__, folder / SCRIPT)


def _stored(match: Match) -> dict[str, Any]:
    return asdict(match.stored) | {"order": match.order}
