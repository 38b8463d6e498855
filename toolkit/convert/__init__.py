"""From a bundle's ONNX graphs to TFLite files and quantized graphs."""
