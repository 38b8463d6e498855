"""Which ONNX operators the direct route lowers."""

from onnx2tf.tflite_builder.op_registry import get_supported_onnx_ops


def lowered_operators() -> list[str]:
    """Names of operators of the default domain, as onnx2tf's own dispatcher lists them."""
    return sorted(get_supported_onnx_ops())
