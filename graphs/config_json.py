"""Frozen dataclasses to plain JSON and back, strictly, so that a manifest can say what network a file holds."""

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from backends.errors import InvalidArtifact

_Config = TypeVar("_Config")


def to_json(config: object) -> Any:
    """A dataclass becomes an object with its class name under "type"; tuples become lists; the rest stays."""
    if is_dataclass(config):
        values = {field.name: to_json(getattr(config, field.name)) for field in fields(config)}
        return {"type": type(config).__name__, **values}
    return [to_json(item) for item in config] if isinstance(config, tuple) else config


def from_json(kind: type[_Config], value: object, where: str) -> _Config:
    """Read what to_json wrote as the dataclass `kind`. Raises InvalidArtifact that names the place.

    Every field must be there, no other may be, and each must have the type that its annotation says.
    """
    config = _read(kind, value, where)
    assert isinstance(config, kind)
    return config


def _read(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read(_choose(arguments, value, where), value, where)
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool):
            raise InvalidArtifact(f"{where}: expected one of {list(arguments)}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InvalidArtifact(f"{where}: expected a list like {kind}, got {value!r}")
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, where)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise InvalidArtifact(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
    return float(value) if kind is float else value


def _read_dataclass(kind: type, value: object, where: str) -> Any:
    annotations = typing.get_type_hints(kind)
    expected = {"type", *annotations}
    if not isinstance(value, dict) or set(value) != expected:
        got = sorted(value) if isinstance(value, dict) else value
        raise InvalidArtifact(f"{where}: expected the keys {sorted(expected)}, got {got!r}")
    if value["type"] != kind.__name__:
        raise InvalidArtifact(f"{where}.type: expected {kind.__name__}, got {value['type']!r}")
    try:
        return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in annotations.items()})
    except ValueError as error:
        raise InvalidArtifact(f"{where}: {error}") from error


def _choose(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    """The member of a union that a value can be: null for None, the named class for an object."""
    if value is None and type(None) in kinds:
        return type(None)
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return kinds[0]
    name = value.get("type") if isinstance(value, dict) else None
    for kind in kinds:
        if kind.__name__ == name:
            return kind
    raise InvalidArtifact(f"{where}.type: expected one of {[kind.__name__ for kind in kinds]}, got {name!r}")
