"""Networks, their weights, and their graphs: each network becomes one simplified ONNX graph."""
