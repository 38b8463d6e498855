"""What really runs: versions, execution providers, and how much of the graph a delegate took."""

from collections import Counter
from importlib.metadata import version
from typing import Any

from backends.session import Session

# By backend.
PACKAGES = {
    "ort": "onnxruntime",
    "tflite": "ai-edge-litert",
    "torch": "torch",
    "torch.compile": "torch",
    "openvino": "openvino",
}
_DELEGATE = "DELEGATE"


def in_use(session: Session, backend: str) -> dict[str, Any]:
    """The runtime of an opened session, its version and threads, and its providers or what its delegate took.

    As the runtime itself says it. The one delegate that LiteRT's interpreter takes by itself is XNNPACK; its name is on
    stderr alone, where toolkit.bench.cold reads it.
    """
    described: dict[str, Any] = {
        "runtime": PACKAGES[backend],
        "version": version(PACKAGES[backend]),
        "threads": session.threads,
    }
    opened: Any = session
    if backend == "ort":
        described["providers"] = opened._session.get_providers()
    elif backend == "tflite":
        operators = Counter(detail["op_name"] for detail in opened._interpreter._get_ops_details())
        # The list holds every operator of the file and, after them, the delegate's: one for each part that it took.
        described["delegated_parts"] = operators.pop(_DELEGATE, 0)
        described["delegate"] = "XNNPACK" if described["delegated_parts"] else None
        described["operators"] = operators.total()
    elif backend == "openvino":
        described["providers"] = list(opened._compiled.get_property("EXECUTION_DEVICES"))
    else:
        import torch

        described["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
        if backend == "torch.compile":
            described["compiler"] = "inductor"
    return described
