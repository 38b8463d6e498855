"""Quantization of ONNX graphs, and mixed-precision files: the search for the layers that stay in FP16."""
