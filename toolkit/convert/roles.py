"""Which graphs of a bundle are lowered."""

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import NotAvailable

# By kind of model. Marks are drawn once, on ONNX Runtime; they are read everywhere.
LOWERED = {"watermark": "detector", "tensor": "model"}


def graph_to_lower(bundle: Bundle) -> Artifact:
    """The float32 graph that TFLite files are made of. Raises NotAvailable for a kind that nobody listed here."""
    kind = bundle.model["kind"]
    if kind not in LOWERED:
        raise NotAvailable(f"{bundle.folder}: models of kind {kind!r} are not lowered; there is {', '.join(LOWERED)}")
    return bundle.find(LOWERED[kind], "onnx", "fp32")
