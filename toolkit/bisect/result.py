"""The result of a bisection; it is written as JSON and read back strictly, also where onnx is missing."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from backends.bundle import WeightsOrigin


@dataclass(frozen=True)
class LayerReport:
    """One layer of the candidate, named after the reference's tensor that it computes and the node that computes it
    there.

    inherited: error of the tensor when the layer reads the results of the candidate's earlier layers; introduced: error
    when it reads the reference's values. Both are noise over signal, of all samples together, see
    toolkit.metrics.error: 0.0 for none, at most LARGEST. tflite_ops: the candidate's operators, also those of an ONNX
    candidate. module: the torch module, "" if it is not known.
    """

    tensor: str
    onnx_node: str
    onnx_op: str
    tflite_ops: tuple[str, ...]
    module: str
    shape: tuple[int, ...]
    inherited: float
    introduced: float


@dataclass(frozen=True)
class Unmatched:
    """A tensor of the reference at which the candidate was not cut, and the reason."""

    tensor: str
    why: str


@dataclass(frozen=True)
class BisectReport:
    """The layers that two files have in common, in the running order of the reference, and the unmatched tensors.

    weights: as in the bundle; samples: the names of the samples; repro: the folder of the minimal repro, None if it was
    not kept.
    """

    model: str
    weights: WeightsOrigin
    candidate: str
    reference: str
    samples: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    unmatched: tuple[Unmatched, ...]
    repro: str | None

    @classmethod
    def read(cls, path: Path) -> "BisectReport":
        """Read a file that `toolkit bisect --json` wrote. Raises OSError, and ValueError for any other content."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def ranked(self) -> list[LayerReport]:
        """Return the layers sorted by introduced error, largest first; equal ones in running order."""
        return sorted(self.layers, key=lambda layer: -layer.introduced)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; every number is finite."""
        return asdict(self)
