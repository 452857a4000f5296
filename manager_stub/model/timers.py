"""Profiles of session timers and who has them."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from manager_stub.model.fields import Entity, Path, Reference, Sequence
from vsfwd.policy.model import MAX_TIMER, MIN_ESTABLISHED, MIN_TIMER

Timer = Annotated[int, Field(ge=MIN_TIMER, le=MAX_TIMER)]
"""Seconds, within NSX's limits."""


class SessionTimerProfile(Entity):
    """How long flows live after a packet, by what they have seen. What is not said is NSX's default."""

    resource_type: Literal["PolicyFirewallSessionTimerProfile"] = "PolicyFirewallSessionTimerProfile"
    tcp_first_packet: Timer = 120
    tcp_opening: Timer = 30
    tcp_established: Annotated[int, Field(ge=MIN_ESTABLISHED, le=MAX_TIMER)] = 43200
    tcp_closing: Timer = 120
    tcp_finwait: Timer = 45
    tcp_closed: Timer = 20
    udp_first_packet: Timer = 60
    udp_single: Timer = 30
    udp_multiple: Timer = 60
    icmp_first_packet: Timer = 20
    icmp_error_reply: Timer = 10


TIMERS: Final = tuple(
    name for name in SessionTimerProfile.model_fields if name.startswith(("tcp", "udp", "icmp"))
)


class SessionTimerBinding(Entity):
    """Gives the members of the group in its path a profile. Of several that would, the one with the lowest
    number does, then the one whose path is first."""

    resource_type: Literal["PolicyFirewallSessionTimerProfileBindingMap"] = (
        "PolicyFirewallSessionTimerProfileBindingMap"
    )
    firewall_session_timer_profile_path: Path
    sequence_number: Sequence = 0

    def references(self) -> Iterator[Reference]:
        field = "firewall_session_timer_profile_path"
        yield Reference(field, self.firewall_session_timer_profile_path, "firewall-session-timer-profiles")
