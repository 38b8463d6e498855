"""The repro of the worst layer: the smallest part of both files, its inputs, and a script that runs it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx.file import save
from graphs.onnx.part import named_values, needed_nodes, part_of
from toolkit.bisect import repro_script
from toolkit.bisect.candidates import MatchedTensor
from toolkit.bisect.measure import Worst
from toolkit.bisect.result import LayerReport

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
    """Write the worst layer of both files, its inputs and a script that runs them into `folder`.

    The files are reference.onnx, candidate.tflite or .onnx (by `suffix`), inputs.npz, layer.json and repro.py.
    described: further entries of layer.json about the two files.
    """
    cut = worst.measured.layer
    values = named_values(reference)
    # The reference may need more tensors than the candidate's layer reads; these are inputs of the whole graph.
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


def _stored(match: MatchedTensor) -> dict[str, Any]:
    return asdict(match.stored) | {"order": match.order}
