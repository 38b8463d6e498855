"""Reads the number types in which a file stores its weights, and finds files that a precision would not change."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from backends.errors import NotAvailable
from backends.recipe import Recipe
from graphs.tflite.graph import Graph, read_graph

# Integers of these types are sizes and indices, unless they have a scale.
_SIZES = ("int32", "int64", "uint32", "uint64", "bool")
_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_SHOWN = 5

# (type of the values, operator that reads them) -> bytes.
StoredWeights = Counter[tuple[str, str]]
# (type, share of the whole), the largest share first.
Shares = tuple[tuple[str, float], ...]
_LEAST_SHARE = 1e-4


def stored_weights(source: Path | Graph) -> StoredWeights:
    """Return how many bytes of weights an ONNX file, a TFLite file or its graph stores in each type, and for which
    operators.

    Weights are all constants that are floats, or integers with a scale; each counts once, for its first reader. Scales
    and biases count too; sizes and indices do not. Only tables are read, so that memory does not grow with the weights.
    """
    if isinstance(source, Path) and source.suffix == ".tflite":
        source = read_graph(source)
    return StoredWeights(_of_tflite(source) if isinstance(source, Graph) else _of_onnx(source))


def shares(weights: StoredWeights) -> Shares:
    """Return the share of the bytes in each type: (("int8", 0.92), ("float32", 0.08))."""
    by_type: Counter[str] = Counter()
    for (dtype, _), size in weights.items():
        by_type[dtype] += size
    total = by_type.total()
    return tuple((dtype, size / total) for dtype, size in by_type.most_common())


def shown_shares(of_types: Shares) -> str:
    """Return shares as text, such as "92% int8, 8% float32", without those below _LEAST_SHARE; "" without any."""
    return ", ".join(f"{_percent(share)} {dtype}" for dtype, share in of_types if share >= _LEAST_SHARE)


def _percent(share: float) -> str:
    """Return a share in whole percent; no share but all is "100%", and none is "0%"."""
    return "<1%" if share < 0.005 else ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def is_as_named(recipe: Recipe, of_types: Shares) -> bool:
    """Return whether at most half of a file's bytes of weights are float32, or its precision promises no other type."""
    return recipe.weights == "float32" or 2 * dict(of_types).get("float32", 0.0) <= 1


def mostly_float(recipe: Recipe, weights: StoredWeights) -> tuple[str, ...]:
    """Return the operators that keep weights in float32, with their bytes and the largest first, if more than half of
    all bytes are float32 although the precision promises another type; else nothing."""
    return () if is_as_named(recipe, shares(weights)) else _owners(weights, "float32")


class NothingToChange(NotAvailable):
    """Error: a precision would change no weight of a graph. The message names the operators to blame."""


def check_changed(file: str, recipe: Recipe, weights: StoredWeights, in_float: Sequence[str] = ()) -> None:
    """Raise NothingToChange, naming the operators, if a file stores no weight in the type that its precision promises.

    It would be the float32 file under another name. in_float: as in FileOutcome.
    """
    if recipe.weights == "float32" or recipe.keeps_layers or any(dtype == recipe.weights for dtype, _ in weights):
        return
    named = ", ".join(_owners(weights))
    why = f"all weights belong to {named}, which it leaves in float32" if named else "the graph has no weights"
    if in_float:
        why += f"; LiteRT does not load it for {', '.join(in_float)}"
    raise NothingToChange(
        f"{recipe.name} is impossible here: {why}: {file} would be the float32 file under another name; use fp32"
    )


def _owners(weights: StoredWeights, only: str | None = None) -> tuple[str, ...]:
    """Return the operators with the most bytes of weights, of one type or of all, as "Conv (2304 bytes)"."""
    owners: Counter[str] = Counter()
    for (dtype, operator), size in weights.items():
        if only in (None, dtype):
            owners[operator] += size
    return tuple(f"{operator} ({size} bytes)" for operator, size in owners.most_common(_SHOWN))


def _of_tflite(graph: Graph) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    seen = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor is None or tensor.payload is None or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            quantization = tensor.table.quantization
            scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
            if tensor.dtype not in _SIZES or scaled:
                found[tensor.dtype, _OPERATORS.get(node.code[0], "custom")] += tensor.payload.size
    return found


def _of_onnx(path: Path) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for constant, readers in _constants(ir.load(path).graph):
        dtype = constant.dtype.numpy().name
        operator = readers[0].op_type if readers else "output"
        if dtype not in _SIZES or operator == "DequantizeLinear":
            found[dtype, operator] += constant.nbytes
    return found


def _constants(graph: ir.Graph) -> Iterator[tuple[ir.TensorProtocol, list[ir.Node]]]:
    """Yield every constant with its readers, those of subgraphs and of Constant nodes too."""
    for one in (graph, *graph.subgraphs()):
        for value in one.initializers.values():
            if value.const_value is not None:
                yield value.const_value, [use.node for use in value.uses()]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type == "Constant" and (attribute := node.attributes.get("value")) is not None:
            yield attribute.as_tensor(), [use.node for use in node.outputs[0].uses()]
