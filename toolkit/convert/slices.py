"""Cuts an ONNX graph, at places where few tensors pass, into slices whose weights stay under a limit."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from backends.artifact import SIZES, Artifact
from backends.errors import InvalidArtifact, InvalidInput
from backends.sandbox import SandboxProcess
from backends.tensor import Binding, TensorSpec
from graphs.onnx.file import read, save
from graphs.onnx.foreign import without_control_flow
from graphs.onnx.sizes import infer_shapes
from graphs.passes.integers import Range
from graphs.passes.lowering import split_large_gemm
from graphs.passes.pipeline import prepare, prepare_without_faults
from graphs.passes.registry import GraphPass, passes
from graphs.passes.simplify import PRELOADED, steps_with
from toolkit.convert.names import CarriedNames, carry_names

# Far more than it takes to simplify a graph of several gigabytes.
_TIMEOUT_S = 3600.0
# The most weights of one slice. The converter holds several copies: a slice of 490 MB was seen to take 2.4 GB.
DEFAULT_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class Slice:
    """Consecutive nodes of a graph. inputs, outputs: names of ONNX tensors; inputs are inputs of the graph or outputs
    of earlier slices. route: how the slice is lowered, one of backends.recipe.ROUTES."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_bytes: int
    route: str = "direct"


@dataclass(frozen=True)
class CutGraph:
    """A graph as the converter gets it, with the names that it carries, and its slices in running order.

    ranges: the lowest and the highest number of tensors whose scales the graph states, by the names that it carries.
    """

    model: ir.Model
    names: CarriedNames
    slices: tuple[Slice, ...]
    ranges: Mapping[str, Range] = field(default_factory=dict)


def cut_graph(model: ir.Model, limit_bytes: int, route: str = "direct") -> CutGraph:
    """Rename what the converter does not carry, in place, and plan the slices. route: of every slice.

    Raises InvalidInput as `plan` does.
    """
    names = carry_names(model)
    return CutGraph(model, names, tuple(replace(piece, route=route) for piece in plan(model, limit_bytes)))


def open_graph(
    path: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES, steps: Sequence[GraphPass] | None = None
) -> ir.Model:
    """Read a graph to be cut, and rewrite it for TFLite; dense layers with more weights than `limit_bytes` are split.

    steps: the passes that rewrite it, by default all of the stage "lowering". External weights stay in their file until
    a slice is written.
    """
    return rewrite_graph(fixed_graph(path), limit_bytes, steps)[0]


def fixed_graph(path: Path) -> ir.Model:
    """Read a graph of a bundle for TFLite, whose files have fixed sizes: open axes get the sizes that the file states.

    The passes of the export, many of which need sizes, are then run again. A graph without open axes is read as it is.
    """
    model = read(path)
    if model.metadata_props.pop(SIZES, None) is None:
        return model
    model = without_control_flow(model)
    with SandboxProcess(Path(os.devnull), _TIMEOUT_S, PRELOADED) as child:
        model, _ = prepare_without_faults(model, steps_with(child), lambda model: None)
    return infer_shapes(model)


def rewrite_graph(
    model: ir.Model, limit_bytes: int, steps: Sequence[GraphPass] | None = None
) -> tuple[ir.Model, tuple[str, ...]]:
    """Rewrite a graph as `open_graph` does. Returns the graph and the names of the passes that changed it."""
    # Not stepwise: each slice and the whole file are compared with the bundle's graph later.
    split = GraphPass("split_large_gemm", "lowering", 0.0, (), partial(split_large_gemm, limit_bytes=limit_bytes))
    model, changed_by = prepare(model, {}, (*(passes("lowering") if steps is None else steps), split), stepwise=False)
    # A constant made by a node in one slice would be passed on to the slices that use it; each slice has initializers.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model, changed_by


