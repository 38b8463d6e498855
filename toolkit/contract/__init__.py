"""The contract of a backend, as a test suite: pytest --pyargs toolkit.contract --backend NAME.

The suite needs the backend, pytest, the default backend of ONNX files as the reference, and the model that ships with
this package. A backend that passes works in `toolkit run`, `compare`, `bench`, `bisect` and the report.
"""

from pathlib import Path

import toolkit


def find_shipped() -> Path:
    """Return the folder of the model that ships with this package, even if ./build has a model of the same name."""
    return Path(toolkit.__file__).parent / "bundles" / "pocketseal"
