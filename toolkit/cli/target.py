"""Where a result goes, checked before the work that makes it."""

from pathlib import Path
from typing import Any

import click


class Target(click.Path):
    """A file that will be written. A folder that is missing, or one in the file's place, is said at once."""

    def __init__(self, or_folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self._or_folder = or_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail in click's way."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.is_dir() and not self._or_folder:
            self.fail(f"{path}: expected a file name, got a folder", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: there is no folder {path.parent}", param, ctx)
        return path
