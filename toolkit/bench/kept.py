"""What a long benchmark has measured so far, in a file: interrupted and started again, it goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.errors import InvalidInput


class Kept:
    """Measurements by name, a line of JSON each; with no path, none are kept.

    of: what all of them are of, as JSON. A file of anything else is begun anew: other versions, files or options give
    other figures. Raises InvalidInput where the file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, of: object = None) -> None:
        self.path = path
        self._found: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps(of, sort_keys=True)
        try:
            lines = path.read_bytes().split(b"\n") if path.is_file() else []
            if lines[:1] != [head.encode()]:
                path.write_text(head + "\n", encoding="utf-8")
                return
            # What follows the last line break was being written when the process ended.
            self._found = dict(map(json.loads, lines[1:-1]))
            path.write_bytes(b"\n".join(lines[:-1]) + b"\n")
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{path}: cannot go on with what is kept there: {error}; remove it") from error

    def __len__(self) -> int:
        return len(self._found)

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under this name, or else what `measure` gives, as JSON holds it; kept from here on."""
        if name not in self._found:
            made = json.dumps(measure())
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"[{json.dumps(name)}, {made}]\n")
            self._found[name] = json.loads(made)
        return self._found[name]

    def close(self) -> None:
        """All is measured, and stands in a result: the file goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
