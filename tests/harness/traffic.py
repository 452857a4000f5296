"""Traffic that runs while a test does something else, and tells afterwards exactly what of it arrived."""

import socket
import struct
import threading
from typing import Self

from tests.harness.lab import World
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until

_NUMBER = struct.Struct("!Q")
SILENCE_S = 0.5
"""No queue on the way holds a datagram for longer, on a busy machine either."""
_SO_RCVBUFFORCE, _ROOM = 33, 1 << 24
"""What is lost for want of room, while the receiver has no CPU, would be the test's fault."""


class Stream:
    """Numbered datagrams from one VM to a port of another, `rate` a second, each a new flow if `fresh`.

    `sent` and `received` may be read at any time; after the `with` block nothing is on its way any more.
    """

    def __init__(
        self, world: World, source: str, destination: str, port: int, *, rate: int = 200, fresh: bool = False
    ) -> None:
        self.sent: set[int] = set()
        self.received: set[int] = set()
        self._target = (world.address(destination), port)
        self._namespace = world.vm(source).namespace
        self._pause_s = 1 / rate
        self._fresh = fresh
        self._stop = threading.Event()
        with inside(world.vm(destination).namespace):
            self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("", port))
        self._receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._receiver.settimeout(SILENCE_S)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._receiver.close()

    def flowing(self, more: int = 20) -> None:
        """Returns when `more` datagrams from now on have been sent."""
        wanted = len(self.sent) + more
        wait_until(lambda: len(self.sent) >= wanted, "datagrams sent", timeout_s=30.0)

    @property
    def lost(self) -> set[int]:
        return self.sent - self.received

    def _send(self) -> None:
        number = 0
        client = self._client()
        while not self._stop.wait(self._pause_s):
            if self._fresh:
                client.close()
                client = self._client()
            # Counted first: a datagram never arrives uncounted.
            self.sent.add(number)
            client.sendto(_NUMBER.pack(number), self._target)
            number += 1
        client.close()

    def _client(self) -> socket.socket:
        with inside(self._namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _receive(self) -> None:
        """Until it has been silent for so long after the sender has stopped."""
        sender = self._threads[0]
        while True:
            last = not sender.is_alive()
            try:
                self.received.add(_NUMBER.unpack(self._receiver.recv(64))[0])
            except TimeoutError:
                if last:
                    return
