"""Strict reading of a JSON manifest: exact keys, exact types, and errors that name the place of the fault."""

import json
import math
from typing import Any, TypeVar

from backends.errors import InvalidArtifact

_Value = TypeVar("_Value")


def parse(text: bytes, where: str) -> object:
    """Return the parsed JSON. Raises InvalidArtifact for duplicate keys, NaN, infinity, and invalid JSON."""
    try:
        value: object = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifact(f"{where}: not a manifest: {error}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


class Fields:
    """A JSON object that must have exactly the keys `keys`. Each accessor raises InvalidArtifact for a wrong type."""

    def __init__(self, value: object, where: str, keys: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise InvalidArtifact(f"{where}: expected an object, got {type(value).__name__}")
        if missing := sorted(set(keys) - set(value)):
            raise InvalidArtifact(f"{where}: missing {', '.join(missing)}")
        if unknown := sorted(set(value) - set(keys)):
            raise InvalidArtifact(f"{where}: unknown {', '.join(unknown)}")
        self._value = value
        self._where = where

    def __getitem__(self, key: str) -> object:
        value: object = self._value[key]
        return value

    def text(self, key: str) -> str:
        """Return a string."""
        return self._typed(key, str, "text")

    def optional_text(self, key: str) -> str | None:
        """Return a string or None."""
        return None if self._value[key] is None else self.text(key)

    def integer(self, key: str) -> int:
        """Return an integer; a boolean is an error."""
        return self._typed(key, int, "an integer")

    def number(self, key: str) -> float:
        """Return a finite number as float."""
        value = self._value[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidArtifact(f"{self._where}.{key}: expected a finite number, got {value!r}")
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object with any keys."""
        return self._typed(key, dict, "an object")

    def optional_mapping(self, key: str) -> dict[str, Any] | None:
        """Return an object with any keys, or None."""
        return None if self._value[key] is None else self.mapping(key)

    def items(self, key: str) -> list[Any]:
        """Return a list of any values."""
        return self._typed(key, list, "a list")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings as a tuple."""
        return tuple(self._items_of(key, str, "text"))

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of integers as a tuple."""
        return tuple(self._items_of(key, int, "integers"))

    def _items_of(self, key: str, kind: type[_Value], name: str) -> list[_Value]:
        values = self.items(key)
        if any(not isinstance(value, kind) or isinstance(value, bool) for value in values):
            raise InvalidArtifact(f"{self._where}.{key}: expected a list of {name}, got {values!r}")
        return values

    def _typed(self, key: str, kind: type[_Value], name: str) -> _Value:
        value = self._value[key]
        # In Python, bool is a subclass of int.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidArtifact(f"{self._where}.{key}: expected {name}, got {value!r}")
        return value
