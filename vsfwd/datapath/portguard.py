"""The port guard: a bridge carries nothing from or to a workload's port before our programs are on it.

Netlink tells of a new vNIC after the kernel has it: one that nobody announced sends before anybody can attach
a program. So a table of nftables, bridge family, drops what comes from a port without the stamp that the out
program puts on what passes, and what goes to a port that is not in the set `protected`. Which ports are meant
is said by name, so that a device nobody knows yet is guarded from its first frame.

A port is in the set by its device number, which the kernel gives upwards: a device that is made anew under
the same name is another one. The table is the kernel's and stays when the daemon ends, as the programs do; a
new daemon takes the stamp from it, whatever became of its maps. Netlink is spoken by libnftables."""

import json
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

from nftables import Nftables

from vsfwd.datapath.schema import constant

TABLE: Final = "bridge vsfwd"
_PRIORITY: Final = -350
"""Before the rules of others, whose marks would be in the way."""
_SIZE: Final = 4 * constant("SLOTS")
"""With a size that is known, the kernel takes a hash that need not grow, and is faster."""
_TO_LINK_GROUP: Final = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00"
"""IEEE 802.1Q 8.6.3: what goes there a bridge hands its host without the hook prerouting."""


def ruleset(ports: Sequence[str], stamp: int, protected: Iterable[int]) -> str:
    """What makes the table, in place of the one that is there, in one transaction. `ports` are names, at the
    end of each may stand `*`. Without a stamp (0) nothing passes from any of them."""
    numbers = ", ".join(map(_element, sorted(protected)))
    stamped = f"meta mark {stamp:#010x} meta mark set 0 accept" if stamp else ""
    from_ports = [f'iifname "{name}" counter drop' for name in ports]
    to_ports = ["meta oif @protected accept", *(f'oifname "{name}" counter drop' for name in ports)]
    chains = {
        "prerouting": [stamped, *from_ports],
        "input": [stamped, *(f"{_TO_LINK_GROUP} {rule}" for rule in from_ports)],
        "forward": to_ports,
        "output": to_ports,
    }
    lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    lines += [
        "set protected {",
        "type iface_index",
        f"size {_SIZE}",
        f"elements = {{ {numbers} }}" if numbers else "",
        "}",
    ]
    for hook, rules in chains.items():
        lines += [f"chain {hook} {{", f"type filter hook {hook} priority {_PRIORITY}", *rules, "}"]
    return "\n".join([*lines, "}"])


class PortGuard:
    """Owns the table of this network namespace. What the kernel refuses is in `fault`, and tried again by
    `restore`: without a guard the programs filter all the same."""

    def __init__(self, ports: Sequence[str]) -> None:
        self.fault = ""
        self._ports = ports
        self._nft = Nftables()
        self._nft.set_json_output(True)
        self._protected: set[int] = set()
        self._stamp = 0
        self._shape: list[Any] | None = None
        self._refused = False

    @property
    def on(self) -> bool:
        """Whether there are ports to guard."""
        return bool(self._ports)

    def stamp_in_force(self) -> int:
        """Of the table that is there; 0 where there is none, or it has none."""
        for part in _expressions(self._listed() or []):
            if part.get("match", {}).get("left") == {"meta": {"key": "mark"}}:
                return int(part["match"]["right"])
        return 0

    def protected_in_force(self) -> set[int]:
        """Of the table that is there."""
        elements = [name for each in self._listed() or () for name in each.get("set", {}).get("elem", ())]
        return {name if isinstance(name, int) else _number(name) for name in elements}

    def install(self, stamp: int, protected: Iterable[int]) -> None:
        """The table with this stamp and these ports, in place of what was there."""
        self._stamp, self._protected = stamp, set(protected)
        if self.on:
            self._make()

    def close_until_told(self) -> None:
        """For boot: every port is closed. A table that is there already stays as it is."""
        if self.on and self._listed() is None:
            self._make()

    def remove(self) -> bool:
        """Whether there was one."""
        return self._listed() is not None and not self._run(f"delete table {TABLE}")

    def protect(self, ifindex: int) -> None:
        """The programs are on this device: frames may go to it."""
        if ifindex not in self._protected:
            self._protected.add(ifindex)
            self._change(f"add element {TABLE} protected {{ {_element(ifindex)} }}")

    def release(self, ifindex: int) -> None:
        """No frame goes to this device from now on."""
        if ifindex in self._protected:
            self._protected.remove(ifindex)
            self._change(f"delete element {TABLE} protected {{ {_element(ifindex)} }}")

    def restore(self) -> bool:
        """Make the table anew if somebody has changed it; whether somebody had."""
        if not self.on or (not self._refused and self._seen() == (self._shape, len(self._protected))):
            return False
        changed = not self.fault
        self._make()
        return changed

    def status(self) -> str:
        if not self.on:
            return "off: guard_ports names none"
        if self.fault:
            return f"not in force: {self.fault}"
        dropped = sum(
            part["counter"]["packets"] for part in _expressions(self._listed() or ()) if "counter" in part
        )
        return f"on, {len(self._protected)} ports protected, {dropped} frames of others dropped"

    def _change(self, command: str) -> None:
        """A table that does not take it is made anew by `restore`."""
        if self.on and self._run(command):
            self._refused = True

    def _make(self) -> None:
        self.fault = self._run(ruleset(self._ports, self._stamp, self._protected))
        self._refused = bool(self.fault)
        self._shape = self._seen()[0]

    def _seen(self) -> tuple[list[Any] | None, int]:
        """What is there but for the counters, and how many devices are in the set."""
        listed, protected = self._listed(), 0
        for each in listed or ():
            protected += len(each.get("set", {}).pop("elem", ()))
        for part in _expressions(listed or ()):
            part.pop("counter", None)
        return listed, protected

    def _listed(self) -> list[dict[str, Any]] | None:
        """In the words of libnftables-json(5); None: no table."""
        code, output, _ = self._nft.cmd(f"list table {TABLE}")
        return None if code else list(json.loads(output)["nftables"])

    def _run(self, commands: str) -> str:
        """What the kernel has against it."""
        code, _, error = self._nft.cmd(commands)
        return " ".join(error.split()) or str(code) if code else ""


def _element(ifindex: int) -> str:
    """nft takes what is there for a device's name first, and then for a number. No name has 16 characters."""
    return f'"{ifindex:016}"'


def _number(name: str) -> int:
    """0 when the device has gone meanwhile, which is no device's."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _expressions(listed: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (part for each in listed for part in each.get("rule", {}).get("expr", ()))
