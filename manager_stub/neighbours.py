"""Rules that are about every service and so about neighbour discovery (RFC 4861) too, by which an IPv6
address is found as an IPv4 address is by ARP. The default rule that allows it comes after them. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import dropwhile
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
    neighbour discovery to the same VMs: one finding, about the first, since one rule more mends them all."""
    rules = {id: rule for id, rule in wire.items() if _is_about_ipv6(rule, sets)}
    about = {id: structs.replace(rule, services=said) for id, rule in rules.items() if (said := _said(rule))}
    found = covered(about, sets, check)
    decided = found.never.keys() | found.together.keys()
    in_order = sorted(rules, key=lambda id: (rules[id].order, id))
    behind = dropwhile(lambda id: not _allows_other_services(rules[id]), in_order)
    denying = [id for id in behind if id in about and id not in decided and _denies(rules[id])]
    if denying:
        paths = {rule.number: rule.path for rule in stored}
        first, *others = (paths[id] for id in denying)
        yield Finding(Kind.NO_NEIGHBOURS, first, _WHY, _STEP, tuple(others))


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


def _denies(rule: WireRule) -> bool:
    return rule.action in (Action.DROP, Action.REJECT)


def _allows_other_services(rule: WireRule) -> bool:
    return rule.action is Action.ALLOW and (
        rule.services is None
        or any(service.protocol != ICMPV6 or service.icmp_type not in (135, 136) for service in rule.services)
    )


def _is_about_ipv6(rule: WireRule, sets: Sets) -> bool:
    """And enforced."""
    if rule.frames is not None or rule.monitored or rule.family is Family.IPV4:
        return False
    ends = [match for match in (rule.sources, rule.destinations) if match and not match.excluded]
    return all(_has_ipv6(match, sets) for match in ends)


def _has_ipv6(match: Match, sets: Sets) -> bool:
    """Of a group that has members, whatever they are."""
    if any(group not in sets.literal for group in match.groups):
        return True
    listed = [*match.addresses, *(text for group in match.groups for text in sets.groups[group].addresses)]
    return any(prefix.family == 6 for text in listed for prefix in parse_address(text))
