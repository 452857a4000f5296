"""Files that are there whole or not at all, whatever ends in between."""

import os
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """For its owner alone, at no moment otherwise; where root writes, that is whoever the directory belongs
    to. On return it survives a power cut; before, `path` is what it was."""
    fresh = path.with_name(f"{path.name}.new")
    # That owner may have put a link there, to have root write elsewhere.
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if os.geteuid() == 0:
            directory = path.parent.stat()
            os.fchown(file.fileno(), directory.st_uid, directory.st_gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
