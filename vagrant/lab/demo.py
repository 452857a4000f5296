"""`./run demo`: the firewall at work. A three-tier application over two hosts, real traffic, and what
decided it.

Every attempt has a verdict it must get; the demo ends non-zero as soon as one gets another. It runs in a lab
of its own, which is gone when it ends, on whatever way.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import click
import httpx
from rich.console import Console
from rich.table import Table

from vagrant.lab.lab import Lab
from vagrant.lab.layout import Vm
from vagrant.lab.network import NetworkError
from vagrant.lab.probe import Attempt, Protocol, Seen, Servers, probe_all
from vagrant.lab.spec import parse
from vagrant.lab.state import LabError
from vagrant.lab.waiting import step
from vsfwd.ipc.client import Unreachable, ask
from vsfwd.ipc.interface import Explanation, PacketSpec

NAME = "demo"
VMS = ("web@host1#tier|web", "app@host2#tier|app", "db@host2#tier|db", "client@host1#role|client")
_DEFAULT = "domains/default"
_NEIGHBOURS = [
    f"/infra/services/IPv6-ICMP_Neighbor_{message}" for message in ("Solicitation", "Advertisement")
]


@dataclass(frozen=True)
class Service:
    protocol: Protocol
    port: int = 0

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else "ping"


HTTP = Service(Protocol.TCP, 80)
HTTPS = Service(Protocol.TCP, 443)
QUIC = Service(Protocol.UDP, 443)
APP = Service(Protocol.TCP, 8080)
POSTGRESQL = Service(Protocol.TCP, 5432)
PING = Service(Protocol.ICMP)
SERVICES = (HTTP, HTTPS, QUIC, APP, POSTGRESQL, PING)


@dataclass(frozen=True)
class Check:
    """One attempt, made over IPv4 and over IPv6, and what must become of it."""

    source: str
    destination: str
    service: Service
    expected: Seen


ALLOWED, DROPPED, REJECTED = Seen.ALLOWED, Seen.DROPPED, Seen.REJECTED
CHECKS = (
    Check("client", "web", HTTP, ALLOWED),
    Check("client", "web", HTTPS, ALLOWED),
    Check("client", "web", QUIC, ALLOWED),
    Check("client", "web", PING, ALLOWED),
    Check("client", "web", APP, DROPPED),
    Check("client", "app", APP, DROPPED),
    Check("client", "app", PING, DROPPED),
    Check("client", "db", POSTGRESQL, REJECTED),
    Check("client", "db", QUIC, REJECTED),
    Check("web", "app", APP, ALLOWED),
    Check("web", "app", PING, ALLOWED),
    Check("web", "app", HTTP, DROPPED),
    Check("web", "db", POSTGRESQL, REJECTED),
    Check("web", "db", PING, REJECTED),
    Check("web", "client", HTTP, DROPPED),
    Check("app", "db", POSTGRESQL, ALLOWED),
    Check("app", "db", PING, ALLOWED),
    Check("app", "web", QUIC, DROPPED),
    Check("db", "app", APP, DROPPED),
)
PROMOTED = (
    Check("client", "web", HTTP, DROPPED),
    Check("client", "web", PING, DROPPED),
    Check("client", "db", POSTGRESQL, ALLOWED),
    Check("client", "db", PING, ALLOWED),
    Check("client", "db", QUIC, REJECTED),
    Check("web", "client", APP, ALLOWED),
)
"""Once the client carries the tag of the application servers."""


def policy() -> Mapping[str, Mapping[str, object]]:
    """Objects of the NSX Policy API, by path below /policy/api/v1/infra/."""
    tags = {"web": "tier|web", "app": "tier|app", "db": "tier|db", "clients": "role|client"}
    return {
        **{f"{_DEFAULT}/groups/{name}": {"expression": [_tagged(tag)]} for name, tag in tags.items()},
        "services/quic": {"service_entries": [_port("UDP", 443)]},
        "services/app": {"service_entries": [_port("TCP", 8080)]},
        f"{_DEFAULT}/security-policies/three-tier": {
            "display_name": "Three-tier application",
            "category": "Application",
            "sequence_number": 10,
            "rules": [
                _rule(10, "clients to web", "clients", "web", ["HTTP", "HTTPS", "quic"]),
                _rule(20, "web to app", "web", "app", ["app"]),
                _rule(30, "app to db", "app", "db", ["PostgreSQL"]),
                _rule(40, "nobody else to db", None, "db", [], "REJECT"),
            ],
        },
        # The last rule above is about every service. What tells db the MAC address of whom it answers over
        # IPv6 is one, and the default rule that allows it comes too late.
        f"{_DEFAULT}/security-policies/neighbours": {
            "display_name": "Neighbour discovery",
            "category": "Infrastructure",
            "rules": [{"id": "neighbours", "action": "ALLOW", "services": _NEIGHBOURS}],
        },
    }


def _tagged(tag: str) -> dict[str, str]:
    return {
        "resource_type": "Condition",
        "member_type": "VirtualMachine",
        "key": "Tag",
        "operator": "EQUALS",
        "value": tag,
    }


def _port(protocol: str, port: int) -> dict[str, object]:
    return {
        "resource_type": "L4PortSetServiceEntry",
        "l4_protocol": protocol,
        "destination_ports": [str(port)],
    }


def _rule(
    sequence: int, name: str, source: str | None, destination: str, services: list[str], action: str = "ALLOW"
) -> dict[str, object]:
    """An allowed service comes with ping."""
    pings = ["ICMP_Echo_Request", "IPv6-ICMP_Echo_Request"] if services else []
    return {
        "id": name.replace(" ", "-"),
        "display_name": name,
        "sequence_number": sequence,
        "source_groups": [f"/infra/{_DEFAULT}/groups/{source}"] if source else ["ANY"],
        "destination_groups": [f"/infra/{_DEFAULT}/groups/{destination}"],
        "services": [f"/infra/services/{service}" for service in services + pings] or ["ANY"],
        "action": action,
    }


class Demo:
    """Makes the checks in a lab, prints them, and counts those that came out otherwise."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.wrong = 0
        self.console = Console()

    def show(self, checks: Sequence[Check]) -> None:
        """A line per check: what was expected, what was seen over each family, the rule that decided."""
        seen = self._try(checks)
        table = Table(
            "from", "to", "service", "expected", "IPv4", "IPv6", "decided by", box=None, padding=(0, 1, 0, 0)
        )
        for check, (v4, v6) in zip(checks, seen, strict=True):
            decided = self._explain(check)
            agreed = _outcome(decided) is check.expected
            right = agreed and v4 is v6 is check.expected
            rule = f"{decided.rule} {decided.name}"
            table.add_row(
                check.source,
                check.destination,
                str(check.service),
                check.expected,
                v4,
                v6,
                rule if agreed else f"{rule} says {decided.action}",
                style=None if right else "bold red",
            )
            self.wrong += not right
        self.console.print(table)

    def repeat(self, checks: Sequence[Check], when: str) -> None:
        """The same again, a line for each that differs."""
        with step(f"{len(checks)} attempts {when}"):
            seen = self._try(checks)
        for check, found in zip(checks, seen, strict=True):
            if any(verdict is not check.expected for verdict in found):
                self.wrong += 1
                self.console.print(f"{check}: seen {found}", style="bold red")

    def _try(self, checks: Sequence[Check]) -> list[tuple[Seen, Seen]]:
        """Over IPv4 and IPv6, all at once."""
        attempts = []
        for check in checks:
            target = self.lab.vm(check.destination)
            for address in (target.v4, target.v6):
                namespace = self.lab.vm(check.source).namespace
                attempts.append(Attempt(namespace, check.service.protocol, address, check.service.port))
        seen = iter(probe_all(attempts))
        return list(zip(seen, seen, strict=True))

    def _explain(self, check: Check) -> Explanation:
        """What the policy says, at the vNIC that decides: a packet has to pass the sender's, then the
        receiver's."""
        source, destination = self.lab.vm(check.source), self.lab.vm(check.destination)
        service = check.service
        packet = PacketSpec(
            direction="out",
            protocol=service.protocol,
            source=source.v4,
            destination=destination.v4,
            port=service.port or None,
            icmp_type=8 if service is PING else None,
        )
        decided = self._explain_at(source, packet)
        if decided.action == "allow":
            decided = self._explain_at(destination, replace(packet, direction="in"))
        return decided

    def _explain_at(self, vm: Vm, packet: PacketSpec) -> Explanation:
        socket = self.lab.host(vm.host).socket
        answer = ask(socket, lambda vsfwd: vsfwd.Explain(vnic=vm.vnic, packet=packet))
        explanation: Explanation = answer["explanation"]
        return explanation


