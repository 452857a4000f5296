"""What the client of `motion` says, a process of its own so that nothing but the network makes it late: every
millisecond a numbered datagram of one flow, a number on one TCP connection, and a datagram of a new flow to a
port that the policy forbids.

    python -m tests.bench.ticker ADDRESS        until standard input ends; then how many numbers were sent
"""

import json
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Final

ALLOWED, FORBIDDEN = 7000, 7001
TICK_S: Final = 0.001
NUMBER: Final = struct.Struct("!Q")


def main(address: str) -> None:
    flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream = socket.create_connection((address, ALLOWED))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setblocking(False)
    said, begun = 0, time.monotonic()
    waiting = bytearray()
    while not select.select([sys.stdin], [], [], max(0.0, begun + said * TICK_S - time.monotonic()))[0]:
        number = NUMBER.pack(said)
        waiting += number
        flow.sendto(number, (address, ALLOWED))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fresh:
            fresh.sendto(number, (address, FORBIDDEN))
        said += 1
        with suppress(BlockingIOError):  # while nothing is acknowledged
            del waiting[: stream.send(waiting)]
    stream.setblocking(True)
    stream.sendall(waiting)
    stream.shutdown(socket.SHUT_WR)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
