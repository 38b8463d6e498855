"""The pytest option --backend. It is a plugin because pytest reads no options from the conftest.py of a package."""

from contextlib import suppress

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --backend NAME of the contract suite, unless another plugin has added one of the same name."""
    with suppress(ValueError):
        parser.addoption("--backend", metavar="NAME", help="toolkit.contract: the backend to try.  [default: all]")
