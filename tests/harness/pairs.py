"""TCP connections between two namespaces, opened and spoken over by hand, both ends of each."""

import socket

from vagrant.lab.probe import inside

PATIENCE_S = 20
"""Of what a flow lets by, however often a busy kernel loses it; what has no flow any more never comes."""


class Pair:
    """A server in one namespace, and connections to it from another."""

    def __init__(self, client: str, server: str, address: str) -> None:
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.client = client
        with inside(server):
            self.listener = socket.create_server((address, 0), family=self.family, backlog=64)
        self.where = (address, self.listener.getsockname()[1])

    def connect(self) -> "Connection":
        with inside(self.client):
            near = socket.socket(self.family)
        near.settimeout(PATIENCE_S)
        near.connect(self.where)
        far, _ = self.listener.accept()
        far.settimeout(PATIENCE_S)
        return Connection(near, far)

    def close(self) -> None:
        self.listener.close()


class Connection:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.ports: tuple[int, int] = (near.getsockname()[1], near.getpeername()[1])
        """One of them alone may be another connection's too, from another namespace."""

    def speak(self) -> None:
        """A word each way, which arrives."""
        for here, there in ((self.near, self.far), (self.far, self.near)):
            here.sendall(b"word")
            assert there.recv(4) == b"word"

    def close(self) -> None:
        self.near.close()
        self.far.close()
