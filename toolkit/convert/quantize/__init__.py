"""Smaller files: quantization of ONNX graphs, and the search for mixed precisions."""
