"""Runs in the converter's own environment, as `python -m worker REQUEST RESULT`, and imports nothing of ours.

It is the only place that knows onnx2tf, TensorFlow and the quantizer. Requests and results are JSON and files.
"""
