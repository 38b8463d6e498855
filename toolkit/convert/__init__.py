"""Converts the ONNX graphs of a bundle to TFLite files and to quantized ONNX files."""
