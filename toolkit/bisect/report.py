"""What was found, in the order in which the reference runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.bisect.layers import Unmatched


@dataclass(frozen=True)
class LayerReport:
    """One layer of the candidate, named after the reference's tensor that it makes and the node that makes it there.

    inherited: error of the tensor as the candidate comes to it; introduced: where the layer is given the reference's
    own inputs. Both are noise over signal, of all samples together, see toolkit.bisect.noise: 0.0 for none, at most
    LARGEST. tflite_ops: the candidate's operators, of an ONNX candidate too. module: the torch module, "" where no name
    tells.
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
class BisectReport:
    """Every layer that two files have in common, and what was not matched. samples: the names of what was put in.

    repro: the folder of the minimal repro.
    """

    model: str
    weights: Mapping[str, Any]
    candidate: str
    reference: str
    samples: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    unmatched: tuple[Unmatched, ...]
    repro: str | None

    def ranked(self) -> list[LayerReport]:
        """The layers that introduce most first; of equals the earlier one."""
        return sorted(self.layers, key=lambda layer: -layer.introduced)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every number finite."""
        return asdict(self)
