"""The check of a TFLite file at each of its borders, on files that are written by hand."""

import struct
from pathlib import Path

import pytest

from backends.errors import InvalidArtifact
from backends.flatbuffer import check_tflite


def _file(  # every position is in bytes from the start
    weights: int = 8, offset: int = 0, size: int = 0, subgraphs: int = 1, behind: int = 0, identifier: bytes = b"TFL3"
) -> bytearray:
    """A model of one subgraph offset and one buffer: of `weights` bytes inside, or at `offset`, of `size` bytes."""
    data = bytearray(struct.pack("<I4s", 28, identifier))
    data += struct.pack("<7H", 14, 24, 0, 0, 4, 0, 8) + bytes(6)  # the model's vtable at 8: fields 2 and 4
    assert len(data) == 28
    data += struct.pack("<iII", 28 - 8, 8, 16)  # the model: its vtable, and from 32 and 36 on two vectors
    data += struct.pack("<II", subgraphs, 0)  # at 40; what lies in a subgraph is not looked into
    data += bytes(4)
    data += struct.pack("<II", 1, 16)  # at 52: one buffer, at 56 + 16
    data += struct.pack("<5H", 10, 28, 4, 8, 16) + bytes(2)  # the buffer's vtable at 60: data, offset, size
    assert len(data) == 72
    data += struct.pack("<iI", 72 - 60, 24) + struct.pack("<QQ", offset, size) + bytes(4)
    assert len(data) == 100
    return data + struct.pack("<I", weights) + bytes(weights + behind)


def _checked(folder: Path, data: bytes) -> None:
    path = folder / "m.tflite"
    path.write_bytes(data)
    check_tflite(path)


def test_a_whole_file_passes(tmp_path: Path) -> None:
    _checked(tmp_path, _file())
    _checked(tmp_path, _file(offset=104, size=8))


@pytest.mark.parametrize(("behind", "size"), [(0, 9), (64, 73)])
def test_weights_behind_the_flatbuffer_may_end_where_the_file_does(tmp_path: Path, behind: int, size: int) -> None:
    _checked(tmp_path, _file(offset=104, size=size - 1, behind=behind))
    with pytest.raises(InvalidArtifact, match=f"a weight ends at byte {104 + size} of {104 + size - 1}"):
        _checked(tmp_path, _file(offset=104, size=size, behind=behind))


def test_weights_inside_may_end_where_the_file_does(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="8 items of 1 bytes at byte 100 of 111"):
        _checked(tmp_path, _file()[:-1])


def test_another_identifier_and_a_file_of_few_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match=r"expected a TFLite file \(identifier TFL3\), got b'TFL2'"):
        _checked(tmp_path, _file(identifier=b"TFL2"))
    with pytest.raises(InvalidArtifact, match="expected a TFLite file, got 15 bytes"):
        _checked(tmp_path, _file()[:15])
    with pytest.raises(InvalidArtifact, match="an offset leads to byte 28 of 16"):
        _checked(tmp_path, _file()[:16])


def test_a_model_without_a_subgraph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="no subgraph"):
        _checked(tmp_path, _file(subgraphs=0))


def test_a_vtable_that_is_too_short_for_a_field_does_not_hold_it(tmp_path: Path) -> None:
    data = _file()
    struct.pack_into("<H", data, 8, 12)  # without the buffers
    struct.pack_into("<I", data, 56, 1 << 20)  # which nobody reads then
    _checked(tmp_path, data)
    for size in (8, 9):  # without the subgraphs, and with the first of their two bytes
        struct.pack_into("<H", data, 8, size)
        with pytest.raises(InvalidArtifact, match="no subgraph"):
            _checked(tmp_path, data)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, 1000, "an offset leads to byte 1000 of 112"),
        (0, 109, "an offset leads to byte 109 of 112"),  # of 4 bytes there are 3
        (28, 100, "an offset leads to byte -72 of 112"),  # a vtable before the file
        (32, 100, "an offset leads to byte 132 of 112"),
        (40, 18, "18 items of 4 bytes at byte 40 of 112"),
        (52, 1000, "1000 items of 4 bytes at byte 52 of 112"),
        (56, 200, "an offset leads to byte 256 of 112"),
        (76, 200, "an offset leads to byte 276 of 112"),
        (100, 9, "9 items of 1 bytes at byte 100 of 112"),
    ],
)
def test_an_offset_that_leads_outside_is_refused(tmp_path: Path, at: int, value: int, says: str) -> None:
    data = _file()
    struct.pack_into("<I", data, at, value)
    with pytest.raises(InvalidArtifact, match=f"damaged TFLite file: {says}"):
        _checked(tmp_path, data)


def test_as_many_items_as_fit_are_taken(tmp_path: Path) -> None:
    data = _file()
    struct.pack_into("<I", data, 40, 17)
    _checked(tmp_path, data)  # 40 + 4 + 17 * 4 = 112


def test_a_table_may_begin_at_the_last_bytes(tmp_path: Path) -> None:
    data = _file()
    struct.pack_into("<I", data, 0, 108)  # zeros: its vtable is at 108 as well, and holds no field
    with pytest.raises(InvalidArtifact, match="no subgraph"):
        _checked(tmp_path, data)
