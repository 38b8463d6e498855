"""Things that other packages may bring: found by name through entry points, and imported on first use.

A package registers a thing with one line of its metadata, `NAME = "module:THING"` in an entry-point group such as
`seal_toolkit.backends`. This project's own things stand in its pyproject.toml in the same way.
"""

from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from backends.errors import NotAvailable

Thing = TypeVar("Thing")


def entry_points_of(group: str, kind: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, in the order of their names. `kind` is what they are, for messages.

    Raises NotAvailable where two packages bring different things under one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise NotAvailable(
                f"{kind} {point.name!r} is registered twice, as {other.value} and as {point.value}; "
                "uninstall one of the two packages"
            )
    return found


class Registry(Generic[Thing]):
    """Things of one kind by name, from one entry-point group. Listing the names imports none of their modules."""

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self._kind = kind
        self._added: dict[str, Thing] = {}
        self._loaded: dict[str, Thing] = {}

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return entry_points_of(self.group, self._kind)

    @property
    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted({*self._points, *self._added}))

    def add(self, name: str, thing: Thing) -> None:
        """Register a thing for this process alone, without a package. A name that is taken is a ValueError."""
        if name in self.names:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._added[name] = thing

    def load(self, name: str) -> Thing:
        """Import and return the thing of a name. Raises NotAvailable for an unknown name or a missing package."""
        if name in self._added:
            return self._added[name]
        if name not in self._loaded:
            if name not in self._points:
                raise NotAvailable(f"no {self._kind} named {name!r}; there is {', '.join(self.names) or 'none'}")
            try:
                self._loaded[name] = self._points[name].load()
            except ImportError as error:
                package = (error.name or name).partition(".")[0].replace("_", "-")
                raise NotAvailable(
                    f"{self._kind} {name!r} cannot be loaded: {error}; install it with `pip install {package}`"
                ) from error
        return self._loaded[name]

    def installed(self) -> tuple[Thing, ...]:
        """Everything whose packages are installed, in the order of the names."""
        found = []
        for name in self.names:
            try:
                found.append(self.load(name))
            except NotAvailable:
                continue  # its runtime is an extra that is not installed
        return tuple(found)
