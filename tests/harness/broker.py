"""A RabbitMQ node for tests that need a broker but no lab: free ports of 127.0.0.1, throw-away certificates.

    with private_broker(tmp_path) as (broker, pki):
        connect(broker.url + "/vsfw?auth=external", ssl_context=pki.client_context("manager"))

It holds nothing but the management API's user; vhost, users and queues are for the test, or the manager, to
declare.
"""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.harness.pki import Pki
from vagrant.lab.broker import Broker

_HELD: Final[list[socket.socket]] = []


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
    """Nobody else is given them as long as this process lives, neither to listen on nor to connect from: a
    server takes seconds until it listens, and may be started again. A socket that is bound to a port and does
    not listen leaves it to those who ask for it by number, with SO_REUSEADDR as servers do."""
    for _ in range(count):
        _HELD.append(socket.socket())
        _HELD[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _HELD[-1].bind(("127.0.0.1", 0))
    return [held.getsockname()[1] for held in _HELD[-count:]]
