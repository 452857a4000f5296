"""Why a packet is what the deciding rule names: each group, address or scope that it is in."""

from collections.abc import Iterator
from dataclasses import dataclass

from manager_stub.groups import Reason, covers, literals
from manager_stub.membership import Membership
from manager_stub.model import ANY, Rule
from manager_stub.span import Realised
from manager_stub.world import Stored, parent_of
from vsfwd.policy import evaluate
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet
from vsfwd.policy.model import Direction, parse_address


@dataclass(frozen=True)
class Named:
    """Something the deciding rule names, and why the packet is it. `reasons`: lists of parts of a group's
    expression, each list enough by itself."""

    field: str
    value: str
    reasons: tuple[tuple[Reason, ...], ...]


def named(
    realised: Realised,
    state: DesiredState,
    rule: Stored[Rule],
    packet: Packet,
    vnic: str,
    direction: Direction,
) -> Iterator[Named]:
    """What the rule names that the packet is; nothing of a field that excludes, for it is none of that."""
    body, port = rule.body, state.vnics[vnic]
    owner = evaluate.owner_of(state, packet.source, port)
    if direction is Direction.OUT and owner != vnic:
        owner = None  # whoever sends from another's address is not in its groups
    if not body.sources_excluded:
        yield from _because(realised, "source_groups", body.source_groups, [str(packet.source)], owner)
    if not body.destinations_excluded:
        owner = evaluate.owner_of(state, packet.destination, port)
        text = [str(packet.destination)]
        yield from _because(realised, "destination_groups", body.destination_groups, text, owner)
    section = realised.world.sections[parent_of(rule.path)].body
    scope = section.scope if section.scope != [ANY] else body.scope
    yield from _because(realised, "scope", scope, list(port.addresses), vnic)


def _because(
    realised: Realised, field: str, values: list[str], addresses: list[str], owner: str | None
) -> Iterator[Named]:
    for value in values:
        if value == ANY:
            yield Named(field, value, ())
        elif not value.startswith("/"):
            if any(covers(parse_address(value), address) for address in addresses):
                yield Named(field, value, ())
        elif reasons := _of_group(realised, value, addresses, owner):
            yield Named(field, value, reasons)


def _of_group(
    realised: Realised, path: str, addresses: list[str], owner: str | None
) -> tuple[tuple[Reason, ...], ...]:
    """Why the group has one of the addresses, or the vNIC they belong to."""
    reasons: list[tuple[Reason, ...]] = [
        (reason,)
        for text, reason in literals(realised.asked, path)
        if any(covers(parse_address(text), address) for address in addresses)
    ]
    if owner is not None:
        membership = Membership(realised.asked, realised.cards[owner].candidate)
        reasons += [tuple(each) for each in membership.reasons(path)]
    return tuple(reasons)
