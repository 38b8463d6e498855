"""ONNX files and graphs: reading, writing and cutting them, and readers that say what a node computes."""
