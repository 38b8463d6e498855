"""A torch module to ONNX, with named inputs and outputs and static shapes."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, runtime_checkable

import onnx_ir as ir
import torch
from torch import Tensor, nn

from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Array, TensorSpec, probe
from graphs.networks.spec import GraphSpec
from graphs.onnx.file import OPSET
from graphs.onnx.modules import read_scopes
from graphs.onnx.readers import read_permutation
from graphs.onnx.weights import attach_weights, detach_weights, transposed


def with_batch(spec: TensorSpec, batch: int) -> TensorSpec:
    """Return the same tensor, its first axis `batch` times as long. Raises InvalidInput for a batch under 1."""
    if batch < 1:
        raise InvalidInput(f"batch: expected at least 1, got {batch}")
    return replace(spec, shape=(batch * spec.shape[0], *spec.shape[1:]))


def build_loaded(graph: GraphSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a graph in eval mode, on the very tensors of `state`: nothing is copied."""
    with torch.device("meta"):
        module = graph.build()
    module.load_state_dict(state, assign=True)
    return module


def run_module(module: nn.Module, graph: GraphSpec, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs of torch by name, as float32."""
    with torch.no_grad():
        results = module(*(torch.from_numpy(feeds[spec.name]) for spec in graph.inputs))
    results = results if isinstance(results, tuple) else (results,)
    return {spec.name: value.numpy() for spec, value in zip(graph.outputs, results, strict=True)}


@runtime_checkable
class Foldable(Protocol):
    """A module with tables that depend on its weights alone."""

    def fold(self) -> None:
        """Compute the tables once and put them in the place of their weights. The outputs do not change."""


def export(module: nn.Module, graph: GraphSpec, batch: int = 1) -> ir.Model:
    """Trace a module in eval mode into an ONNX graph of opset 20.

    Inputs and outputs have the names, order, dtypes and shapes of `graph`, with the batch size given. A module that
    folds is folded.
    Raises InvalidArtifact if the graph came out with another signature.
    """
    if module.training:
        raise InvalidInput(f"{graph.role}: expected a module in eval mode; call .eval() first")
    if isinstance(module, Foldable):
        module.fold()
    inputs = tuple(with_batch(spec, batch) for spec in graph.inputs)
    outputs = tuple(with_batch(spec, batch) for spec in graph.outputs)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in probe(inputs).values()),
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
        assert program is not None  # None only when a file is named
        # The exporter's own folding, without the weights of which it would make second copies.
        weights = detach_weights(program.model)
        # Its rules live as long as the process and hold on to the graph that they saw. So it gets copies of the small
        # weights, any of which would keep a whole checkpoint mapped, and we go on with a copy of the graph.
        for value in program.model.graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
        program.optimize()
    model = ir.from_proto(ir.to_proto(program.model))
    attach_weights(model, weights)
    _fold_transposes(model)
    read_scopes(model)
    _check_signature(model.graph.inputs, inputs, graph.role)
    _check_signature(model.graph.outputs, outputs, graph.role)
    return model


def _fold_transposes(model: ir.Model) -> None:
    """A transpose of a constant matrix, as nn.Linear exports it, becomes a constant that is computed when written."""
    for node in list(model.graph):
        matrix = node.inputs[0]
        if read_permutation(node) != (1, 0) or matrix is None or not matrix.is_initializer() or not matrix.const_value:
            continue
        output = node.outputs[0]
        tensor = transposed(matrix.const_value)
        name = output.name
        value = ir.Value(name=f"{name}.constant", type=output.type, shape=output.shape, const_value=tensor)
        model.graph.initializers.add(value)
        output.replace_all_uses_with(value)
        model.graph.remove(node, safe=True)
        value.name = name
        if not matrix.uses() and matrix.name is not None:
            del model.graph.initializers[matrix.name]


def _check_signature(values: Sequence[ir.Value], specs: tuple[TensorSpec, ...], role: str) -> None:
    got = [(value.name, tuple(value.shape or ()), value.dtype and value.dtype.numpy().name) for value in values]
    expected = [(spec.name, spec.shape, spec.dtype) for spec in specs]
    if got != expected:
        raise InvalidArtifact(f"{role}: the exported graph has {got}, expected {expected}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about packages that are not here and about torch's own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg|torch")
            yield
    finally:
        logger.setLevel(level)
