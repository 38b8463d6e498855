"""Room on the disk, known before the work and not after it."""

import shutil
from pathlib import Path

from backends.errors import NotAvailable


def check_room(folder: Path, need_bytes: int, freed_bytes: int = 0) -> None:
    """Raise NotAvailable if the disk of `folder`, which need not exist yet, has less room than is needed.

    freed_bytes lie on it now and will be removed, or are a part of what is needed.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free + freed_bytes
    if free < need_bytes:
        raise NotAvailable(
            f"{folder}: {free / 1e9:.1f} GB of disk are free, and this needs about {need_bytes / 1e9:.1f} GB"
        )
