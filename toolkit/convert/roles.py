"""Which graphs of a bundle are lowered."""

from collections.abc import Sequence

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput

# By kind of model, where not every graph is. Marks are drawn once, on ONNX Runtime; they are read everywhere.
LOWERED = {"watermark": ("detector",)}


def graphs_to_lower(bundle: Bundle, roles: Sequence[str] = ()) -> tuple[Artifact, ...]:
    """The float32 graphs that TFLite files are made of; of these roles alone, if any are named.

    Raises NotAvailable for a role that is not in the bundle, InvalidInput for one that is not lowered.
    """
    there = [
        artifact.role for artifact in bundle.artifacts if (artifact.format, artifact.precision) == ("onnx", "fp32")
    ]
    lowered = LOWERED.get(bundle.model["kind"], tuple(there))
    for role in roles:
        bundle.find(role, "onnx", "fp32")
        if role not in lowered:
            raise InvalidInput(f"{bundle.folder}: {role!r} is not lowered; {', '.join(lowered)} can be")
    return tuple(bundle.find(role, "onnx", "fp32") for role in roles or lowered)
