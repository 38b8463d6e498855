"""Registries of plugins: objects found by name through entry points of installed packages, imported on first use.

A package registers an object with one line of its metadata, `NAME = "module:OBJECT"` in an entry-point group such as
`seal_toolkit.backends`. This project registers its own objects in its pyproject.toml in the same way.
"""

from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Generic, TypeVar

from backends.errors import NotAvailable, NotInstalled, one_line

Thing = TypeVar("Thing")


def entry_points_of(group: str, kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted by name. `kind`: the word for such an object in messages.

    Raises NotAvailable where two packages register different objects under one name.
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


def _not_loaded(thing: str, error: Exception) -> NotAvailable:
    """Return the error for a thing whose module failed with `error` while it was imported."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    package = module.replace("_", "-")
    if isinstance(error, ModuleNotFoundError) and not is_installed(module):
        return NotInstalled(f"{thing} cannot be loaded: {error}; install it with `pip install {package}`")
    again = f"install it again with `pip install --force-reinstall {package}`" if package else "install it again"
    return NotAvailable(f"{thing} cannot be loaded: {type(error).__name__}: {one_line(error)}; {again}")


def is_installed(module: str) -> bool:
    """Return whether a module with this name, which may have dots, can be found."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Registry(Generic[Thing]):
    """The objects of one entry-point group by name. Listing the names imports none of their modules."""

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
        """Register an object for this process only. Raises ValueError for a name that is registered already."""
        if name in self.names:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._added[name] = thing

    def load(self, name: str) -> Thing:
        """Import and return the object of a name.

        Raises NotInstalled if a package is missing, and NotAvailable for an unknown name and for a module that fails
        while it is imported, whatever its error is.
        """
        if name in self._added:
            return self._added[name]
        if name not in self._loaded:
            if name not in self._points:
                raise NotAvailable(f"no {self._kind} named {name!r}; there is {', '.join(self.names) or 'none'}")
            try:
                self._loaded[name] = self._points[name].load()
            except Exception as error:  # a package that is installed in part fails in any way
                raise _not_loaded(f"{self._kind} {name!r}", error) from error
        return self._loaded[name]

    def installed(self) -> tuple[Thing, ...]:
        """Return the objects that can be loaded, sorted by name. Those whose packages are missing or fail are left out;
        `toolkit doctor` tells the reason."""
        found = []
        for name in self.names:
            try:
                found.append(self.load(name))
            except NotAvailable:
                continue
        return tuple(found)
