"""Joins lowered slices into one graph, without the transposes that need not be where they were cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.errors import InvalidArtifact
from toolkit.convert.correspondence import TO_NCHW, TO_NHWC, Place
from toolkit.convert.tflite_graph import Graph, Held, Payload, Tensor, read_graph, read_payload
from toolkit.convert.transposes import remove_transposes, replace_tensors, transpose

_SHARED_BYTES = 1 << 20  # larger constants are weights, which no two slices have in common


@dataclass(frozen=True)
class Lowered:
    """A slice's TFLite file, the layout that it gives each input and output ("NCHW", "NHWC" or None), and `held`:
    by name, each tensor of the ONNX graph that toolkit.convert.correspondence found in the float32 file."""

    path: Path
    layouts: dict[str, str | None]
    held: dict[str, Place] = field(default_factory=dict)


def seam_permutation(made: str | None, wanted: str | None) -> tuple[int, ...] | None:
    """The transpose from the layout that one slice makes to the one that another wants; None where they agree."""
    if made == wanted:
        return None
    return TO_NHWC if wanted == "NHWC" else TO_NCHW


def stitch(slices: Sequence[Lowered], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """One graph that runs the slices one after the other; `inputs` and `outputs` are those it has in the end.

    A slice's input is the output of that name of an earlier slice, or else an input of the whole.
    Raises InvalidArtifact where a slice's input is of another type or shape than what it is given.
    """
    graphs = [read_graph(piece.path) for piece in slices]
    whole = Graph(graphs[0].description)
    here: dict[str, tuple[Tensor, str | None]] = {}
    for piece, graph in zip(slices, graphs, strict=True):
        replaced: dict[int, Tensor] = {}
        for name, tensor in graph.inputs.items():
            if name not in here:
                whole.inputs[name] = tensor
                here[name] = (tensor, piece.layouts[name])
                continue
            made, layout = here[name]
            order = seam_permutation(layout, piece.layouts[name])
            node = None if order is None else transpose(made, order, tensor)
            _check_seam(name, made, tensor, order)
            if node is None:
                replaced[id(tensor)] = made
            else:
                whole.nodes.append(node)
        whole.nodes += graph.nodes
        by_name = {tensor.table.name.decode(): tensor for tensor in graph.tensors()}
        # A tensor that the quantizer took out of the graph holds nothing any more.
        whole.held += [
            Held(n, by_name[stored], order) for n, (stored, order) in piece.held.items() if stored in by_name
        ]
        replace_tensors(whole, replaced)
        here |= {
            name: (replaced.get(id(tensor), tensor), piece.layouts[name]) for name, tensor in graph.outputs.items()
        }
        _merge_metadata(whole, graph, piece.path)
    if set(whole.inputs) != set(inputs):
        raise InvalidArtifact(f"the slices need {sorted(whole.inputs)}, expected inputs {sorted(inputs)}")
    whole.inputs = {name: whole.inputs[name] for name in inputs}
    whole.outputs = {name: here[name][0] for name in outputs}
    remove_transposes(whole)
    share_constants(whole)
    return whole


def share_constants(graph: Graph) -> None:
    """Let small constants of the same bytes share them: each slice brought its own copy of what several use."""
    known: dict[bytes, Payload] = {}
    for tensor in graph.tensors():
        if tensor.payload is not None and tensor.payload.size <= _SHARED_BYTES:
            tensor.payload = known.setdefault(read_payload(tensor.payload), tensor.payload)


def _check_seam(name: str, made: Tensor, wanted: Tensor, order: tuple[int, ...] | None) -> None:
    shape = made.shape if order is None else tuple(made.shape[axis] for axis in order)
    if (made.table.type, shape) != (wanted.table.type, wanted.shape):
        raise InvalidArtifact(
            f"the slices do not fit at {name!r}: one makes type {made.table.type} {shape}, "
            f"another wants type {wanted.table.type} {wanted.shape}"
        )


def _merge_metadata(whole: Graph, graph: Graph, path: Path) -> None:
    for name, payload in graph.metadata.items():
        known = whole.metadata.setdefault(name, payload)
        if read_payload(known) != read_payload(payload):
            raise InvalidArtifact(f"{path}: metadata {name.decode()!r} differs from that of the slices before it")
