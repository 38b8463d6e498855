"""Narrows a graph that no way lowers down to the operators that are to blame, and lowers those by the other route."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from backends.artifact import Artifact
from backends.atomic import replacing_folder
from backends.errors import InvalidArtifact, ToolkitError, one_line
from backends.tensor import Array
from graphs.onnx.part import run_part
from graphs.onnx.rewriting import add_constant
from graphs.tflite.tensor_map import order_of
from toolkit.convert import repro_script
from toolkit.convert.binding import check_error
from toolkit.convert.converter import ConversionFailed
from toolkit.convert.job import Job
from toolkit.convert.slices import (
    CutGraph,
    Slice,
    passing_values,
    slice_artifact,
    slice_between,
    specs_by_name,
    write_slice,
)

SCRIPT = "repro.py"
# The most parts that a part is cut into at a time.
_PARTS = 8
# The most bytes of values between the operators that are held in memory.
_VALUES_BYTES = 1 << 30
_VALUE_BYTES = 8


@dataclass(frozen=True)
class Fault:
    """A part that cannot be lowered. node: such as "'grid' (GridSample)". why: one line.

    files: its ONNX file and, if the converter made one, its TFLite file. orders: the order in which the TFLite file
    stores the axes of its inputs and outputs, by name; empty if LiteRT does not load the file.
    """

    piece: Slice
    node: str
    why: str
    files: tuple[Path, ...]
    orders: dict[str, Any]


@dataclass(frozen=True)
class Narrowed:
    """A graph in parts that are right when they are alone, and the operators of the parts by the other route.

    faults: the operators that neither route lowers; then the graph cannot be lowered.
    """

    cut: CutGraph
    other_route: tuple[str, ...]
    faults: tuple[Fault, ...]


class Parts:
    """The search of one graph for the operators that are to blame.

    Raises InvalidArtifact if the graph does not state a shape, or if its values are too large to be held.
    """

    def __init__(self, job: Job, cut: CutGraph) -> None:
        self._job = job
        self._cut = cut
        _fold_constants(cut.model, job.reference.path.parent)
        self._nodes = list(cut.model.graph)
        self._passing = passing_values(cut.model.graph, self._nodes)
        self._specs = specs_by_name(cut.model)
        values = [value for node in self._nodes for value in node.outputs if value.name]
        shapes = [self._specs[str(value.name)].shape for value in values if str(value.name) in self._specs]
        if sum(_VALUE_BYTES * math.prod(shape) for shape in shapes) > _VALUES_BYTES:
            raise InvalidArtifact(f"{job.reference.path}: its values are too large to be held at once")
        feeds = cut.names.all_carried(job.reference.feeds)
        self._values: dict[str, Array] = feeds | run_part(cut.model, values, feeds, job.reference.path.parent)
        self._number = 0

    def narrow(self) -> Narrowed:
        """Lower the graph in parts, and each part that is wrong in smaller parts, down to single operators."""
        right: dict[int, Slice] = {}
        leaves: dict[tuple[int, int], Fault] = {}
        waiting = self._split(0, len(self._nodes))
        while waiting:
            self._job.progress(f"lowering {len(waiting)} parts, each alone")
            found = self._faults(waiting, "direct")
            right |= {start: self._piece(start, end) for start, end in waiting if (start, end) not in found}
            leaves |= {(start, end): fault for (start, end), fault in found.items() if end == start + 1}
            waiting = [part for start, end in found if end > start + 1 for part in self._split(start, end)]
        still = self._faults(tuple(leaves), "tf")
        for start, end in leaves:
            right[start] = replace(self._piece(start, end), route="tf")
        pieces = tuple(right[start] for start in sorted(right))
        other = tuple(fault.node for bounds, fault in leaves.items() if bounds not in still)
        return Narrowed(replace(self._cut, slices=pieces), other, tuple(leaves[bounds] for bounds in still))

    def _split(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return at most _PARTS parts of the nodes from `start` to `end`, cut where few tensors pass."""
        step = -(-(end - start) // _PARTS)
        places = [start]
        for target in range(start + step, end, step):
            near = range(max(places[-1] + 1, target - step // 2), min(end, target + step // 2 + 1))
            if near:
                places.append(min(near, key=lambda at: (len(self._passing[at]), abs(at - target))))
        return list(zip(places, [*places[1:], end], strict=True))

    def _piece(self, start: int, end: int) -> Slice:
        return slice_between(self._cut.model.graph, self._nodes, start, end, self._passing[end])

    def _named(self, start: int) -> str:
        node = self._nodes[start]
        return f"{self._cut.names.own(str(node.name or node.outputs[0].name))!r} ({node.op_type})"

    def _faults(self, parts: Sequence[tuple[int, int]], route: str) -> dict[tuple[int, int], Fault]:
        """Lower each part by a route, and compare it with ONNX Runtime. Return the faults of those that are wrong."""
        written: dict[tuple[int, int], tuple[Slice, Path, Artifact]] = {}
        for start, end in parts:
            piece, path = self._piece(start, end), self._job.folder / f"part-{self._number}.onnx"
            self._number += 1
            files = write_slice(self._cut.model, piece, path)
            written[start, end] = piece, path, slice_artifact(self._job.reference.artifact, piece, self._specs, files)
        lowered = self._lowered({path: piece for piece, path, _ in written.values()}, route)
        found = {}
        for bounds, (piece, path, draft) in written.items():
            made = lowered[path]
            orders: dict[str, Any] = {}
            if isinstance(made, str):
                found[bounds] = Fault(piece, self._named(bounds[0]), made, (path,), orders)
                continue
            feeds, expected = ({name: self._values[name] for name in names} for names in (piece.inputs, piece.outputs))
            try:
                bound = self._job.bind(made, replace(draft, format="tflite", route=route), feeds, expected)
                sides = (*bound.artifact.inputs, *bound.artifact.outputs)
                orders = {binding.spec.name: order_of(binding) for binding in sides}
                check_error(made, "fp32", bound.error)
            except InvalidArtifact as error:
                why = one_line(error).replace(f"{self._job.folder}/", "")
                found[bounds] = Fault(piece, self._named(bounds[0]), why, (path, made), orders)
        return found

    def _lowered(self, models: dict[Path, Slice], route: str) -> dict[Path, Path | str]:
        """Return the TFLite file of each ONNX file, or the reason why the converter makes none."""
        if route == "direct":
            result = self._job.run("lower", models={path.name: str(path) for path in models}, each=True)
            return {path: result.files.get(path.name) or result.failed[path.name] for path in models}
        made: dict[Path, Path | str] = {}
        for path, piece in models.items():
            apart = replace(self._job, folder=path.with_suffix(".tf"))  # onnx2tf fills the folder
            apart.folder.mkdir()
            copy = Path(shutil.copyfile(path, apart.folder / path.name))  # and overwrites the file
            try:
                asked = {"model": str(copy), "precisions": ["fp32"], "outputs": list(piece.outputs)}
                made[path] = apart.run("lower-tf", **asked).files["fp32"]
            except ConversionFailed as error:
                made[path] = one_line(error)
        return made

    def write_repro(self, fault: Fault) -> Path | None:
        """Write the operator of a fault, its inputs and a script that runs them into a folder beside the bundle.

        Returns the folder, or None if it cannot be written because something else is there.
        """
        bundle = self._job.bundle.folder
        folder = bundle.parent / f"{bundle.name}-{self._job.reference.artifact.role}.fp32.tflite-repro"
        keys = {name: f"input_{i}" for i, name in enumerate(fault.piece.inputs)}
        arrays: dict[str, Any] = {key: self._values[name] for name, key in keys.items()}
        document = {"node": fault.node, "why": fault.why, "inputs": keys, "orders": fault.orders}
        try:
            with replacing_folder(folder, SCRIPT, "repro") as building:
                for file, name in zip(fault.files, ("reference.onnx", "candidate.tflite"), strict=False):
                    shutil.copyfile(file, building / name)
                np.savez(building / "inputs.npz", **arrays)
                (building / "part.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                shutil.copyfile(repro_script.__file__, building / SCRIPT)
        except (ToolkitError, OSError):
            return None
        return folder


def _fold_constants(model: ir.Model, folder: Path) -> None:
    """Make the results of operators that read constants alone constants, in place: a part of them would have no inputs.

    `folder` holds the weights that lie beside the graph.
    """
    known = {value for value in model.graph.initializers.values() if not value.is_graph_input()}
    found: list[ir.Node] = []
    for node in model.graph:
        reads_constants = all(value is None or value in known for value in node.inputs)
        if reads_constants and not any(value.is_graph_output() for value in node.outputs):
            found.append(node)
            known |= set(node.outputs)
    outputs = [value for node in found for value in node.outputs if value.name]
    arrays = run_part(model, outputs, {}, folder, given=()) if outputs else {}
    for value in outputs:
        if any(use.node not in found for use in value.uses()):
            folded = add_constant(model.graph, f"{value.name}_folded", arrays[str(value.name)])
            value.replace_all_uses_with(folded)
    for node in reversed(found):
        model.graph.remove(node, safe=True)
