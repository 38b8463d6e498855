"""An ONNX graph by one of the recipes, for ONNX Runtime: float32 in and out.

Written here, weight by weight from the mapped file to the new one. ONNX Runtime's own quantizer makes the same numbers
(the tests compare them), but holds the whole model in memory several times over.
"""

from collections.abc import Collection
from pathlib import Path

import onnx_ir as ir

from backends.errors import InvalidInput
from graphs.onnx_file import load, save
from toolkit.convert.onnx_layers import (
    Ranges,
    compute_dynamic,
    compute_static,
    layers,
    store_float16,
    store_int8,
)
from toolkit.convert.onnx_unfold import unfold
from toolkit.convert.onnx_weights import drop_unused
from toolkit.convert.recipes import Recipe


def quantize_onnx(
    source: Path, target: Path, recipe: Recipe, ranges: Ranges | None = None, kept: Collection[str] = ()
) -> tuple[Path, ...]:
    """Write a prepared float32 graph by `recipe`. Returns the files: target, then external data.

    Memory: what the largest weight needs, a few times. Raises InvalidArtifact for a graph that is not valid, and what
    quantize_model raises.
    """
    return save(quantize_model(load(source), recipe, ranges, kept), target)


def quantize_model(
    model: ir.Model, recipe: Recipe, ranges: Ranges | None = None, kept: Collection[str] = ()
) -> ir.Model:
    """Rewrite a prepared float32 graph by `recipe`, in place. Its weights are read here, and again as it is saved.

    ranges: of the tensors of `calibrated_tensors`, for a calibrated recipe. kept: layers stored as float16 instead.
    Raises InvalidInput for a kept layer that is none.
    """
    found = layers(model.graph)
    names = {layer.name for layer in found}
    if unknown := sorted(set(kept) - names):
        raise InvalidInput(f"the graph has no layer {unknown[0]!r} to keep; there is {', '.join(sorted(names))}")
    quantized: dict[str, tuple[ir.Value, ...]] = {}
    for layer in found:
        if recipe.weights == "float16" or layer.name in kept:
            store_float16(model.graph, layer)
        elif recipe.activations == "dynamic int8" and (dense := layer if layer.dense else unfold(model.graph, layer)):
            compute_dynamic(model.graph, dense, quantized)
        elif not layer.dense or recipe.activations == "float32":
            # Other convolutions compute in float32. The runtime's integer kernels for them are slower than that:
            # measured on pocketseal, 1.3 times the time for full ones and 3.4 times for depthwise ones.
            store_int8(model.graph, layer)
        else:
            assert ranges is not None  # a calibrated recipe
            compute_static(model.graph, layer, ranges, quantized)
    drop_unused(model.graph)
    return model


def calibrated_tensors(graph: ir.Graph) -> list[str]:
    """The names of the tensors whose ranges a calibrated recipe needs: what enters dense layers."""
    return list(dict.fromkeys(str(layer.input.name) for layer in layers(graph) if layer.dense))
