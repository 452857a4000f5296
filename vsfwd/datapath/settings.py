"""What the daemon sets for all vNICs: the map `settings`, and the secrets that lie in it."""

import os
from dataclasses import dataclass, field
from typing import Any

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


def write(programs: Programs, settings: Settings, stamp: int) -> int:
    """Limits for the programs, from the next packet on. Secrets are made once and kept, since flows lie where
    the seeds say. Answers `mark`, which with a vNIC's slot is by what programs know their own replies."""
    kept, layout = _kept(programs), programs.layouts("settings")[1]
    seed = kept["seed"] if any(kept["seed"]) else os.urandom(len(kept["seed"]))
    # No vNIC's mark may be 0, which every packet has: a bit above all slots is set.
    mark: int = kept["mark"] or int.from_bytes(os.urandom(4), "little") | 1 << 31
    packed = layout.pack(
        seed=seed,
        mark=mark,
        stamp=stamp,
        log=programs.limit(settings.log_limit.rate, settings.log_limit.burst),
        reject=programs.limit(settings.reject_limit.rate, settings.reject_limit.burst),
        snoop=programs.limit(settings.snoop_limit.rate, settings.snoop_limit.burst),
        transition=packed_transitions(),
    )
    bpf.update(programs.fd("settings"), bytes(4), packed)
    return mark


def stamp_for(port_guard: PortGuard, programs: Programs) -> int:
    """For a daemon that starts. That of a table which is there holds: programs of whichever version put it on
    packets. It is no vNIC's mark, which have the highest bit, and not 0."""
    if not port_guard.on:
        return 0
    found: int = port_guard.stamp_in_force() or _kept(programs)["stamp"]
    return found or int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF | 1


def _kept(programs: Programs) -> dict[str, Any]:
    fd, layout = programs.fd("settings"), programs.layouts("settings")[1]
    return layout.unpack(bpf.lookup(fd, bytes(4), layout.size) or bytes(layout.size))
