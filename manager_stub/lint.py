"""What is in the policy and does nothing, or more than it should. Pure: reads, and changes nothing.

A rule that is said to decide nothing decides nothing, for any packet and whoever is a member of what
(`covering`). That a group is empty, or that a scope selects nothing, is so now, and changes with the
inventory; that a rule is never hit, or a host silent, is what hosts say (`unhit`). Of predefined objects is
told only what can be changed of them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final

import msgspec

from manager_stub.catalogue import DEFAULT_SECTION
from manager_stub.covering import Sets, covered
from manager_stub.findings import MAX_NAMED, Finding, Kind
from manager_stub.groups import Groups
from manager_stub.lookalikes import difference, lookalikes
from manager_stub.model import (
    ANY,
    ETHERNET,
    Condition,
    Entity,
    Entry,
    Group,
    L4PortSetServiceEntry,
    NestedExpression,
    PathExpression,
    Rule,
    SecurityPolicy,
)
from manager_stub.neighbours import without_neighbours
from manager_stub.span import Realised
from manager_stub.unhit import NO_HITS, Hits, never_hit, unreported
from manager_stub.wire import service_entries
from manager_stub.world import Stored, World, kind_of, parent_of
from vsfwd.policy.model import Group as WireGroup
from vsfwd.policy.model import Prefix
from vsfwd.policy.model import Rule as WireRule

DAYS: Final = 30
"""Without a hit, and a rule is told of."""
_EVERYWHERE: Final = frozenset({ANY, "0.0.0.0/0", "::/0"})
_SAY_ENOUGH: Final = (Kind.SHADOWED, Kind.REDUNDANT, Kind.MATCHES_NOTHING, Kind.APPLIED_TO_NOTHING)
"""Why no packet meets a rule."""


def lint(
    realised: Realised,
    known: Hits = NO_HITS,
    days: int = DAYS,
    check: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """By kind and path. `known` is what hosts say of hits, `days` how long a rule may be without one. `check`
    is called again and again, and may end it by raising."""
    world, found = realised.world, list[Finding]()
    wire = {
        int(rule.id): msgspec.json.decode(rule.raw, type=WireRule) for rule in realised.rules.by_path.values()
    }
    sets = _sets(realised)
    for step in (
        _covered(world, wire, sets, check),
        _wide(world),
        without_neighbours(world.rules.values(), wire, sets, check) if _has_ipv6(realised) else (),
        _empty(realised),
        _applied_to_nothing(realised),
        _unused(world),
        _alike(world),
    ):
        for finding in step:
            check()
            found.append(finding)
    explained = {finding.path for finding in found if finding.kind in _SAY_ENOUGH}
    rules = (rule for rule, _ in _enabled(realised.world) if not rule.system_owned)
    found += never_hit((rule for rule in rules if rule.path not in explained), known, days)
    found += unreported(known)
    kinds = list(Kind)
    return sorted(found, key=lambda finding: (kinds.index(finding.kind), finding.path))


def _covered(
    world: World, wire: Mapping[int, WireRule], sets: Sets, check: Callable[[], None]
) -> Iterator[Finding]:
    stored = {rule.number: rule for rule in world.rules.values()}
    found = covered(wire, sets, check)
    above = {number: (by,) for number, by in found.never.items()} | dict(found.together)
    for number, others in (above | {number: (by,) for number, by in found.spare.items()}).items():
        if not stored[number].system_owned:
            same = all(wire[number].action is wire[other].action for other in others)
            where = "above" if number in above else "below"
            yield _needless(stored[number], [stored[other] for other in others], where, same)


def _needless(rule: Stored[Rule], by: Sequence[Stored[Rule]], where: str, same: bool) -> Finding:
    """`same`: whether the others do what it does."""
    names, paths = [repr(each.name) for each in by], tuple(each.path for each in by)
    if len(by) == 1:
        who, do, say, others = f"{names[0]} {where} matches", "does", "says", "other"
    else:
        named = [*names[:MAX_NAMED], f"{len(names) - MAX_NAMED} more"] if names[MAX_NAMED:] else names
        who = f"{', '.join(named[:-1])} and {named[-1]} {where} together match"
        do, say, others = "do", "say", "others"
    if same:
        why, step = f"{who} all that it matches, and {do} the same", "delete it"
        return Finding(Kind.REDUNDANT, rule.path, why, step, paths)
    actions = " or ".join(sorted({str(each.body.action) for each in by}))
    why = f"{who} all that it matches, and {say} {actions}: it never decides"
    step = f"move it above the {others}, narrow the {others}, or delete it"
    return Finding(Kind.SHADOWED, rule.path, why, step, paths)


def _sets(realised: Realised) -> Sets:
    """By the ids that rules have for groups."""
    asked = realised.asked
    ids = {path: stored.unique_id for path, stored in asked.stored.items()}
    return Sets(
        {id: msgspec.json.decode(raw, type=WireGroup) for id, raw in realised.groups.items()},
        {ids[path]: {ids[other] for other in wider} for path, wider in _wider(asked).items()},
        {ids[path] for path in ids if not asked.terms[path]},
    )


def _has_ipv6(realised: Realised) -> bool:
    """Whether any vNIC has an IPv6 address; every one may have a link-local one, that nobody rules about."""
    addresses = (ip_address(text) for card in realised.cards.values() for text in card.vnic.addresses)
    return any(address.version == 6 and not address.is_link_local for address in addresses)


def _wider(asked: Groups) -> dict[str, set[str]]:
    """Groups that have all members and addresses of a group, by their definition: they name it, or a group
    that does. What is named is joined to the rest by OR only."""
    having: dict[str, set[str]] = {}
    for path, terms in asked.terms.items():
        for part in (part for term in terms for part in term):
            for inner in part.item.paths if isinstance(part.item, PathExpression) else ():
                if kind_of(inner) == "groups":
                    having.setdefault(inner, set()).add(path)
    found: dict[str, set[str]] = {}
    for path in having:
        wider, waiting = set[str](), [path]
        while waiting:
            more = having.get(waiting.pop(), set()) - wider
            wider |= more
            waiting += more
        found[path] = wider
    return found


def _enabled(world: World) -> Iterator[tuple[Stored[Rule], SecurityPolicy]]:
    """With their sections."""
    for rule in world.rules.values():
        if not rule.body.disabled:
            yield rule, world.sections[parent_of(rule.path)].body


def _wide(world: World) -> Iterator[Finding]:
    for rule, section in _enabled(world):
        body = rule.body
        if body.action != "ALLOW" or section.category == ETHERNET or body.monitored or section.monitored:
            continue
        entries = service_entries(world, body)
        if entries is None and [bool(_EVERYWHERE & set(values)) for _, values in _ends(body)] == [True, True]:
            why = "allows every service from everywhere to everywhere"
            yield Finding(Kind.TOO_WIDE, rule.path, why, _narrower(rule))
        for protocol in _whole_protocols(entries or []):
            why = f"allows every port of {protocol}"
            yield Finding(Kind.TOO_WIDE, rule.path, why, "name the ports that are needed")


def _ends(rule: Rule) -> Iterator[tuple[str, list[str]]]:
    """The fields of source and destination that exclude nothing, and what they name."""
    if not rule.sources_excluded:
        yield "source_groups", rule.source_groups
    if not rule.destinations_excluded:
        yield "destination_groups", rule.destination_groups


def _whole_protocols(entries: Iterable[Entry]) -> list[str]:
    """Those of which an entry has every port; port 0 is none that is used."""
    return sorted(
        {
            entry.l4_protocol
            for entry in entries
            if isinstance(entry, L4PortSetServiceEntry)
            and not entry.source_ports
            and (not entry.destination_ports or {"0-65535", "1-65535"} & set(entry.destination_ports))
        }
    )


def _narrower(rule: Stored[Rule]) -> str:
    if parent_of(rule.path) == DEFAULT_SECTION:
        return "allow above it what is needed, and set its action to DROP"
    return "name who may reach whom, with which services"


def _empty(realised: Realised) -> Iterator[Finding]:
    """Groups in which nobody is, and rules that name no other."""
    world = realised.world
    empty = {
        path
        for path, group in world.groups.items()
        if not realised.members[group.unique_id] and not any(realised.asked.lists[path])
    }
    users: dict[str, set[str]] = {path: set() for path in empty}
    for user, reference in world.referrers(empty):
        users[reference.path].add(user)
    for path, named_by in users.items():
        why = "has no member and lists no address"
        step = "look at its expression, or at what it should find in the inventory"
        yield Finding(Kind.EMPTY_GROUP, path, why, step, tuple(sorted(named_by)))
    for rule, _ in _enabled(world):
        for field, values in _ends(rule.body):
            if set(values) <= empty:
                why = f"{field} names empty groups only: it matches nothing now"
                step = "give the groups members, or delete the rule"
                yield Finding(Kind.MATCHES_NOTHING, rule.path, why, step, tuple(sorted(set(values))))


def _applied_to_nothing(realised: Realised) -> Iterator[Finding]:
    """A section with a scope of its own, or a rule of one that has none."""
    world, selects = realised.world, _Selecting(realised)
    scoped = [(path, section.body.scope) for path, section in world.sections.items()]
    scoped += [(rule.path, rule.body.scope) for rule, section in _enabled(world) if section.scope == [ANY]]
    for path, scope in scoped:
        if scope != [ANY] and not any(map(selects, scope)):
            why = "its scope selects no vNIC now: it applies to nothing"
            step = "name groups that have members, or ANY"
            yield Finding(Kind.APPLIED_TO_NOTHING, path, why, step, tuple(sorted(set(scope))))


class _Selecting:
    """Whether a group, as scope, selects a vNIC: as a member, or by an address."""

    def __init__(self, realised: Realised) -> None:
        self._realised = realised
        self._addresses: dict[int, list[int]] = {4: [], 6: []}
        for card in realised.cards.values():
            for address in map(ip_address, card.vnic.addresses):
                self._addresses[address.version].append(int(address))
        for numbers in self._addresses.values():
            numbers.sort()

    def __call__(self, path: str) -> bool:
        group = self._realised.world.groups[path]
        if self._realised.members[group.unique_id]:
            return True
        return any(map(self._has_one, self._realised.asked.lists[path].prefixes))

    def _has_one(self, prefix: Prefix) -> bool:
        numbers, host = self._addresses[prefix.family], (32 if prefix.family == 4 else 128) - prefix.length
        place = bisect_left(numbers, prefix.bits)
        return place < len(numbers) and numbers[place] >> host == prefix.bits >> host


def _alike(world: World) -> Iterator[Finding]:
    """Names among the objects of one list; tags, and what conditions ask of tags, among all."""
    lists: dict[str, dict[str, list[str]]] = {}
    tags: dict[str, list[str]] = {}
    for objects in world.kinds.values():
        for path, stored in objects.items():
            lists.setdefault(parent_of(path), {}).setdefault(stored.name, []).append(path)
            for word in _tag_words(stored.body):
                tags.setdefault(word, []).append(path)
    for what, named in (*(("name", names) for names in lists.values()), ("tag", tags)):
        for name, alike in lookalikes(named).items():
            if not name.isascii():
                why = f"its {what} {name!r} looks like {alike[0]!r}: {difference(name, alike[0])}"
                others = tuple(sorted({path for other in alike for path in named[other]}))
                step = "rename it; until then go by the path" if what == "name" else "write one as the other"
                yield from (Finding(Kind.LOOKALIKE, path, why, step, others) for path in named[name])


def _tag_words(body: Entity) -> set[str]:
    """Scopes and tags that an object has, and a group asks for."""
    found = {word for tag in body.tags for word in (tag.scope, tag.tag)}
    for item in body.expression if isinstance(body, Group) else ():
        conditions = item.conditions if isinstance(item, NestedExpression) else [item]
        found |= {
            word
            for each in conditions
            if isinstance(each, Condition) and each.key == "Tag"
            for word in each.asked
        }
    return found


def _unused(world: World) -> Iterator[Finding]:
    there = {path for path, group in world.groups.items() if not group.system_owned}
    there |= {path for path, service in world.services.items() if not service.system_owned}
    used = {reference.path for _, reference in world.referrers(there)}
    for path in there - used:
        kind = Kind.UNUSED_GROUP if kind_of(path) == "groups" else Kind.UNUSED_SERVICE
        yield Finding(kind, path, "nothing names it", "delete it, unless it waits for a rule")
