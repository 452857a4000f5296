"""Three RabbitMQ nodes that are one cluster, on loopback: an epmd and a cookie of their own, quorum queues.

with cluster(tmp_path) as found:
    found.nodes[0].processes()["node"].kill()
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from manager_stub.state_dir import Addresses, StateDir
from tests.harness.broker import free_ports
from tests.harness.installation import Installation
from vagrant.lab.broker import Broker, Tls
from vsfwd.config import Config
from vsfwd.protocol import topology

NODES = 3


@dataclass
class Cluster(Installation):
    """An installation whose broker has several nodes."""

    path: Path
    directory: StateDir
    nodes: list[Broker]

    @property
    def node(self) -> Broker:  # type: ignore[override]
        return self.nodes[0]

    async def enrol(self, manager: object, id: str, url: str = "") -> Config:
        config = await super().enrol(manager, id, url)  # type: ignore[arg-type]
        return msgspec.structs.replace(config, broker_urls=tuple(node.url for node in self.nodes))

    def leader_of(self, host: str) -> Broker:
        """The node that leads the host's policy queue."""
        for asked in self.nodes:
            try:
                with asked.client() as client:
                    queue = client.get(f"/api/queues/{topology.VHOST}/{topology.policy_queue(host)}").json()
            except httpx.TransportError:
                continue
            return next(node for node in self.nodes if f"{node.name}@127.0.0.1" == queue["leader"])
        raise AssertionError("no node answers")


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    rest, epmd_port, *ports = free_ports(2 + 3 * NODES)
    by_node = [ports[3 * number : 3 * number + 3] for number in range(NODES)]
    state = StateDir(directory / "manager")
    state.create(
        Addresses(
            f"127.0.0.1:{rest}",
            ",".join(f"127.0.0.1:{port}" for port, _, _ in by_node),
            ",".join(f"https://127.0.0.1:{api_port}" for _, api_port, _ in by_node),
        )
    )
    names, cookie = tuple(f"vsfw{number}" for number in range(NODES)), secrets.token_hex(20)
    nodes = [
        Broker(
            directory / name,
            "127.0.0.1",
            Tls(state.path / "ca.crt", state.path / "broker.crt", state.path / "broker.key"),
            state.broker_password(),
            port=port,
            api_port=api_port,
            epmd_port=epmd_port,
            node_port=node_port,
            name=name,
            cookie=cookie,
            cluster=names,
        )
        for name, (port, api_port, node_port) in zip(names, by_node, strict=True)
    ]
    try:
        first, *others = nodes
        first.start()
        first.wait_ready()
        for node in others:
            node.start()
        for node in others:
            node.wait_ready()
        yield Cluster(directory, state, nodes)
    finally:
        for node in reversed(nodes):
            node.kill()
