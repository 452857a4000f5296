"""Rules that are about every service and so about neighbour discovery (RFC 4861) too, by which an IPv6
address is found as an IPv4 address is by ARP. The default rule that allows it comes after them. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import structs

from manager_stub.covering import Sets, covered
from manager_stub.findings import Finding, Kind
from manager_stub.model import Rule
from manager_stub.world import Stored
from vsfwd.policy.model import ICMPV6, Action, Family, Match, Service, parse_address
from vsfwd.policy.model import Rule as WireRule

_MESSAGES: Final = tuple(Service(ICMPV6, icmp_type=type, icmp_code=0) for type in (135, 136))
"""Solicitation and advertisement."""
_WHY: Final = (
    "denies neighbour discovery too, which rules above it need over IPv6: one of two VMs may find the other "
    "or not, depending on who asks first"
)
_STEP: Final = (
    "allow IPv6-ICMP_Neighbor_Solicitation and IPv6-ICMP_Neighbor_Advertisement above it, best in a section "
    "of the category Infrastructure"
)


def without_neighbours(
    stored: Iterable[Stored[Rule]], wire: Mapping[int, WireRule], sets: Sets, check: Callable[[], None]
) -> Iterator[Finding]:
    """Those that deny it while a rule above them allows something else over IPv6, and none above them allows
    neighbour discovery to the same VMs."""
    rules = {id: rule for id, rule in wire.items() if rule.frames is None and _may_be_ipv6(rule, sets)}
    allowing = [
        _place(id, rule)
        for id, rule in rules.items()
        if rule.action is Action.ALLOW and not rule.monitored and _other_services(rule)
    ]
    about = {id: structs.replace(rule, services=said) for id, rule in rules.items() if (said := _said(rule))}
    denied = covered(about, sets, check)
    hidden = denied.never.keys() | denied.together.keys()
    for rule in stored:
        mine = about.get(rule.number)
        if (
            mine is not None
            and mine.action in (Action.DROP, Action.REJECT)
            and not mine.monitored
            and rule.number not in hidden
            and min(allowing, default=_place(rule.number, mine)) < _place(rule.number, mine)
        ):
            yield Finding(Kind.NO_NEIGHBOURS, rule.path, _WHY, _STEP)


def _place(id: int, rule: WireRule) -> tuple[tuple[int, ...], int]:
    return rule.order, id


def _said(rule: WireRule) -> tuple[Service, ...]:
    """What the rule says of neighbour discovery."""
    if rule.services is None:
        return _MESSAGES
    return tuple(
        message
        for message in _MESSAGES
        if any(
            service.protocol == ICMPV6
            and service.icmp_type in (None, message.icmp_type)
            and service.icmp_code in (None, 0)
            for service in rule.services
        )
    )


def _other_services(rule: WireRule) -> bool:
    return rule.services is None or any(
        service.protocol != ICMPV6 or service.icmp_type not in (135, 136) for service in rule.services
    )


def _may_be_ipv6(rule: WireRule, sets: Sets) -> bool:
    ends = [match for match in (rule.sources, rule.destinations) if match and not match.excluded]
    return rule.family is not Family.IPV4 and all(_has_ipv6(match, sets) for match in ends)


def _has_ipv6(match: Match, sets: Sets) -> bool:
    """Of a group that has members, whatever they are."""
    if any(group not in sets.literal for group in match.groups):
        return True
    listed = [*match.addresses, *(text for group in match.groups for text in sets.groups[group].addresses)]
    return any(prefix.family == 6 for text in listed for prefix in parse_address(text))
