"""What a pip install may lack: each role has its extra."""

from importlib.util import find_spec

from backends.errors import NotAvailable

PACKAGES = {
    "export": ("torch", "onnx", "onnxruntime", "onnxsim", "onnxscript", "safetensors"),
    "tflite": ("ai_edge_litert",),
    "video": ("av",),
    "text": ("tokenizers",),
}


def need(*extras: str) -> None:
    """Raise NotAvailable, with the command that helps, unless everything that these extras bring is installed."""
    missing = [name.replace("_", "-") for extra in extras for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        # By their own names: this project is installed from a checkout, and an index may know another by its name.
        raise NotAvailable(f"not installed: {', '.join(missing)}; run `pip install {' '.join(missing)}`")
