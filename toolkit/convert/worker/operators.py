"""The list of ONNX operators that the direct route lowers."""

from onnx2tf.tflite_builder.op_registry import get_supported_onnx_ops


def lowered_operators() -> list[str]:
    """Return the sorted names of the operators, of ONNX's default domain, that onnx2tf's dispatcher lists."""
    return sorted(get_supported_onnx_ops())
