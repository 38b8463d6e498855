"""Builds, runs and exports torch modules: an ONNX graph with named inputs and outputs and static shapes."""

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
    """Return the spec of the same tensor with its first axis `batch` times as long.

    Raises InvalidInput for a batch under 1.
    """
    if batch < 1:
        raise InvalidInput(f"batch: expected at least 1, got {batch}")
    return replace(spec, shape=(batch * spec.shape[0], *spec.shape[1:]))


def build_loaded(graph: GraphSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of a graph in eval mode. Its parameters are the tensors of `state` themselves, not copies."""
    with torch.device("meta"):
        module = graph.build()
    module.load_state_dict(state, assign=True)
    return module


def run_module(module: nn.Module, graph: GraphSpec, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a torch module on inputs by name, and return its outputs by name."""
    with torch.no_grad():
        results = module(*(torch.from_numpy(feeds[spec.name]) for spec in graph.inputs))
    results = results if isinstance(results, tuple) else (results,)
    return {spec.name: value.numpy() for spec, value in zip(graph.outputs, results, strict=True)}


@runtime_checkable
class Foldable(Protocol):
    """A module with tables that depend only on its weights."""

    def fold(self) -> None:
        """Compute the tables once and replace their weights by them. The outputs do not change."""


def export(module: nn.Module, graph: GraphSpec, batch: int = 1) -> ir.Model:
    """Trace a module in eval mode into an ONNX graph of opset 20.

    Inputs and outputs have the names, order, dtypes and shapes of `graph`, with the first axis `batch` times as long. A
    Foldable module is folded, which changes it.
    Raises InvalidInput for a module in training mode or a batch under 1, and InvalidArtifact if the graph that the
    exporter made has other inputs or outputs than `graph` states.
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
        # The exporter folds constants below, without the large weights, because it would copy them.
        weights = detach_weights(program.model)
        # Its rules live as long as the process and hold on to the graph that they saw. So it gets copies of the small
        # weights, any of which would keep a whole checkpoint mapped, and a copy of the graph is used afterwards.
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
    """Replace each transpose of a constant matrix, as nn.Linear exports it, by a constant matrix.

    The new constant is computed when it is written.
    """
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
    """Silence the exporter's messages about packages that are not installed, and torch's deprecation warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg|torch")
            yield
    finally:
        logger.setLevel(level)
