"""What really runs: versions, execution providers, and how much of the graph a delegate took."""

from collections import Counter
from importlib.metadata import version
from typing import Any

from backends.session import Session

_PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "torch": "torch"}
_DELEGATE = "DELEGATE"


def in_use(session: Session) -> dict[str, Any]:
    """The runtime of an opened session, its version and threads, and its providers or what its delegate took.

    As the runtime itself says it. TFLite's one delegate here is XNNPACK.
    """
    described: dict[str, Any] = {
        "runtime": _PACKAGES[session.FORMAT],
        "version": version(_PACKAGES[session.FORMAT]),
        "threads": session.threads,
    }
    opened: Any = session
    if session.FORMAT == "onnx":
        described["providers"] = opened._session.get_providers()
    elif session.FORMAT == "tflite":
        operators = Counter(detail["op_name"] for detail in opened._interpreter._get_ops_details())
        # The list holds every operator of the file and, after them, the delegate's: one for each part that it took.
        described["delegated_parts"] = operators.pop(_DELEGATE, 0)
        described["operators"] = operators.total()
    return described
