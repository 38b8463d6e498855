"""Passes over ONNX graphs that make every runtime fast. Each takes a model and returns it and whether it changed."""
