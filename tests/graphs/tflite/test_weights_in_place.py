"""Layers whose weights are read where they lie compute the same, and their weights are in memory once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.tensor import Array
from graphs.tflite.graph import Graph, Node, Payload, Tensor, TensorOrigin, read_graph
from graphs.tflite.weights_in_place import use_weights_in_place
from graphs.tflite.writer import write_graph

FLOAT32, FLOAT16 = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16
DENSE, DEQUANTIZE = schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.DEQUANTIZE


def tensor(name: str, shape: tuple[int, ...], values: Array | None = None) -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.hasRank = name.encode(), list(shape), True
    table.type = FLOAT16 if values is not None and values.dtype == np.float16 else FLOAT32
    return Tensor(table, None if values is None else Payload(None, 0, values.nbytes, values.tobytes()))


def layers(rows: int, sizes: tuple[int, ...], half: bool = False, bias: bool = True, activation: int = 0) -> Graph:
    """Fully connected layers one after the other: sizes[0] inputs, sizes[-1] outputs."""
    random = np.random.default_rng(0)
    graph = Graph(b"")
    x = graph.inputs["x"] = tensor("x", (rows, sizes[0]))
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        values = random.standard_normal((outputs, inputs), dtype=np.float32) / np.float32(np.sqrt(inputs))
        weight = tensor(f"weight{i}", values.shape, None if half else values)
        if half:
            operator = schema.OperatorT()
            operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
            operator.builtinOptions = schema.DequantizeOptionsT()
            stored = tensor(f"half{i}", values.shape, values.astype(np.float16))
            graph.nodes.append(Node(operator, (DEQUANTIZE, None, 3), [stored], [weight], []))
        operator = schema.OperatorT()
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
        operator.builtinOptions.fusedActivationFunction = activation
        given: list[Tensor | None] = [x, weight]
        if bias:
            given.append(tensor(f"bias{i}", (outputs,), random.standard_normal(outputs, dtype=np.float32)))
        x = tensor(f"y{i}", (rows, outputs))
        graph.nodes.append(Node(operator, (DENSE, None, 1), given, [x], []))
    graph.outputs["y"] = x
    return graph


def run(path: Path) -> Array:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], np.random.default_rng(1).standard_normal(detail["shape"], dtype=np.float32))
    interpreter.invoke()
    result: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


@pytest.mark.parametrize("half", [False, True])
def test_a_layer_s_result_still_holds_the_tensor_of_the_graph(half: bool, tmp_path: Path) -> None:
    graph = layers(5, (48, 64, 40), half)
    graph.origins = [TensorOrigin(f"onnx{i}", node.outputs[0], None) for i, node in enumerate(dense(graph))]
    assert use_weights_in_place(graph) == 2
    write_graph(graph, tmp_path / "in-place.tflite")
    read = read_graph(tmp_path / "in-place.tflite")
    assert [(one.name, one.tensor.table.name) for one in read.origins] == [("onnx0", b"y0"), ("onnx1", b"y1")]


def dense(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.code[0] == DENSE]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_same_comes_out(half: bool, bias: bool, tmp_path: Path) -> None:
    paths = tmp_path / "plain.tflite", tmp_path / "in-place.tflite"
    plain, changed = (layers(5, (48, 64, 40), half, bias) for _ in paths)
    assert use_weights_in_place(changed) == 2
    operators = {node.code[0] for node in changed.nodes}
    assert not operators & {DENSE, DEQUANTIZE}
    write_graph(plain, paths[0]), write_graph(changed, paths[1])
    expected, got = map(run, paths)
    # The sums are the same ones, added up in another order.
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_what_would_not_gain_is_left_alone() -> None:
    for graph in (layers(64, (48, 64)), layers(1, (48, 64)), layers(5, (48, 64), activation=1)):
        before = list(graph.nodes)
        assert use_weights_in_place(graph) == 0
        assert graph.nodes == before


def test_half_precision_weights_that_others_read_too_are_left_alone() -> None:
    graph = layers(5, (48, 48), half=True)
    graph.nodes.append(layers(5, (48, 48), half=True).nodes[1])
    graph.nodes[-1].inputs[1] = graph.nodes[1].inputs[1]
    assert use_weights_in_place(graph) == 0


# In a process that has freed nothing which the runtime could take over.
_GROWTH = """
import sys
from pathlib import Path
from ai_edge_litert.interpreter import Interpreter
def own_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
before = own_bytes()
interpreter.allocate_tensors()
interpreter.invoke()
print(own_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what memory is made of")
@pytest.mark.parametrize("half", [False, True])
def test_weights_are_in_memory_once(half: bool, tmp_path: Path) -> None:
    size = 2048

    def grows_by(change: Callable[[Graph], object]) -> int:
        graph, path = layers(4, (size,) * 7, half), tmp_path / "layers.tflite"
        change(graph)
        write_graph(graph, path)
        command = [sys.executable, "-c", _GROWTH, str(path)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    weights = 6 * 4 * size**2  # as float32
    assert grows_by(lambda graph: None) > 0.9 * weights
    # One layer's, as float32 and as they are stored, where they have to become float32.
    assert grows_by(use_weights_in_place) < (weights / 6 * 1.75 if half else weights / 6)
