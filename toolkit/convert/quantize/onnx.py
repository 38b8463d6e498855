"""Quantizes an ONNX graph by a recipe for ONNX Runtime, and observes the ranges of activations on calibration inputs.

For recipes with dynamic int8, large convolutions become dense layers: ONNX Runtime's integer convolution took 2 to 6
times the time of its float32 one. Copying each window to a row and multiplying the rows in integers took 0.2 to 0.6 of
the float32 time, from 128 channels on; with fewer channels, copying costs more than it gains.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from backends.artifact import Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.recipe import Recipe
from backends.registry import default_backend
from backends.tensor import TO_NCHW, TO_NHWC, Array, Binding, TensorSpec
from graphs.onnx.file import load, read, save
from graphs.onnx.readers import Convolution, read_convolution
from graphs.onnx.rewriting import add_sizes, add_tensor, replace_node, set_value_info
from graphs.onnx.weights import lazy_tensor
from toolkit.convert.calibration import Calibrated
from toolkit.convert.quantize.constants import promised_share, store_constants
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
# Of the bytes of weights: a file that stores less in the type of its precision stores its small constants too.
_LEAST_SHARE = 0.1


def unfold(graph: ir.Graph, layer: QuantizableLayer) -> QuantizableLayer | None:
    """Replace a Conv by a Gemm of the same name, whose input has one row for each output pixel: its window's values.

    Returns the new layer. Returns None, and changes nothing, for a grouped or dilated Conv, a batch over 1, fewer than
    LEAST_CHANNELS input channels, or strides over 1 unless the windows are patches (see Convolution.makes_patches).
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
    """Return nodes that make an NHWC map whose channels are the window of each output pixel: for each row and column of
    the kernel, the channels of the pixel there."""
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
    """Return nodes that make an NHWC map whose channels are the patch of each output pixel."""
    nodes: list[ir.Node] = []
    size, source = conv.kernel[0], conv.x
    used = (conv.output_shape[2] * size, conv.output_shape[3] * size)
    if used != conv.input_shape[2:]:  # the last rows or columns do not fill a patch
        ranges = (("from", (0, 0)), ("to", used), ("axes", (2, 3)))
        bounds = [add_sizes(graph, f"{name}.{what}", at) for what, at in ranges]
        nodes.append(ir.node("Slice", [source, *bounds], name=f"{name}.used"))
        source = nodes[-1].outputs[0]
    nodes.append(ir.node("SpaceToDepth", [source], {"blocksize": size}, name=f"{name}.patches"))
    nodes.append(ir.node("Transpose", nodes[-1].outputs, {"perm": TO_NHWC}, name=f"{name}.pixels"))
    return nodes


def _by_place(kernel: ir.TensorProtocol, outputs: int) -> Array:
    """Return a kernel as rows: (outputs, values of a window)."""
    # Copy even a 1x1 kernel, which has this order already: the memory that it lies in is unmapped below.
    rows: Array = kernel.numpy().transpose(TO_NHWC).copy().reshape(outputs, -1)
    let_go(kernel)
    return rows


def quantize_onnx(
    source: Path, target: Path, recipe: Recipe, ranges: Ranges | None = None, kept: Collection[str] = ()
) -> tuple[Path, ...]:
    """Quantize the prepared float32 graph in `source` by `recipe`, and write it. Returns the files: `target`, then
    external data.

    Memory: a few times the largest weight. Raises InvalidArtifact for an invalid graph, and the errors of
    quantize_model.
    """
    return save(quantize_model(load(source), recipe, ranges, kept), target)


def quantize_model(
    model: ir.Model, recipe: Recipe, ranges: Ranges | None = None, kept: Collection[str] = ()
) -> ir.Model:
    """Rewrite a prepared float32 graph by `recipe`, in place, and return it. Its weights are read here, and again when
    it is saved.

    ranges: of the tensors of `calibrated_tensors`, for a calibrated recipe. kept: names of layers whose weights are
    stored as float16 instead. Raises InvalidInput if `kept` names an unknown layer, InvalidArtifact if a range is
    missing.
    """
    found = layers(model.graph)
    names = {layer.name for layer in found}
    if unknown := sorted(set(kept) - names):
        raise InvalidInput(f"the graph has no layer {unknown[0]!r} to keep; there is {', '.join(sorted(names))}")
    others = list(model.graph.initializers)  # before the layers add theirs
    quantized: dict[str, tuple[ir.Value, ...]] = {}
    for layer in found:
        if recipe.weights == "float16" or layer.name in kept:
            store_float16(model.graph, layer)
        elif recipe.activations == "dynamic int8" and (dense := layer if layer.dense else unfold(model.graph, layer)):
            compute_dynamic(model.graph, dense, quantized)
        elif not layer.dense or recipe.activations == "float32":
            # Other convolutions compute in float32, because the runtime's integer kernels for them are slower:
            # measured on pocketseal, 1.3 times the time for full ones and 3.4 times for depthwise ones.
            store_int8(model.graph, layer)
        else:
            assert ranges is not None  # callers of a calibrated recipe give ranges
            compute_static(model.graph, layer, ranges, quantized)
    drop_unused(model.graph)
    store_constants(model.graph, others, recipe)
    drop_unused(model.graph)
    if promised_share(model.graph, recipe) < _LEAST_SHARE:  # a small model, of which nothing would be stored else
        store_constants(model.graph, others, recipe, least_values=2)
        drop_unused(model.graph)
    return model


def calibrated_tensors(graph: ir.Graph) -> list[str]:
    """Return the names of the tensors whose ranges a calibrated recipe needs: the inputs of dense layers."""
    return list(dict.fromkeys(str(layer.input.name) for layer in layers(graph) if layer.dense))


def observe(
    source: Path, artifact: Artifact, calibrated: Calibrated, folder: Path, watched: Callable[[ir.Graph], list[str]]
) -> dict[str, tuple[float, float]]:
    """Run a float32 graph on the calibration inputs, one run at a time. Returns the range of each tensor that `watched`
    names by the calibration's method: name -> (lowest, highest).

    A copy of the graph with more outputs is written to `folder`, and removed at the end. Raises InvalidArtifact if the
    graph does not state the shape of one of these tensors.
    """
    model = read(source)
    names = watched(model.graph)
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
    draft = replace(artifact, external_files=tuple(path.name for path in files[1:]), outputs=outputs, axes=None)
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
