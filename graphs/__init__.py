"""What the models are, and how each becomes one simplified ONNX graph."""
