"""Would ONNX Runtime's own attention operators be faster than the products and the Softmax that our graphs run?

    python -m benchmarks.fused_attention [--rounds N] [--json FILE]

One attention of each network, at its full size, with the transposes around it: as it stands in a prepared graph, as
com.microsoft.MultiHeadAttention, and as Attention of ONNX's opset 23. One round runs each of them twice, in random
order, and the second run counts; a ratio is the median over the rounds. `a_run_ms` times `layers` is what the layers
of a whole model would save.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from backends.machine import default_threads, describe

WRITTEN, CONTRIB, STANDARD = "two products and a softmax", "MultiHeadAttention", "Attention"
WARM_UPS = 3


@dataclass(frozen=True)
class Case:
    """Queries (batch, queries, heads * features) over keys and values. mask: (batch, heads, queries, keys) is added to
    the scores: relative positions of SAM, or what must not be seen."""

    name: str
    layers: int
    batch: int
    heads: int
    queries: int
    keys: int
    features: int
    mask: bool = False


CASES = (
    Case("CLIP of DeepEncoder base", 24, 1, 16, 257, 257, 64),
    Case("a window of SAM, positions as a mask", 8, 25, 12, 196, 196, 64, mask=True),
    Case("512 of 4096 queries of SAM's global attention, positions as a mask", 32, 1, 12, 512, 4096, 64, mask=True),
    Case("DINOv3 of a frame", 12, 1, 6, 261, 261, 64),
    Case("SmolLM2, 32 tokens", 30, 1, 9, 32, 32, 64, mask=True),
    Case("a step of the large captioner", 3, 1, 8, 1, 101, 64, mask=True),
)


def models(case: Case) -> dict[str, onnx.ModelProto]:
    """The attention in each form: q, k, v and mask to y (batch, queries, heads * features)."""
    return {
        WRITTEN: _model(case, _written(case), opset=20),
        CONTRIB: _model(case, [_contrib(case)], opset=20),
        STANDARD: _model(case, [_standard(case)], opset=23),
    }


def _written(case: Case) -> list[onnx.NodeProto]:
    nodes = []
    for name in ("q", "k", "v"):
        order = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes.append(helper.make_node("Reshape", [name, "apart"], [f"{name}_apart"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_apart"], [f"{name}_heads"], perm=order))
    nodes.append(helper.make_node("Mul", ["q_heads", "scale"], ["scaled"]))
    nodes.append(helper.make_node("MatMul", ["scaled", "k_heads"], ["scores"]))
    if case.mask:
        nodes.append(helper.make_node("Add", ["scores", "mask"], ["masked"]))
    nodes.append(helper.make_node("Softmax", ["masked" if case.mask else "scores"], ["weights"], axis=-1))
    nodes.append(helper.make_node("MatMul", ["weights", "v_heads"], ["seen"]))
    nodes.append(helper.make_node("Transpose", ["seen"], ["turned"], perm=[0, 2, 1, 3]))
    return [*nodes, helper.make_node("Reshape", ["turned", "flat"], ["y"])]


def _contrib(case: Case) -> onnx.NodeProto:
    inputs = ["q", "k", "v", "", "", "mask"] if case.mask else ["q", "k", "v"]
    return helper.make_node("MultiHeadAttention", inputs, ["y"], domain="com.microsoft", num_heads=case.heads)


def _standard(case: Case) -> onnx.NodeProto:
    inputs = ["q", "k", "v", "mask"] if case.mask else ["q", "k", "v"]
    return helper.make_node("Attention", inputs, ["y"], q_num_heads=case.heads, kv_num_heads=case.heads)


def _model(case: Case, nodes: list[onnx.NodeProto], opset: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, s) for name, s in _shapes(case).items()]
    output = helper.make_tensor_value_info(
        "y", onnx.TensorProto.FLOAT, (case.batch, case.queries, case.heads * case.features)
    )
    constants = {
        "apart": np.array([case.batch, -1, case.heads, case.features], np.int64),
        "flat": np.array([case.batch, case.queries, -1], np.int64),
        "scale": np.array(case.features**-0.5, np.float32),
    }
    read = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read]
    graph = helper.make_graph(nodes, "attention", inputs, [output], initializers)
    versions = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10 if opset < 21 else 11)


def _shapes(case: Case) -> dict[str, tuple[int, ...]]:
    dim = case.heads * case.features
    shapes = {
        "q": (case.batch, case.queries, dim),
        "k": (case.batch, case.keys, dim),
        "v": (case.batch, case.keys, dim),
    }
    return shapes | ({"mask": (case.batch, case.heads, case.queries, case.keys)} if case.mask else {})


def measure(case: Case, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of each form and its ratio to ours, and how far its result is from ours."""
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in _shapes(case).items()}
    sessions = {name: _session(model, threads) for name, model in models(case).items()}
    results = {name: session.run(None, feeds)[0] for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(WARM_UPS + rounds):
        for name in random.permutation(list(sessions)):
            sessions[name].run(None, feeds)
            start = time.perf_counter()
            sessions[name].run(None, feeds)
            if turn >= WARM_UPS:
                times[name].append(1e3 * (time.perf_counter() - start))
    ours = np.array(times[WRITTEN])
    forms = {
        name: {
            "a_run_ms": round(float(np.median(values)), 4),
            "of_ours": round(float(np.median(np.array(values) / ours)), 3),
            "max_abs_difference": float(np.abs(results[name] - results[WRITTEN]).max()),
        }
        for name, values in times.items()
    }
    return {"case": case.name, "layers": case.layers, **forms}


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = default_threads()
    rows = []
    for case in CASES:
        rows.append(measure(case, arguments.rounds, threads))
        print(rows[-1], flush=True)
    if arguments.json:
        result = {"machine": describe(), "threads": threads, "rounds": arguments.rounds, "attentions": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
