"""The README's figures stand between markers, and are written from committed results alone."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def write_block(name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->. Raises ValueError unless both are there, once."""
    readme = README.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    replaced, count = block.subn(lambda match: match[1] + text + match[2], readme)
    if count != 1:
        raise ValueError(f"{README}: expected one <!-- {name} --> block, found {count}")
    README.write_text(replaced, encoding="utf-8")
