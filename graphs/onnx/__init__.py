"""ONNX files and graphs: reading, writing, cutting, and the readers that say what a node is."""
