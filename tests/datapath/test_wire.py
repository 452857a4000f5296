"""Real traffic through both vNICs of a connection on one host."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness.datapath import inside, until
from tests.harness.packets import IPV4, IPV6, Net
from tests.harness.wired import Wired, kernel_has_ipv4_big_tcp

BULK = 32 * 1024 * 1024
BIG_TCP = [IPV4, IPV6] if kernel_has_ipv4_big_tcp() else [IPV6]


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "no-offload"])
@pytest.mark.parametrize("net", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_bulk_passes_whole(wired: Wired, net: Net, offload: bool) -> None:
    """Large segments, whose length the wire will never see, are parsed and counted like any; nothing is
    dropped."""
    wired.offload(offload)
    wired.install(["allow service icmpv6", "allow from web to db service tcp/9", "drop service tcp", "drop"])
    before = wired.lost(3)
    port = bulk(wired, net)
    assert wired.lost(3) == before
    until(lambda: wired.states(port) == ["fin_wait", "fin_wait"])
    assert all(carried > BULK for carried in wired.carried(port))


@pytest.mark.parametrize("net", BIG_TCP, ids=lambda net: net.family)
def test_x37_segments_too_large_to_say_their_length_pass(wired: Wired, net: Net) -> None:
    """BIG TCP: more than 65,535 bytes in one packet, whose length field is 0. They are parsed by what there
    is, and counted whole."""
    wired.offload(True)
    wired.install(["allow service icmpv6", "allow from web to db service tcp/9", "drop service tcp", "drop"])
    before = wired.lost(3)
    with wired.big_tcp():
        port = bulk(wired, net)
    assert wired.lost(3) == before
    assert all(size > 65536 for size in wired.largest(port))


@contextmanager
def one_cpu() -> Iterator[None]:
    """Segments come in the order they were sent in. Of two busy CPUs one may keep a segment until it has been
    sent again and a window more has followed, and what is older than a window is dropped, as it should."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def bulk(wired: Wired, net: Net) -> int:
    """Sends BULK bytes to port 9 and answers the port they came from."""
    with one_cpu():
        return _bulk(wired, net)


def _bulk(wired: Wired, net: Net) -> int:
    family = socket.AF_INET6 if net is IPV6 else socket.AF_INET
    with inside(wired.twin):
        listener = socket.create_server((net.twin, 9), family=family)
    with inside(wired.here):
        speaker = socket.socket(family, socket.SOCK_STREAM)
    with listener, speaker:
        speaker.connect((net.twin, 9))
        accepted, _ = listener.accept()
        writer = threading.Thread(target=pour, args=[speaker])
        writer.start()
        with accepted:
            received = 0
            while chunk := accepted.recv(1 << 20):
                received += len(chunk)
        writer.join()
        assert received == BULK
        port: int = speaker.getsockname()[1]
        return port


def pour(speaker: socket.socket) -> None:
    speaker.sendall(bytes(BULK))
    speaker.shutdown(socket.SHUT_WR)