def _outcome(explanation: Explanation) -> Seen:
    return {"allow": ALLOWED, "drop": DROPPED, "reject": REJECTED}[explanation.action]


def run(lab: Lab) -> int:
    """The number of checks that came out otherwise."""
    demo = Demo(lab)
    with ExitStack() as servers:
        tcp = [service.port for service in SERVICES if service.protocol is Protocol.TCP]
        udp = [service.port for service in SERVICES if service.protocol is Protocol.UDP]
        for vm in lab.layout.vms:
            servers.enter_context(Servers(vm.namespace, tcp, udp))
        with step("three-tier policy published by REST, enforced on both hosts"):
            lab.publish(policy())
        demo.show(CHECKS)
        with step("client gets the tag tier|app instead of role|client"):
            lab.set_tags("client", "tier|app")
        demo.show(PROMOTED)
        with step("SIGKILL for the vsfwd of host1"):
            lab.kill_vsfwd("host1")
        demo.repeat(PROMOTED, "while it is dead: enforcement goes on")
        with step("vsfwd of host1 started again, the client has its own tag back"):
            lab.start_vsfwd("host1")
            lab.set_tags("client", "role|client")
        demo.repeat(CHECKS, "of the first table")
    return demo.wrong


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Show the firewall at work: two hosts, four VMs, a three-tier policy, real traffic."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Lab.up(parse(vms=VMS), NAME) as lab:
            wrong = run(lab)
            with step("taking it all down"):
                lab.down()
    except (LabError, NetworkError, TimeoutError, Unreachable, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
    if wrong:
        raise click.ClickException(f"{wrong} of the verdicts above are not what was expected")
    click.echo("Every verdict was the expected one.")


if __name__ == "__main__":
    main(prog_name="./run demo")
