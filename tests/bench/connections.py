"""Connect, request, response, close: one connection after the other, as fast as it goes.

    python -m tests.bench.connections serve ADDRESS PORT
    python -m tests.bench.connections connect ADDRESS PORT SECONDS     prints connections a second

The server closes first: TIME_WAIT then stays with it, and the client never runs out of ports. A packet that
is lost costs a retransmission timeout, so a firewall that drops shows as a rate near zero; who starts the
client bounds it.
"""

import socket
import sys
import time

MESSAGE = b"\0" * 64


def serve(address: str, port: int) -> None:
    with socket.create_server((address, port), backlog=1024) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(len(MESSAGE))
                connection.send(MESSAGE)


def connect(address: str, port: int, seconds: float) -> float:
    count = 0
    begun = now = time.monotonic()
    while now - begun < seconds:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect((address, port))
            connection.send(MESSAGE)
            while connection.recv(len(MESSAGE)):
                pass
        count += 1
        now = time.monotonic()
    return count / (now - begun)


if __name__ == "__main__":
    role, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if role == "serve":
        serve(address, port)
    else:
        print(connect(address, port, float(sys.argv[4])))
