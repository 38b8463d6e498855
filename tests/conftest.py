"""Fixtures that several folders share."""

import shutil
from pathlib import Path

import pytest

from backends.bundle import Bundle
from tests.tiny import FOLDER


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    """A copy of the tiny bundle, free to be damaged."""
    folder = tmp_path / "tiny"
    shutil.copytree(FOLDER, folder)
    return Bundle.open(folder)
