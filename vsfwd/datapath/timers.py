"""How long flows live: the map `timers`, for every slot a lifetime by state.

Timers are in no bank and no verdict depends on them but through what is expired: a flow takes the lifetime
that stands here when a packet moves it, so a change reaches each flow at its next packet, ends none earlier
and brings none back."""

import mmap
from collections.abc import Mapping
from typing import Final

from vsfwd.datapath.loader import Programs
from vsfwd.datapath.schema import State, constant
from vsfwd.policy.model import SessionTimers

_STATES_OF: Final = {
    "tcp_first_packet": ("SYN_SENT",),
    "tcp_opening": ("SYN_RECV",),
    "tcp_established": ("ESTABLISHED",),
    "tcp_closing": ("CLOSING_INITIATOR", "CLOSING_RESPONDER"),
    "tcp_finwait": ("FIN_WAIT",),
    "tcp_closed": ("CLOSED",),
    "udp_first_packet": ("FIRST",),
    "udp_single": ("SINGLE",),
    "udp_multiple": ("MULTIPLE",),
    "icmp_first_packet": ("ECHO",),
    "icmp_error_reply": ("ECHO_ERROR",),
}
"""NSX's words in ours. Those of UDP are also for protocols that are neither TCP, UDP nor ICMP, as in pf."""


def timeouts_s(timers: SessionTimers) -> dict[str, float]:
    """Seconds by state."""
    fixed: dict[str, float] = {"FRAGMENTS": 30, "PINHOLE": 30}  # NSX has no word for them
    seconds = timers.seconds()
    return fixed | {state: seconds[name] for name, states in _STATES_OF.items() for state in states}


TIMEOUTS_S: Final = timeouts_s(SessionTimers())


class Timers:
    """Owns the map. `write` puts each lifetime by one aligned store, while packets pass."""

    def __init__(self, programs: Programs) -> None:
        self._hz = programs.hz
        self._states = constant("STATES")
        self._pages = mmap.mmap(programs.fd("timers"), 8 * constant("SLOTS") * self._states)
        self._jiffies = memoryview(self._pages).cast("Q")

    def write(self, slot: int, seconds: Mapping[str, float]) -> None:
        for state, lifetime in seconds.items():
            self._jiffies[slot * self._states + State[state]] = round(lifetime * self._hz)

    def read(self, slot: int) -> dict[str, float]:
        """Seconds by state, in the words of `conntrack.Flow`."""
        first = slot * self._states
        return {state.name.lower(): self._jiffies[first + state] / self._hz for state in State}

    def close(self) -> None:
        self._jiffies.release()
        self._pages.close()
