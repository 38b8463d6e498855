"""Registered rewrites of ONNX graphs. Each takes a model and returns it and whether it changed."""
