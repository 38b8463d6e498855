"""The worker: runs in the converter's environment, as `python -m worker REQUEST RESULT`.

It imports no other package of this project, and is the only code that uses onnx2tf, TensorFlow and the quantizer.
Requests and results are JSON files, which name the files to read and the files that were made.
"""
