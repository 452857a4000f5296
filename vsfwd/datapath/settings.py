"""What the daemon sets for all vNICs: the map `settings`, and the secrets that lie in it."""

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from vsfwd.datapath import bpf
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.portguard import PortGuard
from vsfwd.datapath.timers import TIMEOUTS_S
from vsfwd.datapath.transitions import packed_transitions


@dataclass(frozen=True)
class Limit:
    """At most `burst` at once, and `rate` a second from then on."""

    rate: int
    burst: int


@dataclass(frozen=True)
class Settings:
    """`flows_per_vnic`: places of a vNIC's flow table, at most 524,288. `timeouts_s`: how long flows live, by
    state, at vNICs to which `set_timers` has given nothing else. `log_limit`: events of one rule at
    one vNIC. `reject_limit`: replies of one vNIC to what its rules reject, in each direction; the rest is
    dropped only. `guard_ports`: names of bridge ports that are closed but for vNICs that are attached."""

    flows_per_vnic: int = 32768
    timeouts_s: dict[str, float] = field(default_factory=lambda: dict(TIMEOUTS_S))
    log_limit: Limit = Limit(rate=100, burst=200)
    reject_limit: Limit = Limit(rate=100, burst=200)
    snoop_limit: Limit = Limit(rate=8, burst=16)
    guard_ports: tuple[str, ...] = ()


class Marks(NamedTuple):
    """By which programs know each other's packets: `mark` with a vNIC's slot, `stamp` for the port guard."""

    mark: int
    stamp: int


def write(programs: Programs, settings: Settings, port_guard: PortGuard) -> Marks:
    """Limits for the programs, from the next packet on. Secrets are made once and kept, since flows lie where
    the seeds say."""
    fd, layout = programs.fd("settings"), programs.layouts("settings")[1]
    kept = layout.unpack(bpf.lookup(fd, bytes(4), layout.size) or bytes(layout.size))
    seed = kept["seed"] if any(kept["seed"]) else os.urandom(len(kept["seed"]))
    # No vNIC's mark may be 0, which every packet has: a bit above all slots is set.
    mark = kept["mark"] or int.from_bytes(os.urandom(4), "little") | 1 << 31
    marks = Marks(mark, _stamp(port_guard, kept["stamp"]))
    packed = layout.pack(
        seed=seed,
        mark=marks.mark,
        stamp=marks.stamp,
        log=programs.limit(settings.log_limit.rate, settings.log_limit.burst),
        reject=programs.limit(settings.reject_limit.rate, settings.reject_limit.burst),
        snoop=programs.limit(settings.snoop_limit.rate, settings.snoop_limit.burst),
        transition=packed_transitions(),
    )
    bpf.update(fd, bytes(4), packed)
    return marks


def _stamp(port_guard: PortGuard, kept: int) -> int:
    """That of a table which is there holds: programs of whichever version put it on packets. It is no vNIC's
    mark, which have the highest bit, and not 0."""
    if not port_guard.on:
        return 0
    found = port_guard.stamp_in_force() or kept
    return found or int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF | 1
