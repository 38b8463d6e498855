"""The pytest option --backend. It is a plugin because pytest reads no options from the conftest.py of a package."""

from contextlib import suppress

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --backend NAME for the contract suite, unless another plugin has an option of that name."""
    with suppress(ValueError):
        parser.addoption("--backend", metavar="NAME", help="toolkit.contract: the backend to try.  [default: all]")
