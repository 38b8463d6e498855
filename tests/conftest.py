"""Fixtures that several folders share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.bundle import Bundle
from tests.tiny import FOLDER


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is written into the user's cache folder is the tests' own, in the processes that they start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    """A copy of the tiny bundle, free to be damaged."""
    folder = tmp_path / "tiny"
    shutil.copytree(FOLDER, folder)
    return Bundle.open(folder)
