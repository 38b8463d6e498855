"""The contract of a backend, as tests for anybody to run: pytest --pyargs toolkit.contract --backend NAME.

It needs no more than the backend, pytest, and the model that ships with this package. A backend that passes works in
`toolkit run`, `compare`, `bench`, `bisect` and the report.
"""

from pathlib import Path

import toolkit


def find_shipped() -> Path:
    """The folder of the model that ships with this package, whatever ./build holds."""
    return Path(toolkit.__file__).parent / "bundles" / "pocketseal"
