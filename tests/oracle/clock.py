"""Time that goes on at once: whatever the tables of a vNIC hold ends that much earlier.

To the programs it is the same whether the clock moves or what is compared with it. All timers of a walk are
whole hundreds of seconds and fifty, all pauses whole hundreds: so nothing ends within fifty seconds of a
packet, and a walk takes a few."""

import struct
from random import Random
from typing import Final

from vsfwd.datapath import Datapath, bpf
from vsfwd.datapath.schema import Layout, constant
from vsfwd.policy.model import SessionTimers

TIMED: Final = {"fragments": "FRAGMENTS", "pinholes": "PINHOLES"}
"""Tables with a few places for each slot, beside flows."""
_TIMERS: Final = tuple(SessionTimers().seconds())


def random_timers(rng: Random) -> SessionTimers:
    return SessionTimers(**{name: 150 + 100 * rng.randrange(9) for name in _TIMERS})


def random_pause(rng: Random) -> int:
    return rng.choice((100, 100, 200, 300, 500, 1000))


def pause(datapath: Datapath, seconds: int) -> None:
    ticks = seconds * datapath._programs.hz
    for slot in datapath.slots.values():
        _age_flows(datapath, slot, ticks)
        for table, places in TIMED.items():
            layout, fd = datapath._programs.layouts(table)[1], datapath._programs.fd(table)
            for place in range(slot * constant(places), (slot + 1) * constant(places)):
                key = struct.pack("<I", place)
                entry = bpf.lookup(fd, key, layout.size)
                if entry and any(entry):
                    bpf.update(fd, key, _older(layout, entry, ticks))


def _age_flows(datapath: Datapath, slot: int, ticks: int) -> None:
    tables, ways = datapath._flows, constant("WAYS")
    size = tables._place.size
    with bpf.closing(tables.held_open(slot)) as inner:
        for key, raw in bpf.items(inner, 4, tables._bucket.size, bpf.shape_of(inner).entries):
            checks, places = raw[: 8 * ways], raw[8 * ways :]
            if not any(checks):
                continue
            older = b""
            for at in range(0, ways * size, size):
                flow = at + tables._key.size
                older += places[at:flow] + _older(tables._value, places[flow : at + size], ticks)
            bpf.update(inner, key, checks + older)


def _older(layout: Layout, raw: bytes, ticks: int) -> bytes:
    entry = layout.unpack(raw)
    return layout.pack(**entry | {"expires": max(0, entry["expires"] - ticks)})
