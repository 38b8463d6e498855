"""A folder of images is a list that weighs little, however many there are."""

import gc
import shutil
import tracemalloc
from pathlib import Path

from PIL import Image

from toolkit.images.open import image_files


def test_a_long_list_keeps_names_alone(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "00000.png")
    for number in range(1, 1500):
        shutil.copyfile(tmp_path / "00000.png", tmp_path / f"{number:05d}.png")
    image_files(tmp_path)  # Pillow loads its decoders once
    tracemalloc.start()
    try:
        files = image_files(tmp_path)
        assert [path.name for path in files] == [f"{number:05d}.png" for number in range(1500)]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 100 * len(files)  # bytes; a list of Path objects takes 350 each
    finally:
        tracemalloc.stop()


def test_it_is_a_sequence_of_paths(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    files = image_files(tmp_path)
    assert files[-1] == tmp_path / "c.png"
    assert list(files[:2]) == [tmp_path / "a.jpg", tmp_path / "b.PNG"]


def test_folders_of_classes_are_read_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a/z/1.png", "a.png", ".hidden/1.png", "b/.2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    files = image_files(tmp_path)
    assert files.names == ("a/z/1.png", "a.png", "b/10.png", "b/2.png")
    assert files[0] == tmp_path / "a" / "z" / "1.png"