def plan(model: ir.Model, limit_bytes: int) -> tuple[Slice, ...]:
    """Return the slices of a graph in running order; a single slice if all weights fit the limit.

    Of the ends that the limit allows for a slice, the one is taken at which the fewest tensors pass on to later nodes.
    Raises InvalidInput if the weights of a single node are over the limit.
    """
    nodes = list(model.graph)
    passing = passing_values(model.graph, nodes)
    slices = []
    start = 0
    while start < len(nodes):
        end, weight_bytes = start, [0]
        seen: set[ir.Value] = set()
        while end < len(nodes):
            new = {value for value in nodes[end].inputs if value is not None and value.const_value is not None} - seen
            weight_bytes.append(weight_bytes[-1] + sum(value.const_value.nbytes for value in new if value.const_value))
            if weight_bytes[-1] > limit_bytes:
                break
            seen |= new
            end += 1
        if end == start:
            raise InvalidInput(
                f"node {nodes[start].name!r} alone has {weight_bytes[-1]} bytes of weights: "
                f"expected a slice limit of at least as many bytes, got {limit_bytes}"
            )
        if end < len(nodes):
            end = min(range(start + 1, end + 1), key=lambda at: (len(passing[at]), -at))
        slices.append(slice_between(model.graph, nodes, start, end, passing[end]))
        start = end
    return tuple(slices)


def write_slice(model: ir.Model, piece: Slice, path: Path) -> tuple[Path, ...]:
    """Write one slice as an ONNX file. Returns its files: path, then external data."""
    graph = ir.convenience.extract(model.graph, piece.inputs, piece.outputs)
    return save(ir.Model(graph, ir_version=model.ir_version), path)


def passing_values(graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[list[ir.Value]]:
    """Return, for the place before each node and for the end, the values made before the place and used after it."""
    index = {node: i for i, node in enumerate(nodes)}
    places: list[list[ir.Value]] = [[] for _ in range(len(nodes) + 1)]
    for i, node in enumerate(nodes):
        for value in node.outputs:
            last = max((index[use.node] for use in value.uses()), default=i)
            for at in range(i + 1, last + 1):
                places[at].append(value)
    places[len(nodes)] = []
    return places


def slice_between(
    graph: ir.Graph, nodes: Sequence[ir.Node], start: int, end: int, passing: Sequence[ir.Value]
) -> Slice:
    """Return the nodes from `start` to before `end` as a slice. passing: the values at `end`."""
    constants = {
        value: value.const_value.nbytes
        for node in nodes[start:end]
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    made = {value for node in nodes[start:end] for value in node.outputs}
    used = dict.fromkeys(
        value
        for node in nodes[start:end]
        for value in node.inputs
        if value is not None and value.const_value is None and value not in made
    )
    results = [value for value in graph.outputs if value in made]
    seams = [value for value in passing if value in made and value not in results]
    return Slice(
        tuple(str(value.name) for value in used),
        tuple(str(value.name) for value in (*seams, *results)),
        sum(constants.values()),
    )


def slice_artifact(
    parent: Artifact, piece: Slice, specs: Mapping[str, TensorSpec], files: tuple[Path, ...]
) -> Artifact:
    """Return the artifact of a slice, with the fields that a session reads. It is never published, so its hash and size
    are not those of the file.

    parent: of the whole graph. Raises InvalidArtifact for a tensor without a shape.
    """

    def spec(name: str) -> TensorSpec:
        if name not in specs:
            raise InvalidArtifact(f"{parent.file}: does not state the shape of {name!r}; export it again")
        return specs[name]

    return replace(
        parent,
        file=files[0].name,
        inputs=tuple(Binding.same(spec(name)) for name in piece.inputs),
        outputs=tuple(Binding.same(spec(name)) for name in piece.outputs),
        axes=None,
        external_files=tuple(path.name for path in files[1:]),
    )


def specs_by_name(model: ir.Model) -> dict[str, TensorSpec]:
    """Return the specs, by name, of every tensor whose shape the graph states.

    Four axes in the graph's own order are called NCHW here, whatever they mean: only a difference of the file's order
    matters.
    """
    specs = {}
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        if value.shape is not None and value.dtype is not None and value.shape.is_static():
            sizes = tuple(int(size) for size in value.shape if isinstance(size, int))
            layout = "NCHW" if len(sizes) == 4 else None
            specs[str(value.name)] = TensorSpec(str(value.name), sizes, value.dtype.numpy().name, layout)
    return specs


def batches_of(slices: Sequence[Slice]) -> Iterator[list[int]]:
    """Yield batches of neighbouring slices, each for one run of the converter: starting the converter takes seconds."""
    batch: list[int] = []
    for i in range(len(slices)):
        if batch and sum(slices[j].weight_bytes for j in (*batch, i)) > DEFAULT_LIMIT_BYTES:
            yield batch
            batch = []
        batch.append(i)
    yield batch
