"""Whether the disk has room is known before the work."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.errors import NotAvailable
from backends.machine import check_disk_space
from tests.seal_tiny import spec, weights
from toolkit.convert import preflight
from toolkit.export import export_bundle

Free = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Make the disk seem to have this many bytes left."""

    def seem(size: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))

    return seem


def test_a_folder_that_is_still_to_be_made_is_on_its_parents_disk(tmp_path: Path, free: Free) -> None:
    folder = tmp_path / "build" / "model"
    check_disk_space(folder, 1000)
    free(2_000_000_000)
    check_disk_space(folder, 2_000_000_000)
    check_disk_space(folder, 2_500_000_000, freed_bytes=500_000_000)
    with pytest.raises(NotAvailable, match=r"model: 2\.0 GB of disk are free, and this needs about 12\.0 GB"):
        check_disk_space(folder, 12_000_000_000)


def test_an_export_that_would_not_fit_is_not_begun(tmp_path: Path, free: Free) -> None:
    name = "chunkyseal-tiny"
    free(64 << 20)
    lines: list[str] = []
    with pytest.raises(NotAvailable, match="GB of disk are free"):
        export_bundle(spec(name), weights(name), tmp_path / name, progress=lines.append)
    assert lines == []
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_conversion_left_is_room_for_the_next(tmp_path: Path, free: Free) -> None:
    free(600 << 20)
    with pytest.raises(NotAvailable, match="GB of disk are free"):
        preflight.check_conversion_space(tmp_path, 600 << 20, 0, ("fp32",))
    kept = tmp_path / ".convert-0123" / "slice-0.fp32.tflite"
    kept.parent.mkdir()
    with kept.open("wb") as file:  # with a hole, as a file has that is being stitched
        file.truncate(10 << 30)
    with pytest.raises(NotAvailable, match="GB of disk are free"):
        preflight.check_conversion_space(tmp_path, 600 << 20, 0, ("fp32",))
    kept.write_bytes(bytes(70 << 20))
    preflight.check_conversion_space(tmp_path, 600 << 20, 0, ("fp32",))
