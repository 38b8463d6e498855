"""A backend in one file: ONNX files on the reference evaluator of the onnx package, which uses numpy alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from backends.errors import InvalidArtifact, one_line
from backends.registry import BackendSpec
from backends.session import Session
from backends.tensor import Array


class ReferenceSession(Session):
    """A session that runs each node of a graph by its definition. It always uses one thread."""

    def _open(self) -> None:
        try:
            self._evaluator = ReferenceEvaluator(onnx.load(self.path))
        except Exception as error:  # protobuf and onnx raise errors of many kinds
            raise InvalidArtifact(f"{self.path}: the reference evaluator cannot load it: {one_line(error)}") from error
        for kind, names, bindings in (
            ("inputs", self._evaluator.input_names, self.artifact.inputs),
            ("outputs", self._evaluator.output_names, self.artifact.outputs),
        ):
            expected = [binding.stored.name for binding in bindings]
            if sorted(names) != sorted(expected):
                raise InvalidArtifact(f"{self.path}: {kind}: the manifest says {expected}, the file has {names}")
        self._names = [binding.stored.name for binding in self.artifact.outputs]

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            with np.errstate(all="ignore"):
                results = self._evaluator.run(self._names, dict(feeds))
        except Exception as error:  # its operators are plain Python and raise any kind of error
            raise InvalidArtifact(f"{self.path}: the reference evaluator failed: {one_line(error)}") from error
        return {name: np.array(value) for name, value in zip(self._names, results, strict=True)}

    def _close(self) -> None:
        del self._evaluator

    def describe(self) -> dict[str, Any]:
        return {"evaluator": "onnx.reference", "nodes": len(self._evaluator.nodes_)}


BACKEND = BackendSpec(
    name="reference",
    title="ONNX reference evaluator",
    formats=("onnx",),
    package="onnx",
    session=ReferenceSession,
    precisions=("fp32",),  # a run takes a second: fast enough for a check, too slow for every file
)
