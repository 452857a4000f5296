"""What a process has of the kernel, by proc(5)."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Resources(NamedTuple):
    """`descriptors`: but sockets, which come and go with whom it talks to. `maps`: bytes of its BPF maps.
    `memory`: bytes that are its own."""

    descriptors: int
    maps: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> "Resources":
        process, descriptors, maps = Path("/proc", str(pid)), 0, 0
        for number in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                descriptors += not str(number.readlink()).startswith("socket:")
                maps += _field(process / "fdinfo" / number.name, "memlock")
        return cls(descriptors, maps, _field(process / "status", "RssAnon") * 1024)


def _field(file: Path, name: str) -> int:
    """0 where there is none."""
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((int(value.split()[0]) for key, _, value in lines if key == name), 0)
