"""Services of IANA's registry, by their ports of TCP and UDP.

`iana.txt` is made of the registry as Debian ships it, /etc/services of the package netbase, and stands in the
tree: what a predefined service means must not depend on the machine the manager runs on, nor change under the
rules that name it when that machine is upgraded.

    python -m manager_stub.iana < /etc/services > manager_stub/iana.txt
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)\s+(?P<port>\d+)/(?P<protocol>tcp|udp)\b")


def condensed(services: str) -> str:
    """A line a service, in their order: `domain tcp/53 udp/53`. Other protocols and aliases are left out."""
    found: dict[str, list[str]] = {}
    for line in map(_LINE.match, services.splitlines()):
        if line:
            found.setdefault(line["name"], []).append(f"{line['protocol']}/{line['port']}")
    return "".join(f"{name} {' '.join(sorted(ports))}\n" for name, ports in found.items())


def registry() -> dict[str, Mapping[str, list[str]]]:
    """Ports by TCP and UDP, by name."""
    found: dict[str, Mapping[str, list[str]]] = {}
    for line in Path(__file__).with_name("iana.txt").read_text("ascii").splitlines():
        name, *points = line.split()
        ports: dict[str, list[str]] = {}
        for protocol, _, port in (point.partition("/") for point in points):
            ports.setdefault(protocol.upper(), []).append(port)
        found[name] = ports
    return found


if __name__ == "__main__":
    sys.stdout.write(condensed(sys.stdin.read()))
