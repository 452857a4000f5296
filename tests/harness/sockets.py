"""What a process listens on, by proc(5)."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""The state of a socket that anybody can send to: of UDP any that is bound."""
_UNIX_LISTENING = "00010000"


def listening(pid: int) -> set[str]:
    """As "tcp 127.0.0.1:80", or "unix /path"."""
    inodes = {file.readlink().name for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = set()
    for protocol, state in LISTENING.items():
        for fields in _lines(pid, protocol):
            if fields[3] == state and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.add(f"{protocol} {_address(address)}:{int(port, 16)}")
    for fields in _lines(pid, "unix"):
        if fields[3] == _UNIX_LISTENING and f"socket:[{fields[6]}]" in inodes:
            found.add(f"unix {fields[7]}")
    return found


def _lines(pid: int, protocol: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]]


def _address(written: str) -> IPv4Address | IPv6Address:
    """Words in host order."""
    raw = b"".join(bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8))
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
