"""Convolutions of an ONNX graph as dense layers of what each place sees, for recipes that quantize activations.

ONNX Runtime's integer convolution took 2 to 6 times the time of its float32 one. Its integer product of rows that were
copied together first took 0.2 to 0.6 of it, copying included, from 128 channels on; with fewer, copying eats the gain.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.precision import Recipe
from backends.registry import default_backend
from backends.tensor import TO_NCHW, TO_NHWC, Array, Binding, TensorSpec
from graphs.onnx.file import load, save
from graphs.onnx.readers import Convolution, read_convolution
from graphs.onnx.rewriting import add_sizes, add_tensor, replace_node, set_value_info
from graphs.onnx.weights import lazy_tensor
from toolkit.convert.calibration import Calibrated
from toolkit.convert.quantize.layers import (
    QuantizableLayer,
    Ranges,
    compute_dynamic,
    compute_static,
    drop_unused,
    layers,
    let_go,
    store_float16,
    store_int8,
)
from toolkit.convert.worker.ranges import HistogramObserver

LEAST_CHANNELS = 128


def unfold(graph: ir.Graph, layer: QuantizableLayer) -> QuantizableLayer | None:
    """Put a Gemm over copied rows in the place of a Conv, under its name. None where that gains nothing.

    Only for full convolutions of one image at a time, whose step is 1 or that of their kernel.
    """
    conv, output = read_convolution(layer.node), layer.node.outputs[0]
    if conv is None or not conv.is_full or conv.input_shape[0] != 1 or conv.input_shape[1] < LEAST_CHANNELS:
        return None
    if not conv.makes_patches and conv.strides != (1, 1):
        return None
    name = str(output.name)
    nodes = _patches(graph, conv, name) if conv.makes_patches else _windows(graph, conv, name)
    sizes = add_sizes(graph, f"{name}.places", (conv.output_shape[2] * conv.output_shape[3], -1))
    nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], sizes], name=f"{name}.row_a_place"))
    for node in nodes:
        node.outputs[0].name, node.outputs[0].type = f"{node.name}.out", conv.x.type

    outputs, depth = conv.output_shape[1], conv.input_shape[1] * conv.kernel[0] * conv.kernel[1]
    by_place = lazy_tensor((outputs, depth), conv.values, lambda: _by_place(conv.values, outputs))
    weight = add_tensor(graph, f"{name}.by_place", by_place)
    inputs = [nodes[-1].outputs[0], weight, *layer.node.inputs[2:]]
    gemm = ir.node("Gemm", inputs, {"transB": 1}, name=layer.name)
    set_value_info(gemm.outputs[0], f"{name}.rows", output, (conv.output_shape[2] * conv.output_shape[3], outputs))
    back = (1, *conv.output_shape[2:], outputs)
    last = ir.node("Reshape", [gemm.outputs[0], add_sizes(graph, f"{name}.back", back)], name=f"{name}.unfolded")
    set_value_info(last.outputs[0], f"{name}.last", output, back)
    turned = ir.node("Transpose", last.outputs, {"perm": TO_NCHW}, name=f"{name}.map")
    replace_node(graph, layer.node, [*nodes, gemm, last, turned])
    return QuantizableLayer(gemm, True, weight, 0)


def _windows(graph: ir.Graph, conv: Convolution, name: str) -> list[ir.Node]:
    """What each place sees: its window's pixels, by row and column, each with its channels together."""
    nodes = [ir.node("Transpose", [conv.x], {"perm": TO_NHWC}, name=f"{name}.pixels")]
    if any(conv.pads):
        top, left, bottom, right = conv.pads
        around = add_sizes(graph, f"{name}.around", (0, top, left, 0, 0, bottom, right, 0))
        nodes.append(ir.node("Pad", [nodes[-1].outputs[0], around], name=f"{name}.padded"))
    if conv.kernel == (1, 1):
        return nodes
    source, axes = nodes[-1].outputs[0], add_sizes(graph, f"{name}.axes", (1, 2))
    seen = []
    for row in range(conv.kernel[0]):
        for column in range(conv.kernel[1]):
            start = add_sizes(graph, f"{name}.from{row}.{column}", (row, column))
            end = add_sizes(
                graph, f"{name}.to{row}.{column}", (row + conv.output_shape[2], column + conv.output_shape[3])
            )
            nodes.append(ir.node("Slice", [source, start, end, axes], name=f"{name}.seen{row}.{column}"))
            seen.append(nodes[-1].outputs[0])
    return [*nodes, ir.node("Concat", seen, {"axis": 3}, name=f"{name}.together")]


def _patches(graph: ir.Graph, conv: Convolution, name: str) -> list[ir.Node]:
    """What each place sees: its patch, as depth."""
    nodes: list[ir.Node] = []
    size, source = conv.kernel[0], conv.x
    used = (conv.output_shape[2] * size, conv.output_shape[3] * size)
    if used != conv.input_shape[2:]:  # the last rows and columns make no patch
        ranges = (("from", (0, 0)), ("to", used), ("axes", (2, 3)))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in ranges]
        nodes.append(ir.node("Slice", [source, *bounds], name=f"{name}.used"))
        source = nodes[-1].outputs[0]
    nodes.append(ir.node("SpaceToDepth", [source], {"blocksize": size}, name=f"{name}.patches"))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": TO_NHWC}, name=f"{name}.pixels"))
    return nodes


def _by_place(kernel: ir.TensorProtocol, outputs: int) -> Array:
    """A kernel as rows, (outputs, what a place sees)."""
    # A copy even where a kernel of one pixel has this order already: what it is copied from is unmapped.
    rows: Array = kernel.numpy().transpose(TO_NHWC).copy().reshape(outputs, -1)
    let_go(kernel)
    return rows


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


def observe(source: Path, artifact: Artifact, calibrated: Calibrated, folder: Path) -> dict[str, tuple[float, float]]:
    """Run a float32 graph on its samples, one after the other. Returns name -> (lowest, highest).

    `folder` holds a copy of the graph with more outputs meanwhile.
    """
    model = load(source)
    names = calibrated_tensors(model.graph)
    specs = []
    known = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in [value for node in model.graph for value in node.outputs if value.name in names]:
        if value.shape is None or value.dtype is None or not value.shape.is_static():
            raise InvalidArtifact(f"{source}: does not state the shape of {value.name!r}; export it again")
        shape = tuple(int(size) for size in value.shape if isinstance(size, int))
        specs.append(TensorSpec(str(value.name), shape, value.dtype.numpy().name, None))
        if value.name not in known:
            model.graph.outputs.append(value)
    files = save(model, folder / "ranges.onnx")
    outputs = (*artifact.outputs, *(Binding.same(spec) for spec in specs if spec.name not in known))
    draft = replace(artifact, external_files=tuple(path.name for path in files[1:]), outputs=outputs)
    seen = {name: HistogramObserver() for name in names}
    with default_backend("onnx").session(files[0], draft, 1) as session:
        for run in range(calibrated.runs):
            feeds = calibrated.feeds(run)
            values = feeds | session.run(feeds)
            for name in names:
                seen[name].add(values[name])
    for path in files:
        path.unlink()
    return {name: observed.range(calibrated.method) for name, observed in seen.items()}
