"""What somebody who means harm makes of a frame: bits flipped, bytes cut off or put behind, lengths that
lie. The mutations know where the fields are, since random bytes alone hardly get past the ethertype."""

from random import Random
from typing import Final

_IP: Final = 14
_NEXT: Final = (0, 1, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 255)
_ETHERTYPES: Final = (0x0800, 0x86DD, 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x05DC, 0x0004, 0x8847, 0x9100)
_SMALL: Final = (0, 1, 4, 5, 7, 8, 15, 19, 20, 21, 39, 40, 255, 0xFFFF)
MAX_BYTES: Final = 1500


def malformed(rng: Random, frame: bytes) -> bytes:
    """One to three mutations."""
    data = bytearray(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) >= _IP + 20:
            rng.choice(_MUTATIONS)(rng, data)
    del data[MAX_BYTES:]
    return bytes(data) + bytes(max(0, least(data) - len(data)))


def least(frame: bytes | bytearray) -> int:
    """BPF_PROG_TEST_RUN makes no packet of a frame that ends within its IP header."""
    return _IP + {b"\x08\0": 20, b"\x86\xdd": 40}.get(bytes(frame[12:14]), 1)


def _flip(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_in_headers(rng: Random, data: bytearray) -> None:
    data[rng.randrange(_IP, min(len(data), 90))] ^= 1 << rng.randrange(8)


def _cut(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(min(least(data), len(data)), len(data) + 1) :]


def _grow(rng: Random, data: bytearray) -> None:
    data += rng.randbytes(rng.choice((1, 2, 8, 60, 600)))


def _lie(rng: Random, data: bytearray) -> None:
    """Another total or payload length."""
    at = _IP + (2 if data[_IP] >> 4 == 4 else 4)
    claimed = int.from_bytes(data[at : at + 2], "big")
    value = rng.choice((claimed + 1, claimed - 1, claimed - 8, claimed + 8, rng.choice(_SMALL)))
    data[at : at + 2] = (value % 65536).to_bytes(2, "big")


def _header_length(rng: Random, data: bytearray) -> None:
    data[_IP] = data[_IP] & 0xF0 | rng.randrange(16)


def _version(rng: Random, data: bytearray) -> None:
    data[_IP] = data[_IP] & 0x0F | rng.randrange(16) << 4


def _fragment(rng: Random, data: bytearray) -> None:
    """Fragment fields of IPv4; in IPv6, whatever is there (the middle of the source)."""
    field = rng.choice((0x2000, 0x0001, 0x2001, 0x4000, 0x8000, rng.randrange(65536)))
    data[_IP + 6 : _IP + 8] = field.to_bytes(2, "big")


def _protocol(rng: Random, data: bytearray) -> None:
    data[_IP + (9 if data[_IP] >> 4 == 4 else 6)] = rng.choice(_NEXT)


def _chain(rng: Random, data: bytearray) -> None:
    """An extension header, or bytes that look like one, behind the IP header."""
    if data[_IP] >> 4 != 6:
        return _protocol(rng, data)
    words = rng.choice((0, 0, 1, 3, 62, 255))
    extension = bytes([data[_IP + 6], words]) + rng.randbytes(6 + 8 * rng.choice((0, min(words, 62))))
    data[_IP + 6] = rng.choice((0, 43, 44, 60, 51))
    data[_IP + 40 : _IP + 40] = extension
    if rng.random() < 0.7:
        payload = int.from_bytes(data[_IP + 4 : _IP + 6], "big") + len(extension)
        data[_IP + 4 : _IP + 6] = (payload % 65536).to_bytes(2, "big")


def _data_offset(rng: Random, data: bytearray) -> None:
    """Of TCP, where it usually is."""
    at = _IP + (20 if data[_IP] >> 4 == 4 else 40) + 12
    if at < len(data):
        data[at] = rng.randrange(256)


def _ethertype(rng: Random, data: bytearray) -> None:
    data[12:14] = rng.choice(_ETHERTYPES).to_bytes(2, "big")


def _address(rng: Random, data: bytearray) -> None:
    """An address nobody has, or an IPv4 one in an IPv6 packet."""
    at = _IP + rng.choice((12, 16) if data[_IP] >> 4 == 4 else (8, 24))
    data[at : at + 4] = rng.randbytes(4)
    if data[_IP] >> 4 == 6 and rng.random() < 0.5:
        data[at : at + 16] = bytes(10) + rng.choice((b"\xff\xff", b"\xff\xfe", b"\0\0")) + rng.randbytes(4)


_MUTATIONS: Final = (
    *(_flip, _flip_in_headers, _flip_in_headers, _cut, _grow, _lie, _lie, _header_length, _version),
    *(_fragment, _protocol, _chain, _chain, _data_offset, _ethertype, _address),
)
