"""The check of a TFLite file before a runtime opens it: some interpreters crash on a truncated file."""

import mmap
import struct
from pathlib import Path

from backends.errors import InvalidArtifact

_IDENTIFIER = b"TFL3"
_SMALLEST_BYTES = 16
# Slots of the tables Model and Buffer in TFLite's schema, in the order of their fields.
_MODEL_SUBGRAPHS, _MODEL_BUFFERS = 2, 4
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2


def check_tflite(path: Path) -> None:
    """Raise InvalidArtifact unless a file has TFLite's identifier and a subgraph, and holds all of its buffers."""
    if path.stat().st_size < _SMALLEST_BYTES:
        raise InvalidArtifact(f"{path}: expected a TFLite file, got {path.stat().st_size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] != _IDENTIFIER:
            raise InvalidArtifact(f"{path}: expected a TFLite file (identifier TFL3), got {data[4:8]!r}")
        try:
            _Walk(data).model()
        except _OutsideError as error:
            raise InvalidArtifact(f"{path}: damaged TFLite file: {error}") from error


class _OutsideError(Exception):
    """Error for an offset that points outside the file, or a table that is missing."""


class _Walk:
    """A reader that follows a flatbuffer's offsets and checks each against the file's size. Positions are in bytes."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)

    def model(self) -> None:
        """Check the model's subgraphs and buffers. Raises _OutsideError."""
        root = self._read("<I", 0)
        if not self._vector(root, _MODEL_SUBGRAPHS, 4)[1]:
            raise _OutsideError("no subgraph")
        start, count = self._vector(root, _MODEL_BUFFERS, 4)
        for slot in range(start, start + 4 * count, 4):
            table = slot + self._read("<I", slot)
            self._vector(table, _BUFFER_DATA, 1)
            # Files over 2 GB store their weights after the flatbuffer.
            end = self._scalar(table, _BUFFER_OFFSET) + self._scalar(table, _BUFFER_SIZE)
            if end > self._size:
                raise _OutsideError(f"a weight ends at byte {end} of {self._size}")

    def _read(self, form: str, at: int) -> int:
        if at < 0 or at + struct.calcsize(form) > self._size:
            raise _OutsideError(f"an offset leads to byte {at} of {self._size}")
        value: int = struct.unpack_from(form, self._data, at)[0]
        return value

    def _field(self, table: int, index: int) -> int | None:
        """Return the position of a field, or None where the table lacks it."""
        vtable = table - self._read("<i", table)
        slot = 4 + 2 * index
        if slot + 2 > self._read("<H", vtable):
            return None
        offset = self._read("<H", vtable + slot)
        return table + offset if offset else None

    def _vector(self, table: int, index: int, item_bytes: int) -> tuple[int, int]:
        """Return the position of the first item and the number of items; (0, 0) where the table lacks the field."""
        field = self._field(table, index)
        if field is None:
            return 0, 0
        vector = field + self._read("<I", field)
        count = self._read("<I", vector)
        if vector + 4 + count * item_bytes > self._size:
            raise _OutsideError(f"{count} items of {item_bytes} bytes at byte {vector} of {self._size}")
        return vector + 4, count

    def _scalar(self, table: int, index: int) -> int:
        field = self._field(table, index)
        return 0 if field is None else self._read("<Q", field)
