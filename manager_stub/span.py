"""Which host needs what. Pure.

A host needs the rules that apply to a vNIC plugged there, the groups those rules name, the vNICs plugged
there, and every vNIC anywhere that is a member of a group in such a rule's source or destination, or claims
an address of one that was named so far: an address that several claim belongs to nobody, and the host must
see that. Of a vNIC's memberships it needs those that its rules ask for, and the timers of those that are
plugged there. Nothing else, so what a change costs depends on whom it concerns, not on what exists.

`realise` keeps from one World to the next what the change between them left alone; realising a World from
nothing gives the same, and is the specification.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from manager_stub import wire
from manager_stub.addresses import Judgements, judge, trusted
from manager_stub.catalogue import DEFAULT_TIMERS, says_nothing_new
from manager_stub.groups import NONE, Groups, covers, grouped
from manager_stub.membership import Candidate, Membership, candidate
from manager_stub.model import Segment, Vm, Vnic
from manager_stub.world import Stored, World, parent_of
from vsfwd.policy.model import Prefix, SessionTimers

REMEMBERED_SELECTIONS: Final = 1024

Objects = Mapping[str, Mapping[str, bytes]]
"""What a host is sent: kind → id → JSON."""


@dataclass(frozen=True)
class Selection:
    """Rules for one set of scope groups: the rules, every group they name, and those whose members they
    need."""

    rules: Mapping[str, bytes]
    named: frozenset[str]
    peers: frozenset[str]


class Rules:
    """All enabled rules as they are sent. Selections are remembered: most changes change none of them."""

    def __init__(self, by_path: Mapping[str, wire.WireRule]) -> None:
        self.by_path = by_path
        self.scopes = frozenset[str]().union(*(rule.scope for rule in by_path.values() if rule.scope))
        self._selections: dict[frozenset[str], Selection] = {}

    def applying(self, memberships: frozenset[str]) -> Selection:
        """The rules that apply to a vNIC with one of these memberships."""
        memberships &= self.scopes
        found = self._selections.get(memberships)
        if found is None:
            rules = [
                rule
                for rule in self.by_path.values()
                if rule.scope is None or not memberships.isdisjoint(rule.scope)
            ]
            peers = frozenset[str]().union(*(rule.peers for rule in rules))
            scopes = frozenset[str]().union(*(rule.scope for rule in rules if rule.scope))
            found = Selection({rule.id: rule.raw for rule in rules}, peers | scopes, peers)
            if len(self._selections) >= REMEMBERED_SELECTIONS:
                # A comparison beside the loop may do the same: `list` is one step for other threads.
                self._selections.pop(list(self._selections)[0], None)  # noqa: RUF015
            self._selections[memberships] = found
        return found


@dataclass(frozen=True)
class Card:
    """A vNIC with what it belongs to; its addresses are those typed and those trusted (`learned`); the
    candidate has the typed ones only. `rendered` remembers its JSON by the memberships shown, and whether it
    is for the host where it is plugged."""

    candidate: Candidate
    vm: Stored[Vm]
    vnic: Vnic
    memberships: frozenset[str]
    excluded: bool
    learned: tuple[str, ...] = ()
    timers: SessionTimers | None = None
    rendered: dict[tuple[frozenset[str], bool], bytes] = field(default_factory=dict)

    @property
    def segment(self) -> Stored[Segment] | None:
        return self.candidate.segment

    def claimed(self) -> tuple[str, ...]:
        """Addresses that belong to nobody once another vNIC claims them too."""
        return (*self.vnic.addresses, self.vnic.mac)

    def raw(self, groups: frozenset[str], *, here: bool) -> bytes:
        key = (self.memberships & groups, here)
        if key not in self.rendered:
            timers = self.timers if here else None
            self.rendered[key] = wire.vnic(self.vm, self.vnic, self.segment, key[0], self.excluded, timers)
        return self.rendered[key]


@dataclass(frozen=True)
class Realised:
    """`groups`: as they are sent. `asked`: as members and addresses are asked of them. `members`: vNICs by
    group. `claims`: vNICs by address, MAC addresses too."""

    world: World
    rules: Rules
    groups: Mapping[str, bytes]
    asked: Groups
    cards: Mapping[str, Card]
    members: Mapping[str, frozenset[str]]
    claims: Mapping[str, frozenset[str]]
    judgements: Judgements = field(default_factory=dict)

    def needs(self, plugged: Iterable[str]) -> Objects:
        """What the host needs on which these vNICs are plugged. Those the inventory does not know are left
        out."""
        local = {vnic for vnic in plugged if vnic in self.cards}
        if not local:
            return {"rules": {}, "groups": {}, "vnics": {}}
        selection = self.rules.applying(self._applied(local))
        sent = local.union(*(self.members[group] for group in selection.peers))
        sent.update(*(self.claims[address] for vnic in sent for address in self.cards[vnic].claimed()))
        return {
            "rules": selection.rules,
            "groups": {group: self.groups[group] for group in selection.named},
            "vnics": {
                vnic: self.cards[vnic].raw(
                    selection.named if vnic in local else selection.peers, here=vnic in local
                )
                for vnic in sent
            },
        }

    @cached_property
    def _scopes_by_address(self) -> Mapping[str, tuple[Prefix, ...]]:
        return {
            stored.unique_id: prefixes
            for path, stored in self.world.groups.items()
            if stored.unique_id in self.rules.scopes and (prefixes := self.asked.lists[path].prefixes)
        }

    def _applied(self, local: set[str]) -> frozenset[str]:
        """Groups that, as scope, select one of these vNICs: as a member or by one of its addresses."""
        cards = [self.cards[vnic] for vnic in local]
        by_address = {
            group
            for group, prefixes in self._scopes_by_address.items()
            if any(covers(prefixes, address) for card in cards for address in card.vnic.addresses)
        }
        return frozenset(by_address).union(*(card.memberships for card in cards))


NOTHING = Realised(World(), Rules({}), {}, NONE, {}, {}, {})


def realise(world: World, before: Realised = NOTHING) -> Realised:
    asked = before.asked if world.groups is before.world.groups else grouped(world.groups, before.asked)
    groups = _groups(asked, before)
    judgements = _judgements(world, before)
    cards = _cards(world, asked, before, judgements)
    members = _index(cards, before.cards, before.members, lambda card: card.memberships)
    return Realised(
        world,
        _rules(world, before),
        groups,
        asked,
        cards,
        {group: members.get(group, frozenset()) for group in groups},
        _index(cards, before.cards, before.claims, Card.claimed),
        judgements,
    )


def _rules(world: World, before: Realised) -> Rules:
    old = before.world
    asked = ("rules", "security-policies", "groups", "services", "firewall-schedulers")
    if all(world.kinds[kind] is old.kinds[kind] for kind in asked):
        return before.rules
    # Of a group only its unique id stands in a rule, and while a rule names a group it cannot be deleted
    # and made anew: groups that come, go or change leave rendered rules valid.
    services_changed = world.kinds["services"] is not old.kinds["services"]
    schedulers_changed = world.schedulers is not old.schedulers
    rendered: dict[str, wire.WireRule] = {}
    for path, stored in world.rules.items():
        section = world.sections[parent_of(path)]
        if stored.body.disabled or says_nothing_new(path, stored.body):
            continue
        kept = before.rules.by_path.get(path)
        if (
            kept is None
            or old.rules.get(path) is not stored
            or old.sections.get(section.path) is not section
            or (schedulers_changed and section.body.scheduler_path)
            or (services_changed and (stored.body.services or stored.body.service_entries))
        ):
            kept = wire.rule(world, stored, section)
        rendered[path] = kept
    return before.rules if rendered == before.rules.by_path else Rules(rendered)


def _groups(asked: Groups, before: Realised) -> Mapping[str, bytes]:
    """As they are sent."""
    if asked is before.asked:
        return before.groups
    return {
        stored.unique_id: wire.group(stored, asked.lists[path])
        if path in asked.fresh
        else before.groups[stored.unique_id]
        for path, stored in asked.stored.items()
    }


def _judgements(world: World, before: Realised) -> Judgements:
    old = before.world
    claims_stay = world.claims is old.claims and world.plugged is old.plugged
    if claims_stay and world.vms is old.vms and world.segments is old.segments:
        return before.judgements
    return judge(world) if world.claims else {}


def _cards(world: World, asked: Groups, before: Realised, judgements: Judgements) -> Mapping[str, Card]:
    """Every vNIC with its memberships, evaluated again only where it, what it is a part of, or a group
    changed."""
    old = before.world
    fresh = asked.fresh if asked is not before.asked else frozenset[str]()
    known = {stored.unique_id for stored in world.groups.values()}
    settled = known - {world.groups[path].unique_id for path in fresh}
    timers = _timers(world)
    excluded_paths = world.excluded
    excluded_groups = {world.groups[path].unique_id for path in excluded_paths & world.groups.keys()}

    def card(vm: Stored[Vm], vnic: Vnic) -> Card:
        now = candidate(world, vm, vnic)
        kept = before.cards.get(vnic.id)
        same = kept is not None and old.vms.get(vm.path) is vm and kept.candidate.stands_where(now)
        if kept is not None and same:
            memberships = (kept.memberships & settled) | _fresh_memberships(asked, now, fresh, kept)
        else:
            memberships = _memberships(asked, now)
        learned = trusted(judgements, vnic.id)
        excluded = vm.path in excluded_paths or not memberships.isdisjoint(excluded_groups)
        own = next((of for group, of in timers if group is None or group in memberships), None)
        judged = (memberships, excluded, learned, own)
        if kept and same and judged == (kept.memberships, kept.excluded, kept.learned, kept.timers):
            return kept
        return Card(now, vm, _with(vnic, learned), *judged)

    if world.kinds is old.kinds and judgements == before.judgements:
        # Only where vNICs are plugged is otherwise, as a thousand new hosts say one after the other.
        moved = [vnic for vnic in before.cards if world.plugged.get(vnic) != old.plugged.get(vnic)]
        return {**before.cards, **{vnic: card(*world.card(vnic)) for vnic in moved}}
    return {vnic.id: card(vm, vnic) for vm in world.vms.values() for vnic in vm.body.vnics}


def _memberships(asked: Groups, candidate: Candidate) -> frozenset[str]:
    membership = Membership(asked, candidate)
    return frozenset(stored.unique_id for path, stored in asked.stored.items() if path in membership)


def _fresh_memberships(asked: Groups, candidate: Candidate, fresh: Set[str], kept: Card) -> frozenset[str]:
    """Those of the groups that changed; the others are what they were."""

    def settled(path: str) -> bool | None:
        return None if path in fresh else asked.stored[path].unique_id in kept.memberships

    membership = Membership(asked, candidate, settled)
    return frozenset(asked.stored[path].unique_id for path in fresh if path in membership)


def _timers(world: World) -> list[tuple[str | None, SessionTimers | None]]:
    """Groups and the timers of their members, the first that fits counts; last, for everybody, the
    default."""
    profiles = {path: wire.timers(stored) for path, stored in world.timer_profiles.items()}
    bindings = sorted(
        (stored.body.sequence_number, path, stored.body.firewall_session_timer_profile_path)
        for path, stored in world.timer_bindings.items()
    )
    bound = [(world.groups[parent_of(path)].unique_id, profiles[profile]) for _, path, profile in bindings]
    return [*bound, (None, profiles.get(DEFAULT_TIMERS))]


def _with(vnic: Vnic, learned: tuple[str, ...]) -> Vnic:
    more = [address for address in learned if address not in vnic.addresses]
    return vnic.model_copy(update={"addresses": [*vnic.addresses, *more]}) if more else vnic


def _index(
    cards: Mapping[str, Card],
    cards_before: Mapping[str, Card],
    before: Mapping[str, frozenset[str]],
    keys: Callable[[Card], Iterable[str]],
) -> dict[str, frozenset[str]]:
    """vNICs by what `keys` says of their cards, from the index of the cards before."""
    changes: dict[str, set[str]] = {}
    for vnic in cards.keys() | cards_before.keys():
        new, old = cards.get(vnic), cards_before.get(vnic)
        if new is not old:
            for key in set(keys(new) if new else ()) ^ set(keys(old) if old else ()):
                changes.setdefault(key, set()).add(vnic)
    changed = {key: before.get(key, frozenset()) ^ vnics for key, vnics in changes.items()}
    return {key: vnics for key, vnics in {**before, **changed}.items() if vnics}
