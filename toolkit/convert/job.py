"""The conversion of one graph: makes its files, finds the bindings of their tensors, compares them with the graph."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import onnx_ir as ir

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress, sha256_of
from backends.crash_check import remember_safe
from backends.errors import InvalidArtifact
from backends.precision import find_recipe
from backends.recipe import Recipe
from backends.registry import default_backend
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.tflite.part import find_crashing_op
from graphs.tflite.tensor_map import map_tensors
from toolkit.convert.binding import Bound, bind_tflite, check_error, relative_error
from toolkit.convert.calibration import Calibrated
from toolkit.convert.converter import WorkerResult, run_worker
from toolkit.convert.operations import counted_types
from toolkit.convert.outcome import Made, file_name
from toolkit.convert.quantize.onnx import calibrated_tensors, observe, quantize_onnx
from toolkit.convert.rules import ConversionRules
from toolkit.convert.weights import check_changed, mostly_float

P = ParamSpec("P")
Result = TypeVar("Result")

# The modules of the functions that the trial process calls first: importing them takes a second.
TRIED = (bind_tflite.__module__, map_tensors.__module__)


@dataclass(frozen=True)
class Reference:
    """The float32 graph, inputs for it by name, and the outputs by name that ONNX Runtime computes for them."""

    path: Path
    artifact: Artifact
    feeds: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Job:
    """The conversion of one graph.

    folder: a hidden folder inside the bundle's. timeout_s: for each run of the converter. trial: the process that
    runs converted files.
    """

    bundle: Bundle
    rules: ConversionRules
    folder: Path
    log: Path
    timeout_s: float
    progress: Progress
    reference: Reference
    trial: SandboxProcess

    def run(self, task: str, **request: object) -> WorkerResult:
        """Send one request to the converter, and return its result. Raises ConversionFailed and NotAvailable."""
        return run_worker({"task": task, **request}, self.folder, self.log, self.timeout_s, self.progress)

    def tflite(
        self, precision: str, route: str, path: Path, tools: dict[str, str], in_float: tuple[str, ...] = ()
    ) -> Made:
        """Run the whole TFLite file at `path`, judge it, and return its artifact.

        in_float: as in FileOutcome. Raises InvalidArtifact if LiteRT cannot run the file, or if it fails as `_judged`
        says; NothingToChange if its weights are those of the float32 file.
        """
        parent = self.reference.artifact
        draft = replace(
            parent,
            file=file_name(parent.role, precision, "tflite", route),
            format="tflite",
            precision=precision,
            route=route,
            sha256=sha256_of(path),
            bytes=path.stat().st_size,
            external_files=(),
            parent=parent.file,
            tools=tools,
            axes=None,
        )
        self.progress(f"comparing {draft.file} with the float32 graph")
        weights, types = counted_types(path)
        recipe = find_recipe(precision)
        check_changed(draft.file, recipe, weights, in_float)
        bound = self.bind(path, draft, self.reference.feeds, self.reference.outputs)
        over = self._judged(path, bound.artifact, lambda: bound.error)
        remember_safe(default_backend("tflite").package, bound.artifact.sha256)
        return Made(bound.artifact, (path,), over, in_float, *types, mostly_float(recipe, weights))

    def bind(self, path: Path, draft: Artifact, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> Bound:
        """Call toolkit.convert.binding.bind_tflite in the trial process.

        Raises the errors of bind_tflite, and InvalidArtifact for a file that crashes LiteRT.
        """
        return self._survived(path, draft, bind_tflite, path, draft, feeds, expected)

    def _judged(self, path: Path, artifact: Artifact, error: Callable[[], float]) -> tuple[str, ...]:
        """Judge a file by the check of the rules, in the trial process. Return a sentence for each number over its
        tolerance.

        error: returns the error that `relative_error` measures. Without a check, as for models whose known samples
        judge the file later, only this error is held to its limit.
        Raises InvalidArtifact if it is over the limit, and for a float32 file that is over its tolerance: the cause is
        then an error of the conversion, not rounding.
        """
        if self.rules.check is None:
            check_error(path, artifact.precision, error())
            return ()
        source, parent = self.reference.path, self.reference.artifact
        over = self._survived(path, artifact, self.rules.check, source, parent, path, artifact)
        if over and artifact.precision == "fp32":
            raise InvalidArtifact(
                f"{source}: no TFLite file can be made: the file of the converter has other outputs than the graph: "
                f"{over[0]}; run the graph on ONNX Runtime"
            )
        return over

    def _survived(
        self, path: Path, draft: Artifact, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs
    ) -> Result:
        """Call a function that runs the file at `path` in the trial process, and return its result.

        Raises InvalidArtifact, with the operator that is to blame if one is found, if the process dies.
        """
        try:
            return self.trial.call(function, *arguments, **named)
        except SandboxDied as ended:
            if draft.format == "onnx":
                raise InvalidArtifact(
                    f"{self.reference.path}: no {draft.precision} ONNX file can be made: the process in which ONNX "
                    f"Runtime {version('onnxruntime')} ran it {ended}; use another precision"
                ) from ended
            found = find_crashing_op(path, self.trial)
            blamed = f"; its {found} crashes when it runs alone" if found else ""
            raise InvalidArtifact(
                f"{self.reference.path}: no {draft.precision} TFLite file can be made: the process in which LiteRT "
                f"{version('ai-edge-litert')} ran it {ended}{blamed}; run "
                "it on ONNX Runtime, or export the model without that operator"
            ) from ended

    def onnx(self, recipe: Recipe, calibrated: Calibrated | None = None, kept: Collection[str] = ()) -> Made:
        """Quantize the graph to an ONNX file by a recipe, with the `kept` layers in FP16, and judge it.

        Raises InvalidArtifact if it fails as `_judged` says, InvalidInput if `kept` names an unknown layer,
        NothingToChange if its weights are those of the float32 graph.
        """
        ranges = None
        if recipe.calibrated and calibrated is not None:
            ranges = self.observe(calibrated, calibrated_tensors)
        self.progress(f"quantizing to {recipe.name} (ONNX Runtime)")
        name = file_name(self.reference.artifact.role, recipe.name, "ort", "direct")
        files = quantize_onnx(self.reference.path, self.folder / name, recipe, ranges, kept)
        return self.judged_onnx(recipe, self.onnx_artifact(recipe, files), files)

    def observe(
        self, calibrated: Calibrated, watched: Callable[[ir.Graph], list[str]]
    ) -> dict[str, tuple[float, float]]:
        """Return the ranges of the tensors that `watched` names, as toolkit.convert.quantize.onnx.observe does."""
        self.progress("calibrating (ONNX Runtime)")
        return observe(self.reference.path, self.reference.artifact, calibrated, self.folder, watched)

    def judged_onnx(self, recipe: Recipe, artifact: Artifact, files: tuple[Path, ...]) -> Made:
        """Judge an ONNX file that was made by a recipe.

        Raises InvalidArtifact if it fails as `_judged` says, NothingToChange if its weights are those of the float32
        graph.
        """
        weights, types = counted_types(files[0])
        check_changed(artifact.file, recipe, weights)
        over = self._judged(files[0], artifact, lambda: self.error(files[0], artifact))
        return Made(artifact, files, over, (), *types, mostly_float(recipe, weights))

    def error(self, path: Path, artifact: Artifact) -> float:
        """Return the error of a file on the reference's inputs, as `relative_error` measures it."""
        return relative_error(path, artifact, self.reference.feeds, self.reference.outputs)

    def onnx_artifact(self, recipe: Recipe, files: tuple[Path, ...]) -> Artifact:
        """Return the artifact (the manifest's entry) of an ONNX file that was made by a recipe."""
        parent = self.reference.artifact
        return replace(
            parent,
            file=file_name(parent.role, recipe.name, "ort", "direct"),
            precision=recipe.name,
            sha256=sha256_of(*files),
            bytes=sum(path.stat().st_size for path in files),
            external_files=tuple(path.name for path in files[1:]),
            parent=parent.file,
            tools={"onnxruntime": version("onnxruntime")},
        )
