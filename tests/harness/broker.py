"""A RabbitMQ node for tests that need a broker but no lab: free ports of 127.0.0.1, throw-away certificates.

    with private_broker(tmp_path) as (broker, pki):
        connect(broker.url + "/vsfw?auth=external", ssl_context=pki.client_context("manager"))

It holds nothing but the management API's user; vhost, users and queues are for the test, or the manager, to
declare.
"""

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness.pki import Pki
from vagrant.lab.broker import Broker


@contextmanager
def private_broker(directory: Path) -> Iterator[tuple[Broker, Pki]]:
    pki = Pki(directory)
    port, api_port, epmd_port, node_port = free_ports(4)
    broker = Broker(
        directory / "broker",
        "127.0.0.1",
        pki.server("127.0.0.1", "broker"),
        secrets.token_urlsafe(),
        port=port,
        api_port=api_port,
        epmd_port=epmd_port,
        node_port=node_port,
    )
    try:
        broker.start()
        broker.wait_ready()
        yield broker, pki
    finally:
        broker.kill()


def free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]
