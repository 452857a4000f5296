"""Three RabbitMQ nodes that are one cluster, as manager_stub/INSTALL.md sets it up: each on a machine of its
own, as far as a network namespace is one, joined by a switch with the others and with the test.

with cluster(tmp_path) as found:
    found.nodes[0].processes()["node"].kill()
    with found.cut_off(found.nodes[1]):
        ...
"""

import secrets
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

import httpx
import msgspec

from manager_stub import config as manager_config
from manager_stub.app import Parts
from manager_stub.state_dir import StateDir
from tests.harness.documents import commands
from tests.harness.installation import Installation, Manager
from tests.harness.lab import name_of
from vagrant.lab import layout, network, spec
from vagrant.lab.broker import Broker, Tls
from vagrant.lab.layout import Layout
from vagrant.lab.processes import in_namespace
from vsfwd.config import Config
from vsfwd.protocol import topology

NODES = ("broker0", "broker1", "broker2")
REJOIN_S = 40.0
_CUT = """
table bridge cut {
    set ways { type ifname . ifname; }
    chain forward { type filter hook forward priority 0; iifname . oifname @ways drop; }
}
"""
"""Frames that find no way across the switch, from port to port."""
_EVERYBODY_ELSE = "root"
"""The port of the root namespace: manager, hosts and test."""


@dataclass
class Cluster(Installation):
    """An installation whose broker has several nodes."""

    path: Path
    directory: StateDir
    nodes: list[Broker]
    switch: Layout

    @property
    def node(self) -> Broker:  # type: ignore[override]
        return self.nodes[0]

    async def enrol(self, manager: Manager | Parts, id: str, url: str = "") -> Config:
        config = await super().enrol(manager, id, url)
        return msgspec.structs.replace(config, broker_urls=tuple(node.url for node in self.nodes))

    def complete(self) -> None:
        """Every node is there. One that does not come back from a partition is started anew: RabbitMQ 3.10
        may wait for Erlang's `global` for ever (rabbitmq-server#5442)."""
        for node in self.nodes:
            if not node.running():
                node.start()
        for node in self.nodes:
            try:
                node.wait_ready(timeout_s=REJOIN_S)
            except TimeoutError:
                node.kill()
                node.start()
                node.wait_ready()

    def serving(self) -> int:
        """How many nodes take connections: those that have not paused, which refuse at once."""
        found = 0
        for node in self.nodes:
            with suppress(OSError), socket.create_connection((node.address, node.port), timeout=2.0):
                found += 1
        return found

    def elected(self) -> float:
        """When a queue last got a leader, by the logs of the nodes; seconds of time.time()."""
        found = [
            datetime.fromisoformat(line.partition(" [")[0]).timestamp()
            for node in self.nodes
            for line in node.log.read_text(errors="replace").splitlines()
            if "candidate -> leader" in line
        ]
        return max(found, default=0.0)

    def leader_of(self, host: str) -> Broker:
        """The node that leads the host's policy queue."""
        for asked in self.nodes:
            try:
                with asked.client() as client:
                    queue = client.get(f"/api/queues/{topology.VHOST}/{topology.policy_queue(host)}").json()
            except httpx.TransportError:
                continue
            return next(node for node in self.nodes if node.node_name == queue["leader"])
        raise AssertionError("no node answers")

    @contextmanager
    def cut_off(self, node: Broker) -> Iterator[None]:
        """Nobody reaches it, and nobody is told: frames are lost, links stay up."""
        with self._cut([(_port(node), each) for each in self._ports() if each != _port(node)]):
            yield

    @contextmanager
    def parted(self) -> Iterator[None]:
        """No node reaches another; hosts and manager reach all of them."""
        with self._cut(list(combinations(map(_port, self.nodes), 2))):
            yield

    def _ports(self) -> list[str]:
        return [*map(_port, self.nodes), _EVERYBODY_ELSE]

    @contextmanager
    def _cut(self, between: list[tuple[str, str]]) -> Iterator[None]:
        ways = ", ".join(f'"{a}" . "{b}", "{b}" . "{a}"' for a, b in between)
        self._nft(f"add element bridge cut ways {{ {ways} }}")
        try:
            yield
        finally:
            self._nft("flush set bridge cut ways")

    def _nft(self, text: str) -> None:
        subprocess.run(in_namespace(self.switch.mgmt, ["nft", "-f", "-"]), input=text.encode(), check=True)


def _port(node: Broker) -> str:
    return f"h-{node.directory.name}"


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    name = name_of("brokers")
    try:
        number = network.claim_number(name)
        switch = layout.plan(name, number, spec.Spec(hosts=NODES, vms=(), segments=()))
        network.build_fabric(switch)
        for host in switch.hosts:
            network.build_host(switch, host)
        addresses = [host.address for host in switch.hosts]
        state = StateDir(
            manager_config.Config(
                listen=f"{switch.root_address}:8443",
                brokers=tuple(f"{address}:5671" for address in addresses),
                broker_apis=tuple(f"https://{address}:15671" for address in addresses),
                state_dir=directory / "manager",
            )
        )
        state.create()
        found = Cluster(directory, state, _nodes(directory, state, switch), switch)
        found._nft(_CUT)
        first, *others = found.nodes
        first.start()
        first.wait_ready()
        for node in others:
            node.start()
        for node in others:
            node.wait_ready()
        yield found
    finally:
        network.remove(name)


def _nodes(directory: Path, state: StateDir, switch: Layout) -> list[Broker]:
    tls = Tls(state.path / "ca.crt", state.path / "broker.crt", state.path / "broker.key")
    password, cookie = state.broker_password(), secrets.token_hex(20)
    nodes = []
    for host in switch.hosts:
        others = [other.address for other in switch.hosts if other != host]
        settings, environment = _shown(directory / "etc" / host.name, [host.address, *others])
        nodes.append(
            Broker(
                directory / host.name,
                host.address,
                tls,
                password,
                namespace=host.namespace,
                name="rabbit",
                cookie=cookie,
                settings=settings,
                erl_args=environment["SERVER_ADDITIONAL_ERL_ARGS"],
            )
        )
        assert nodes[-1].node_name == environment["NODENAME"]
    return nodes


def _shown(etc: Path, addresses: list[str]) -> tuple[str, dict[str, str]]:
    """What the shown commands write on the machine that has the first of these addresses: into
    rabbitmq.conf, and into the environment."""
    (script,) = commands("manager_stub/INSTALL.md", "A cluster of brokers")
    script = script.replace("/etc/rabbitmq", str(etc))
    for number, address in enumerate(addresses, 1):
        script = script.replace(f"rabbit@10.0.0.{number}", f"rabbit@{address}")
    etc.mkdir(parents=True)
    subprocess.run(["bash", "-euc", script], check=True)
    lines = shlex.split((etc / "rabbitmq-env.conf").read_text())
    return (etc / "rabbitmq.conf").read_text(), dict(line.split("=", 1) for line in lines)
