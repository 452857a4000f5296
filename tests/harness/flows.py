"""Flow tables as they are found on hosts: mixed addresses, ports, states and counters, from one integer."""

import numpy as np

from vsfwd.migration.state import FLOW, Array

MAPPED = (0xFF, 0xFF)


def realistic_flows(count: int, seed: int = 1) -> Array:
    """Mostly established TCP of a server and its clients, a fifth of it IPv6, no two with the same key."""
    random = np.random.default_rng(seed)
    flows = np.zeros(count, FLOW)
    key, side = flows["key"], flows["side"]
    ipv6, serves, tcp = (random.random(count) < share for share in (0.2, 0.7, 0.85))
    key["remote"][:, 12:] = random.integers(0, 256, (count, 4))
    key["local"][:, 12:] = 10, 0, 0, 5
    key["remote"][:, 10:12] = key["local"][:, 10:12] = MAPPED
    key["remote"][ipv6] = random.integers(0, 256, (ipv6.sum(), 16))
    key["local"][ipv6] = np.arange(16)
    ephemeral = (32768 + np.arange(count) % 28000).astype(">u2").view("<u2")
    known = random.choice([443, 80, 22, 5432, 53], count).astype(">u2").view("<u2")
    key["remote_port"] = np.where(serves, ephemeral, known)
    key["local_port"] = np.where(serves, known, ephemeral)
    key["protocol"] = np.where(tcp, 6, 17)
    flows["state"] = np.where(tcp, random.choice([3, 3, 3, 3, 4, 5, 6], count), 10)
    flows["initiator"], flows["answered"] = ~serves, 1
    flows["left_ms"] = np.where(
        tcp, 43_200_000 - random.integers(0, 600_000, count), random.integers(1, 60_000, count)
    )
    flows["rule"] = random.choice([1001, 1002, 1017, 2044], count)
    of_tcp = np.flatnonzero(tcp)
    pair = (len(of_tcp), 2)
    end = random.integers(0, 2**32, pair).astype("<u4")
    acked = end[:, ::-1] - random.choice([0, 0, 0, 1448, 2896], pair).astype("<u4")
    window = random.integers(200, 65536, pair).astype("<u4")
    values = {"end": end, "acked": acked, "window": window, "limit": acked[:, ::-1] + (window[:, ::-1] << 7)}
    for name, value in values.items():
        side[name][of_tcp] = value
    side["scale"][of_tcp] = 0x87
    flows["packets"] = random.lognormal(4, 2, (count, 2)).astype("<u8")
    flows["bytes"] = flows["packets"] * random.integers(60, 1500, (count, 2)).astype("<u8")
    return flows
