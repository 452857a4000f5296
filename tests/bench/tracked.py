"""Thousands of TCP connections that only a firewall knows: frames from the ends of two VMs, addressed to the
other's MAC and to IP addresses that neither has, so no kernel answers and none ends them."""

import random
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.bench.ticker import ALLOWED
from vagrant.lab.layout import Vm
from vagrant.lab.probe import inside

AT_ONCE: Final = 32
"""Connections that begin together: fewer than places for half-open ones."""
PATIENCE_S: Final = 10.0
_ETH_P_IP: Final = 0x0800
_SYN, _ACK, _PUSH = 2, 16, 8


@dataclass(frozen=True)
class Connection:
    """As the client has it; `client` and `server` are the first sequence numbers, `asked` and
    `answered` how many bytes they say."""

    address: bytes
    port: int
    client: int
    server: int
    asked: int
    answered: int


def establish(client: Vm, server: Vm, count: int, seed: int) -> None:
    """So many, of different addresses, ports, sequence numbers and lengths; returns when their last packets
    have arrived."""
    chance = random.Random(seed)
    local = bytes((10, 255, 255, 254))
    with ExitStack() as stack:
        ends = [stack.enter_context(_end(vm)) for vm in (client, server)]
        for number in range(0, count, AT_ONCE):
            connections = [_connection(chance) for _ in range(min(AT_ONCE, count - number))]
            steps = zip(*(_conversation(each) for each in connections), strict=True)
            for step in steps:
                sender = step[0][0]
                frames = [
                    _frame((client, server), local, each, *said)
                    for each, said in zip(connections, step, strict=True)
                ]
                _exchange(ends[sender], ends[1 - sender], frames)


def _connection(chance: random.Random) -> Connection:
    address = bytes((10, chance.randrange(64), chance.randrange(256), chance.randrange(1, 255)))
    seqs = chance.getrandbits(32), chance.getrandbits(32)
    return Connection(
        address, chance.randrange(1024, 65536), *seqs, chance.randrange(1, 400), chance.randrange(1, 1400)
    )


def _conversation(each: Connection) -> Iterator[tuple[int, int, tuple[int, int], int]]:
    """Who speaks (0: the client), flags, how far both sides have come, bytes."""
    asked, answered = each.asked, each.answered
    yield 0, _SYN, (0, 0), 0
    yield 1, _SYN | _ACK, (1, 0), 0
    yield 0, _ACK, (1, 1), 0
    yield 0, _ACK | _PUSH, (1, 1), asked
    yield 1, _ACK | _PUSH, (1 + asked, 1), answered
    yield 0, _ACK, (1 + asked, 1 + answered), 0


def _frame(
    ends: tuple[Vm, Vm],
    local: bytes,
    each: Connection,
    sender: int,
    flags: int,
    seqs: tuple[int, int],
    size: int,
) -> bytes:
    client, server = (each.client + seqs[0]) & 0xFFFFFFFF, (each.server + seqs[1]) & 0xFFFFFFFF
    if sender == 0:
        source, target, ports, seq, ack = each.address, local, (each.port, ALLOWED), client, server
    else:
        source, target, ports, seq, ack = local, each.address, (ALLOWED, each.port), server, client
    options = b"\x02\x04\x05\xb4\x01\x03\x03\x07" if flags & _SYN else b""
    ack = ack if flags & _ACK else 0
    offset = (20 + len(options)) // 4 << 4
    tcp = struct.pack("!HHIIBBHHH", *ports, seq, ack, offset, flags, 64000, 0, 0) + options + bytes(size)
    pseudo = source + target + struct.pack("!HH", 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", _sum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + source + target
    ip = ip[:10] + struct.pack("!H", _sum(ip)) + ip[12:]
    macs = [bytes.fromhex(vm.mac.replace(":", "")) for vm in (ends[1 - sender], ends[sender])]
    return b"".join(macs) + struct.pack("!H", _ETH_P_IP) + ip + tcp


def _sum(content: bytes) -> int:
    """RFC 1071."""
    content += bytes(len(content) % 2)
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _end(vm: Vm) -> socket.socket:
    with inside(vm.namespace):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
    end.bind(("eth0", _ETH_P_IP))
    end.settimeout(PATIENCE_S)
    return end


def _exchange(sender: socket.socket, receiver: socket.socket, frames: Sequence[bytes]) -> None:
    """Returns when they are there."""
    missing = {frame[14:] for frame in frames}
    for frame in frames:
        sender.send(frame)
    while missing:
        missing.discard(receiver.recv(2048)[14:])
