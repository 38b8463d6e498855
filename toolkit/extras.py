"""What a pip install may lack: each role has its extra."""

from importlib.util import find_spec

from backends.errors import NotAvailable

PACKAGES = {
    "export": ("torch", "onnx", "onnxruntime", "onnxsim", "onnxscript", "safetensors"),
    "tflite": ("ai_edge_litert",),
}


def need(*extras: str) -> None:
    """Raise NotAvailable, with the command that helps, unless everything that these extras bring is installed."""
    missing = [name for extra in extras for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        raise NotAvailable(f"{', '.join(missing)} not installed: run `pip install 'seal-toolkit[{','.join(extras)}]'`")
