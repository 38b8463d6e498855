"""Constants that the quantizer leaves in float32 are stored in the type of the precision; results stay near."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.tensor import Array
from graphs.tflite.constants import store_constants, store_constants_of_file
from graphs.tflite.graph import Graph, Node, Payload, Tensor, read_graph
from graphs.tflite.writer import write_graph

_OPERATORS, _TYPES = schema.BuiltinOperator, schema.TensorType
_CODES = {"float32": _TYPES.FLOAT32, "int32": _TYPES.INT32, "int64": _TYPES.INT64}
Sizes = tuple[int, ...]


def tensor(name: str, shape: Sizes, dtype: str = "float32", values: Array | None = None) -> Tensor:
    table = schema.TensorT()
    table.name, table.shape, table.type, table.hasRank = name.encode(), list(shape), _CODES[dtype], True
    return Tensor(table, None if values is None else Payload(None, 0, values.nbytes, values.tobytes()))


def graph(code: int, options: Any, x: Tensor, weight: Array, y: Sizes, weight_first: bool = False) -> Graph:
    """One operator that reads a constant "w"."""
    operator = schema.OperatorT()
    operator.builtinOptions = options
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    w, made = tensor("w", weight.shape, values=weight.astype(np.float32)), tensor("y", y)
    given: list[Tensor | None] = [w, x] if weight_first else [x, w]
    if code == _OPERATORS.CONV_3D:
        given.append(tensor("bias", y[-1:], values=np.zeros(y[-1], np.float32)))
    return Graph(b"", {"x": x}, {"y": made}, [Node(operator, (code, None, 1), given, [made], [])])


def gather(ids: Sizes, dtype: str = "int32", rows: int = 500, columns: int = 64) -> Graph:
    weight = np.random.default_rng(0).normal(0, 0.1, (rows, columns))
    weight *= np.exp(np.random.default_rng(1).normal(0, 1, (rows, 1)))
    ids_given = tensor("x", ids, dtype)
    return graph(_OPERATORS.GATHER, schema.GatherOptionsT(), ids_given, weight, (*ids, columns), weight_first=True)


def volume() -> Graph:
    options = schema.Conv3DOptionsT()
    options.strideD = options.strideH = options.strideW = 1
    options.dilationDFactor = options.dilationHFactor = options.dilationWFactor = 1
    options.padding = schema.Padding.VALID
    weight = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 8, 24))
    return graph(_OPERATORS.CONV_3D, options, tensor("x", (1, 4, 6, 6, 8)), weight, (1, 2, 4, 4, 24))


def stack() -> Graph:
    weight = np.random.default_rng(0).normal(0, 0.1, (4, 32, 48))
    return graph(_OPERATORS.BATCH_MATMUL, schema.BatchMatMulOptionsT(), tensor("x", (4, 6, 32)), weight, (4, 6, 48))


def total(weight: Array | None = None) -> Graph:
    values = np.random.default_rng(0).normal(0, 1, (1, 80, 64)) if weight is None else weight
    return graph(_OPERATORS.ADD, schema.AddOptionsT(), tensor("x", values.shape), values, values.shape)


def run(path: Path) -> Array:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for seed in (1, 2, 1):
        rng = np.random.default_rng(seed)
        values = (
            rng.normal(0, 1, given["shape"]) if given["dtype"] == np.float32 else rng.integers(0, 500, given["shape"])
        )
        interpreter.set_tensor(given["index"], values.astype(given["dtype"]))
        interpreter.invoke()
        results.append(interpreter.get_tensor(made["index"]))
    np.testing.assert_array_equal(results[0], results[2])
    return np.stack(results)


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize(
    ("make", "stored", "error"),
    [
        (lambda: gather((1, 6)), "int8", 0.01),
        (lambda: gather((6,)), "int8", 0.01),
        (lambda: gather((2, 3, 5), "int64"), "int8", 0.01),
        (volume, "int8", 0.01),
        (stack, "float16", 4e-4),  # the quantizer stores it as int8 before
        (total, "float16", 4e-4),
    ],
    ids=["rows", "rows by a vector", "rows by int64", "Conv3D", "stack", "positions"],
)
def test_a_constant_is_stored_and_computes_nearly_the_same(
    make: Callable[[], Graph], stored: str, error: float, weights: str, tmp_path: Path
) -> None:
    plain, small = tmp_path / "plain.tflite", tmp_path / "small.tflite"
    write_graph(make(), plain)
    write_graph(make(), small)
    store_constants_of_file(small, weights)
    expected, got = run(plain), run(small)
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < (4e-4 if weights == "float16" else error)
    weight = next(t for t in read_graph(small).tensors() if t.name.startswith("w/") and t.payload is not None)
    assert weight.dtype == ("float16" if weights == "float16" else stored)
    bits = {"int8": 1, "float16": 2}[weight.dtype]
    assert weight.payload is not None
    assert weight.payload.size == bits * np.prod(weight.shape)


def test_a_second_call_stores_nothing_more() -> None:
    changed = gather((1, 6))
    assert store_constants(changed, "int8") == 1
    assert store_constants(changed, "int8") == 0


def test_the_floor_of_a_mask_and_the_constants_of_a_refused_operator_stay() -> None:
    mask = np.zeros((1, 80, 80))
    mask[0][np.triu_indices(80, 1)] = -1e38
    assert store_constants(total(mask), "float16") == 0
    assert store_constants(total(), "float16", in_float=("y",)) == 0
    assert store_constants(total(), "float16") == 1


@pytest.mark.parametrize(("shape", "weights", "count"), [((1, 8), "int8", 1), ((8,), "int8", 0), ((8,), "float16", 1)])
def test_small_constants_are_stored_where_nothing_else_is(shape: Sizes, weights: str, count: int) -> None:
    small = np.random.default_rng(0).normal(0, 1, shape)
    assert store_constants(total(small), weights) == count
    both = total(small)
    both.nodes += gather((1, 6)).nodes
    assert store_constants(both, weights) == 1  # the table alone
