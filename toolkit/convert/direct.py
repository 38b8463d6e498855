"""The direct route: cuts the graph into slices, lowers and quantizes each slice alone, and stitches the results.

So no step holds more than one slice's weights in memory, however large the graph is. A graph whose weights fit the
limit is a single slice.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.errors import InvalidArtifact, NotAvailable
from backends.precision import RECIPES
from backends.registry import default_backend
from backends.tensor import Array
from graphs.passes.integers import Range
from graphs.tflite.constants import store_constants_of_file
from graphs.tflite.graph import Graph
from graphs.tflite.part import RefusedOp
from graphs.tflite.stitch import Lowered, stitch
from graphs.tflite.tensor_map import Order, TensorLocation, map_tensors, order_of
from graphs.tflite.weights_in_place import AT_LEAST_BYTES, use_weights_in_place
from graphs.tflite.writer import WeightRange, begin_file, copy_weights
from toolkit.convert.binding import check_error
from toolkit.convert.calibration import Calibrated, SliceSamples
from toolkit.convert.converter import ConversionFailed
from toolkit.convert.job import Job
from toolkit.convert.outcome import Attempts, Key, Made
from toolkit.convert.quantize.tflite_search import search_tflite
from toolkit.convert.refused import InFloat, NodeNames, quantized_refusals, refusal, unsafe_divisions
from toolkit.convert.resume import Steps, begun_step, joined_step, step_of
from toolkit.convert.slices import (
    CutGraph,
    batches_of,
    slice_artifact,
    specs_by_name,
    write_slice,
)


def convert_direct(
    job: Job,
    steps: Steps,
    cut: CutGraph,
    precisions: Sequence[str],
    calibrated: Calibrated | None,
    attempts: Attempts,
) -> None:
    """Lower a graph, slice by slice, to one TFLite file of each precision, and record each file in `attempts`.

    calibrated: inputs for the precisions that need calibration. Steps that `steps` records as finished are not run
    again. Every file is made of the float32 one: if that fails, all do.
    Raises ConversionFailed if the converter cannot lower a slice, InvalidArtifact if LiteRT cannot run it or, for
    models without a check of whole files, if its outputs are not close to those of the float32 graph.
    """
    work = _Slices(job, steps, cut, precisions, calibrated, attempts)
    batches = list(batches_of(cut.slices))
    restored = work.restore(batches)
    for batch in batches[restored:]:
        work.lower(batch)
        work.quantize(batch)
        work.finish(batch)
    for precision in work.precisions:
        attempts.make(("tflite", precision), partial(work.join, precision))
        if precision == "fp32" and (why := attempts.why(("tflite", "fp32"))) is not None:
            attempts.fail([("tflite", one) for one in work.precisions], InvalidArtifact(why))


# Name in the ONNX graph -> the names that the tensor may have in a file, see toolkit/convert/worker/lowering.py.
TensorNames = dict[str, list[str]]
QUANTIZER = "ai-edge-quantizer"


class _Slices:
    """The slices of one conversion, and the files and values made from them so far."""

    def __init__(
        self,
        job: Job,
        steps: Steps,
        cut: CutGraph,
        precisions: Sequence[str],
        calibrated: Calibrated | None,
        attempts: Attempts,
    ) -> None:
        self._job = job
        self._steps = steps
        self._model = cut.model
        self._slices = cut.slices
        self._names = cut.names
        self._ranges = cut.ranges
        # Slice -> the ranges of its file's tensors that the graph states.
        self._stated: dict[int, dict[str, Range]] = {}
        self._wanted = precisions
        self._attempts = attempts
        self._specs = specs_by_name(cut.model)
        self._shapes = {name: spec.shape for name, spec in self._specs.items()}
        self._values = self._names.all_carried(job.reference.feeds)
        self._layouts: list[dict[str, str | None]] = []
        self._locations: list[dict[str, TensorLocation]] = []
        if calibrated is not None:
            calibrated = replace(calibrated, inputs=self._names.all_carried(calibrated.inputs))
        self._samples = SliceSamples(job.folder, cut.slices, calibrated)
        self._nodes = NodeNames(cut.model, cut.names)
        self._in_float = InFloat(self._nodes)
        self._tools: dict[str, str] = {}

    @property
    def precisions(self) -> list[str]:
        """The precisions that have not failed."""
        return [precision for precision in self._wanted if self._attempts.why(("tflite", precision)) is None]

    def restore(self, batches: Sequence[Sequence[int]]) -> int:
        """Take over the batches that an interrupted conversion finished. Returns their number, from the first on."""
        done = []
        for batch in batches:
            content = self._steps.finished(step_of(batch))
            if content is None or not all(self._has(batch, precision) for precision in self.precisions):
                break
            done.append((batch, content))
        if not done or not (len(done) == len(batches) or self._samples.restore(done[-1][1]["samples"])):
            return 0
        for _, content in done:
            self._layouts += content["layouts"]
            self._locations += [
                {n: (file, o and tuple(o)) for n, (file, o) in locations.items()} for locations in content["locations"]
            ]
            self._tools |= content["tools"]
            self._in_float.named = content["in_float"]
        with np.load(self._values_file(done[-1][0])) as values:
            self._values = dict(values)
        self._job.progress(f"going on after {self._name(done[-1][0][-1])}")
        return len(done)

    def lower(self, batch: Sequence[int]) -> None:
        """Write some slices, lower them, and compare each with ONNX Runtime. Its inputs are the outputs that ONNX
        Runtime computed for the slices before it."""
        models, expected = {}, {}
        for i in batch:
            self._job.progress(f"cutting {self._name(i)}")
            path = self._job.folder / f"slice-{i}.onnx"
            files = write_slice(self._model, self._slices[i], path)
            models[self._name(i)] = path
            feeds = {name: self._values[name] for name in self._slices[i].inputs}
            draft = slice_artifact(self._job.reference.artifact, self._slices[i], self._specs, files)
            if len(self._slices) == 1:  # the whole graph, whose outputs are known
                outputs = self._names.all_carried(self._job.reference.outputs)
            else:
                with default_backend("onnx").session(path, draft, 1) as session:
                    outputs = session.run(feeds)
            expected[i] = (draft, feeds, outputs, files)
            self._values |= outputs
        lowered = self._lowered(models)
        for i, (draft, feeds, outputs, files) in expected.items():
            file, names = lowered[self._name(i)]
            path = file.replace(self._file(i, "fp32"))
            self._job.progress(f"comparing {self._name(i)} with the float32 graph")
            try:
                found = self._job.bind(path, replace(draft, format="tflite", route="direct"), feeds, outputs)
            except InvalidArtifact as error:
                stored = {name: tensor for tensor, likely in names.items() for name in likely}
                source, trial = self._job.reference.path, self._job.trial
                raise refusal(source, path, error, self._nodes, stored, trial) from error
            if self._job.rules.check is None:
                check_error(path, "fp32", found.error)
            self._stated[i] = {
                likely: stated for name, stated in self._ranges.items() for likely in (name, *names.get(name, ()))
            }
            bound = found.artifact
            self._layouts.append({b.spec.name: b.stored.layout for b in (*bound.inputs, *bound.outputs)})
            self._samples.write_inputs(bound.inputs)
            orders = {b.spec.name: order_of(b) for b in (*bound.inputs, *bound.outputs)}
            self._locations.append(self._located(self._name(i), files[0], path, names, orders, feeds))
            for file in files:
                file.unlink()
        needed = {name for piece in self._slices[batch[-1] + 1 :] for name in piece.inputs}
        self._values = {name: value for name, value in self._values.items() if name in needed}

    def _lowered(self, models: Mapping[str, Path]) -> dict[str, tuple[Path, TensorNames]]:
        """Lower the ONNX file of each slice by the route of the slice. Return, by the slices' names, the float32 TFLite
        file and the names that its tensors may have, which TensorFlow's converter does not tell."""
        routes = {self._name(i): piece.route for i, piece in enumerate(self._slices)}
        direct = {name: str(path) for name, path in models.items() if routes[name] == "direct"}
        found: dict[str, tuple[Path, TensorNames]] = {}
        if direct:
            result = self._job.run("lower", models=direct)
            self._tools |= result.tools
            for name in direct:
                names = json.loads(result.files[f"{name}.names"].read_text(encoding="utf-8"))
                found[name] = (result.files[name], names)
        for i, piece in enumerate(self._slices):
            if (name := self._name(i)) in models and piece.route == "tf":
                apart = replace(self._job, folder=self._job.folder / f"tf-{i}")  # onnx2tf fills the folder
                shutil.rmtree(apart.folder, ignore_errors=True)  # of an interrupted conversion
                apart.folder.mkdir()
                outputs = list(piece.outputs)
                result = apart.run("lower-tf", model=str(models[name]), precisions=["fp32"], outputs=outputs)
                self._tools |= result.tools
                found[name] = (result.files["fp32"], {})
        return found

    def _located(
        self,
        name: str,
        onnx: Path,
        tflite: Path,
        names: TensorNames,
        orders: dict[str, Order],
        feeds: dict[str, Array],
    ) -> dict[str, TensorLocation]:
        """Return where the tensors of a slice lie in its file. They serve the search for faults, not the files: after
        an error there are none, and the user is told."""
        try:
            return self._job.trial.call(map_tensors, onnx, tflite, names, self._shapes, orders, feeds)
        except Exception as error:  # noqa: BLE001  whatever it is, the files are not worse for it
            self._attempts.note(f"{name}: `toolkit bisect` will not find layers of the graph in the files", error)
            return {}

    def quantize(self, batch: Sequence[int]) -> None:
        """Quantize some lowered slices to every precision but fp32 that has not failed."""
        integer: list[Key] = [("tflite", precision) for precision in self.precisions if RECIPES[precision].is_integer]
        if integer and len(self._slices) > 1:
            why = "slices meet in float32: give a larger --slice-mb, or int8-static"
            self._attempts.fail(integer, NotAvailable(why))
        if quantized := [precision for precision in self.precisions if precision != "fp32"]:
            calibration = {
                self._name(i): self._samples.request(i, self._layouts[i], self._stated.get(i, {})) for i in batch
            }
            self._quantize(batch, quantized, calibration, self._divisions(batch, quantized))
            for precision in self._searched():
                with self._attempts.guard([("tflite", precision)]):
                    write = partial(self._write_variants, precision, calibration)
                    found = search_tflite(self._job, precision, self._file(0, "fp32"), write, self._stitched)
                    self._attempts.notes += found.notes

    def _searched(self) -> list[str]:
        """Return the precisions of which a search may put layers back to float32: those of graphs in one slice."""
        recipes = [RECIPES[one] for one in self.precisions if len(self._slices) == 1]
        return [
            one.name for one in recipes if self._job.rules.searches_layers and one.calibrated and not one.is_integer
        ]

    def _write_variants(self, precision: str, calibration: Any, variants: Mapping[str, Sequence[str]]) -> None:
        """Quantize the only slice to variants of a precision: name -> tensors whose layers compute in float32."""
        name, in_float = self._name(0), self._in_float.tensors.get(precision, ())
        result = self._job.run(
            "quantize",
            models={name: str(self._file(0, "fp32"))},
            recipes=dict.fromkeys(variants, RECIPES[precision].to_worker(convolutions=True)),
            calibration=calibration,
            in_float={f"{name}.{variant}": list(in_float) for variant in variants},
            float_activations={f"{name}.{variant}": list(layers) for variant, layers in variants.items()},
        )
        for variant in variants:
            key = f"{name}.{variant}"
            if key in result.failed:
                raise ConversionFailed(f"ai-edge-quantizer cannot make it: {result.failed[key]}; log: {self._job.log}")
            made = result.files[key].replace(self._file(0, variant))
            store_constants_of_file(made, RECIPES[precision].weights, in_float)

    def _quantize(
        self,
        batch: Sequence[int],
        precisions: Sequence[str],
        calibration: dict[str, Any],
        in_float: dict[str, list[str]],
        is_last: bool = False,
    ) -> None:
        """Quantize slices to precisions that have not failed, but for the operators that make the tensors `in_float`,
        by slice and precision. Operators that LiteRT does not load are found then, and left in float by another run,
        the last one."""
        models = {self._name(i): str(self._file(i, "fp32")) for i in batch}
        searches = self._job.rules.searches_layers
        recipes = {precision: RECIPES[precision].to_worker(searches) for precision in precisions}
        if not any(RECIPES[precision].calibrated for precision in precisions):
            calibration = {}
        try:
            result = self._job.run(
                "quantize",
                models=models,
                recipes=recipes,
                calibration=calibration,
                in_float=in_float,
                float_activations={},
            )
        except ConversionFailed as error:
            if len(precisions) == 1 or self._attempts.strict:
                self._attempts.fail([("tflite", precision) for precision in precisions], error)
                return
            for precision in precisions:  # the quantizer ended: perhaps one of them is to blame
                self._quantize(batch, [precision], calibration, in_float, is_last)
            return
        self._tools |= result.tools
        for precision in precisions:
            keys = {i: f"{self._name(i)}.{precision}" for i in batch}
            if failed := [result.failed[key] for key in keys.values() if key in result.failed]:
                why = f"ai-edge-quantizer cannot make it: {failed[0]}; log: {self._job.log}"
                self._attempts.fail([("tflite", precision)], ConversionFailed(why))
                continue
            for i, key in keys.items():
                made = result.files[key].replace(self._file(i, precision))
                store_constants_of_file(made, RECIPES[precision].weights, in_float.get(key, ()))
            if not is_last and (refused := self._refused(keys, precision)):
                both = {key: [*in_float.get(key, ()), *refused.get(key, ())] for key in keys.values()}
                self._quantize(batch, [precision], calibration, both, is_last=True)

    def _divisions(self, batch: Sequence[int], precisions: Sequence[str]) -> dict[str, list[str]]:
        """Return the names of the tensors that are divided by computed numbers, by slice and precision, for precisions
        that compute every operator in integers."""
        found: dict[str, list[str]] = {}
        for precision in precisions:
            if RECIPES[precision].calibrated and RECIPES[precision].is_integer:
                divisions = {i: unsafe_divisions(self._file(i, "fp32")) for i in batch}
                found |= self._kept_in_float(divisions, precision)
        return found

    def _refused(self, keys: dict[int, str], precision: str) -> dict[str, list[str]]:
        """Return the names of the tensors whose quantized operators LiteRT does not load, by slice and precision."""
        refused = {i: quantized_refusals(self._file(i, precision), self._job.trial) for i in keys}
        return self._kept_in_float(refused, precision)

    def _kept_in_float(self, operators: Mapping[int, Sequence[RefusedOp]], precision: str) -> dict[str, list[str]]:
        """Return the names of the tensors that operators make, by slice and precision."""
        found: dict[str, list[str]] = {}
        for i, refused in operators.items():
            stored = {tensor: name for name, (tensor, _) in self._locations[i].items()}
            if refused:
                found[f"{self._name(i)}.{precision}"] = self._in_float.keep(precision, refused, stored)
        return found

    def finish(self, batch: Sequence[int]) -> None:
        """Record that some slices are finished, and remove the files that are not needed any more."""
        for precision in self.precisions:
            self._steps.finish(step_of(batch, precision), tuple(self._file(i, precision) for i in batch), {})
        arrays: dict[str, Any] = self._values
        np.savez(self._values_file(batch), **arrays)
        needed_samples = self._samples.needed_state(batch[-1])
        content = {
            "layouts": [self._layouts[i] for i in batch],
            "locations": [self._locations[i] for i in batch],
            "tools": self._tools,
            "in_float": self._in_float.named,
            "samples": needed_samples,
        }
        self._steps.finish(step_of(batch), (self._values_file(batch),), content)
        self._samples.forget(batch[-1])
        if "fp32" not in self.precisions:
            for i in batch:
                self._file(i, "fp32").unlink()

    def join(self, precision: str) -> Made:
        """Stitch the slices of one precision into one file, and compare that file with the float32 graph."""
        reference = self._job.reference.artifact
        path = self._job.folder / f"{reference.role}.{precision}.tflite"
        if self._steps.finished(joined_step(precision)) is None:
            self._job.progress(f"stitching {len(self._slices)} slices ({precision})")
            if (begun := self._steps.finished(begun_step(precision))) is None:
                weights = begin_file(self._stitched(precision), path)
                begun = {"weights": [[w.file.name, w.offset, w.size, w.start] for w in weights]}
                self._steps.finish(begun_step(precision), (path,), begun)
            # A slice is removed once its weights are copied, so that the disk never holds all weights twice. A slice
            # that is missing was copied by an interrupted conversion.
            files = [(self._job.folder / name, *place) for name, *place in begun["weights"]]
            copy_weights((WeightRange(*w) for w in files if w[0].exists()), path, copied=Path.unlink)
            self._steps.finish(joined_step(precision), (path,), {})
        tools = {tool: self._tools[tool] for tool in self._tools if precision != "fp32" or tool != QUANTIZER}
        route = "tf" if all(piece.route == "tf" for piece in self._slices) else "direct"
        return self._job.tflite(precision, route, path, tools, tuple(self._in_float.named.get(precision, ())))

    def _stitched(self, precision: str) -> Graph:
        reference = self._job.reference.artifact
        made = zip(self._layouts, self._locations, strict=True)
        lowered = [Lowered(self._file(i, precision), layouts, locations) for i, (layouts, locations) in enumerate(made)]
        inputs, outputs = (
            [self._names.carried(b.spec.name) for b in bindings] for bindings in (reference.inputs, reference.outputs)
        )
        graph = stitch(lowered, inputs, outputs)
        self._names.restore(graph)
        if sum(piece.weight_bytes for piece in self._slices) >= AT_LEAST_BYTES:
            use_weights_in_place(graph)
        return graph

    def _has(self, batch: Sequence[int], precision: str) -> bool:
        names = (joined_step(precision), begun_step(precision), step_of(batch, precision))
        return any(self._steps.finished(name) is not None for name in names)

    def _name(self, i: int) -> str:
        return f"slice {i + 1} of {len(self._slices)}"

    def _file(self, i: int, precision: str) -> Path:
        return self._job.folder / f"slice-{i}.{precision}.tflite"

    def _values_file(self, batch: Sequence[int]) -> Path:
        return self._job.folder / f"{step_of(batch)}.npz"
