"""Files that are there whole or not at all, whatever ends in between, and are whose their directory is."""

import os
from pathlib import Path


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """For its owner alone, at no moment otherwise, but for what `mode` says; where root writes, that is who
    the directory belongs to. Fails if it is there already; an end in between leaves a part."""
    # That owner may have put a link there, to have root write elsewhere: O_EXCL follows none.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if os.geteuid() == 0:
            directory = path.parent.stat()
            os.fchown(file.fileno(), directory.st_uid, directory.st_gid)
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """A file as of `create`. On return it survives a power cut; before, `path` is what it was."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    create(fresh, content, mode)
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
