"""Desired state and the slots of the vNICs here → image.

An address has a *class*: everything the policy knows it by. That is every literal prefix that covers it (a
rule's own addresses and those of groups are both prefixes) and, where one vNIC is known to own it, that
vNIC's groups. A class selects one row of bits as source and one as destination; equal rows are kept once.

`Compiler` remembers what a change of one address needs; `compile` is the same from nothing, and the
specification: an image made by changes means the same as one made from nothing (`image.canonical`). Pure,
like all of this package.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Final, NamedTuple, cast

from vsfwd.image import (
    OWNER_NONE,
    OWNER_REMOTE,
    Guard,
    HostEntry,
    HostKey,
    Image,
    PrefixEntry,
    PrefixKey,
    Rows,
    ServiceRange,
    VnicRows,
)
from vsfwd.policy.bits import IPV4_MAPPED, NO_HITS, Hits, RuleBits, mask, prefixes_of, rule_bits, union
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.ethernet import mac_entries
from vsfwd.policy.layered import GONE, Gone, changed, different
from vsfwd.policy.literals import Literals, family_of
from vsfwd.policy.model import Direction, Family, SpoofGuard, Vnic
from vsfwd.protocol.messages import Refusal

SPARE_ROWS: Final = 256
"""Rows that changes may add to those of a full compile (or a quarter of these, if that is more) before
everything is compiled again, which leaves out the rows nothing selects any more. The datapath keeps as many
rows spare."""


Hosts = dict[HostKey, HostEntry | Gone]
"""Entries to write and to delete."""


def compile(state: DesiredState, slots: Mapping[str, int], closed: Set[int] = frozenset()) -> Image:
    """The image of a state; `slots` are the vNICs on this host (vNIC id → slot), `closed` the rules that are
    not in force now. Those are applied to no vNIC, but keep their place and their counters."""
    return Compiler().update(state, slots, closed)


class _Done(NamedTuple):
    """What the last update was made from, and what it made."""

    state: DesiredState
    slots: Mapping[str, int]
    closed: Set[int]
    image: Image
    rows: int
    """Rows of the last full compile."""


class Compiler:
    """Compiles states that follow each other. While the rules and the prefixes of groups stay, only the
    addresses and vNICs that change are computed again."""

    def __init__(self) -> None:
        self._done: _Done | None = None

    def update(self, state: DesiredState, slots: Mapping[str, int], closed: Set[int] = frozenset()) -> Image:
        # An exception on the way must not leave half a change behind: the next update then starts from
        # nothing.
        done, self._done = self._done, None
        image = self._change(done, state, slots, closed) if done else None
        if done and image:
            self._done = _Done(state, dict(slots), closed, image, done.rows)
        else:
            # What the last image was made from would be in memory beside what the next one is made from.
            done = None
            vars(self).clear()
            self._done = None
            image = self._build(state, slots, closed)
            self._done = _Done(state, dict(slots), closed, image, len(image.rows))
        return image

    def _build(self, state: DesiredState, slots: Mapping[str, int], closed: Set[int]) -> Image:
        bits = rule_bits(state.rules)
        self._open = _all_but(bits, closed)
        self._rows = _Rows()
        self._literals = Literals(bits, state.groups)
        self._vnics = _Vnics(bits, state.vnics, slots)
        # By groups, for addresses that are known by those of their vNIC alone: most, and many by the same.
        self._numbers: dict[tuple[str, ...], tuple[int, int, int]] = {}
        self._contested: dict[int, tuple[Refusal, ...]] = {}
        self._segments: dict[int, set[int]] = {}
        hosts: Hosts = {}
        # In an order: rows have the same numbers in every process, and a policy sent anew flips no bank.
        for address in sorted(self._vnics.claims.keys() | self._literals.hosts()):
            self._enter(address, hosts)
        self._known_macs = self._macs(state)
        hosts.update(self._known_macs)
        prefixes = {key: self._prefix_entry(key, bits) for key in self._literals.prefixes()}
        services = tuple(
            ServiceRange(first, last, self._rows.number(rules))
            for first, last, rules in sorted((*bits.services, *bits.frames.services))
        )
        segments = self._segments_in_use()
        vnics = {slots[id]: self._vnic_rows(id, segments) for id in state.vnics if id in slots}
        return Image(
            rows=Rows(self._rows),
            hosts=cast(Mapping[HostKey, HostEntry], hosts),  # nothing has gone
            prefixes=prefixes,
            services=services,
            vnics=vnics,
            rules=bits.entries,
            guards=_guards(state, slots),
            warnings=self._warnings(),
        )

    def _change(
        self, done: _Done, state: DesiredState, slots: Mapping[str, int], closed: Set[int]
    ) -> Image | None:
        """The image of a state that differs in some vNICs, slots, host addresses of groups or rules that are
        closed; None when it takes more than that."""
        spare = max(SPARE_ROWS, done.rows // 4)
        if state.rules is not done.state.rules or len(self._rows) - done.rows > spare:
            return None
        relisted = self._literals.change(done.state.groups, state.groups)
        if relisted is None:
            return None
        moved = {id for id, _ in slots.items() ^ done.slots.items()}
        others = different(done.state.vnics, state.vnics) | moved
        addresses = relisted | self._vnics.change(others, state.vnics, slots)
        segments_before = self._segments_in_use()
        self._numbers.clear()  # of groups that no vNIC may be in any more
        hosts: Hosts = {}
        for address in addresses:
            self._leave(address, hosts)
            self._enter(address, hosts)
        macs_before, self._known_macs = self._known_macs, self._macs(state)
        hosts.update(dict.fromkeys(macs_before, GONE))
        hosts.update(self._known_macs)
        # Listing an address in a group can bring a rule's scope to the vNIC that has it.
        affected = others.union(*(self._vnics.claims.get(address, ()) for address in relisted))
        segments = self._segments_in_use()
        if closed != done.closed:
            self._open = _all_but(self._literals.bits, closed)
        if segments != segments_before or closed != done.closed:
            affected = others | state.vnics.keys()
        vnics = done.image.vnics
        here = slots.keys() | done.slots.keys()
        if not affected.isdisjoint(here):
            gone = {done.slots[id] for id in affected if id in done.slots}
            vnics = {slot: rows for slot, rows in vnics.items() if slot not in gone}
            there = (id for id in affected if id in slots and id in state.vnics)
            vnics.update((slots[id], self._vnic_rows(id, segments)) for id in there)
            vnics = done.image.vnics if vnics == done.image.vnics else vnics
        guards = done.image.guards if others.isdisjoint(here) else _guards(state, slots)
        return Image(
            rows=Rows(self._rows),
            hosts=changed(done.image.hosts, hosts),
            prefixes=done.image.prefixes,
            services=done.image.services,
            vnics=vnics,
            rules=done.image.rules,
            guards=guards,
            warnings=self._warnings(),
        )

    def _enter(self, address: int, hosts: Hosts) -> None:
        """Write the entries of one address.

        An address that several vNICs claim belongs, seen from a segment, to the only one there that claims
        it; seen from elsewhere nobody can say whose it is, and it counts for what its prefixes say. So it
        does where two vNICs of one segment claim it: neither joins the other's groups by claiming its
        address."""
        literal = self._literals.covering(address)
        claims = self._vnics.claims.get(address, set())
        if len(claims) == 1:
            hosts[HostKey(0, address)] = self._host_entry(literal, *claims)
            return
        if claims or self._literals.lists(address):
            hosts[HostKey(0, address)] = self._host_entry(literal, None)
        by_segment: dict[int, list[str]] = defaultdict(list)
        for id in sorted(claims):
            by_segment[self._vnics.objects[id].segment].append(id)
        contested = []
        for segment, ids in by_segment.items():
            if segment and len(ids) == 1:
                hosts[HostKey(segment, address)] = self._host_entry(literal, *ids)
                self._segments.setdefault(address, set()).add(segment)
            else:
                contested += [_contested(id, address, claims) for id in ids]
        if contested:
            self._contested[address] = tuple(contested)

    def _macs(self, state: DesiredState) -> dict[HostKey, HostEntry]:
        bits = self._literals.bits.frames
        return mac_entries(bits, state.groups, state.vnics, self._vnics.owner, self._rows.number)

    def _leave(self, address: int, hosts: Hosts) -> None:
        for segment in {0} | self._segments.pop(address, set()):
            hosts[HostKey(segment, address)] = GONE
        self._contested.pop(address, None)

    def _host_entry(self, literal: Hits, vnic: str | None) -> HostEntry:
        groups = self._vnics.objects[vnic].groups if vnic else ()
        if literal is not NO_HITS:
            numbers = self._row_numbers(literal, vnic)
        elif (known := self._numbers.get(groups)) is not None:
            numbers = known
        else:
            numbers = self._numbers[groups] = self._row_numbers(literal, vnic)
        return HostEntry(*numbers, owner=self._vnics.owner(vnic) if vnic else OWNER_NONE)

    def _row_numbers(self, literal: Hits, vnic: str | None) -> tuple[int, int, int]:
        """In the order of the fields of HostEntry."""
        bits = self._literals.bits
        hits = union((literal, self._vnics.member_hits(vnic))) if vnic else literal
        return (
            self._rows.number(bits.source_row(hits)),
            self._rows.number(bits.destination_row(hits)),
            self._rows.number(bits.source_row(literal)),
        )

    def _prefix_entry(self, key: PrefixKey, bits: RuleBits) -> PrefixEntry:
        hits = self._literals.covering(key.address, key.length)
        return PrefixEntry(
            self._rows.number(bits.source_row(hits)), self._rows.number(bits.destination_row(hits))
        )

    def _vnic_rows(self, id: str, segments: set[int]) -> VnicRows:
        """Rules applied to a vNIC: those without a scope, and those whose scope has it as a member or lists
        one of its addresses."""
        bits, vnic = self._literals.bits, self._vnics.objects[id]
        applied = bits.unnamed.scope | self._vnics.member_hits(id).scope
        for address in addresses_of(vnic):
            applied |= self._literals.covering(address).scope
        applied &= self._open

        def rows(applied: int) -> tuple[int, int, int, int]:
            """By direction and family, in the order of the fields."""
            in_ipv4, in_ipv6, out_ipv4, out_ipv6 = (
                self._rows.number(applied & bits.selected[direction, family])
                for direction in (Direction.IN, Direction.OUT)
                for family in (Family.IPV4, Family.IPV6)
            )
            return in_ipv4, in_ipv6, out_ipv4, out_ipv6

        def frames(applied: int) -> tuple[int, int]:
            selected = bits.frames.selected
            return (
                self._rows.number(applied & selected[Direction.IN]),
                self._rows.number(applied & selected[Direction.OUT]),
            )

        frames_in, frames_out = frames(applied)
        again: tuple[int, ...] = ()
        if applied & (bits.monitored | bits.jumping):
            without = (bits.monitored, bits.early, bits.monitored | bits.early)
            again = tuple(number for left_out in without for number in rows(applied & ~left_out))
        return VnicRows(
            *rows(applied),
            segment=vnic.segment if vnic.segment in segments else 0,
            excluded=vnic.excluded,
            frames_in=frames_in,
            frames_out=frames_out,
            frames_again=frames(applied & ~bits.frames.monitored) if applied & bits.frames.monitored else (),
            alg=bool(applied & bits.alg),
            source_ports=bool(applied & bits.source_ports),
            again=again,
        )

    def _segments_in_use(self) -> set[int]:
        """Segments on which an address belongs to another vNIC than elsewhere."""
        return set().union(*self._segments.values())

    def _warnings(self) -> tuple[Refusal, ...]:
        return tuple(warning for _, warnings in sorted(self._contested.items()) for warning in warnings)


def _all_but(bits: RuleBits, closed: Set[int]) -> int:
    """All rules but the closed ones."""
    return ~mask(bit for bit, rule in enumerate(bits.entries) if rule.id in closed) if closed else -1


class _Rows(list[int]):
    """Rows by number, equal ones once; row 0 is the empty one."""

    def __init__(self) -> None:
        super().__init__([0])
        self._numbers = {0: 0}

    def number(self, row: int) -> int:
        number = self._numbers.setdefault(row, len(self))
        if number == len(self):
            self.append(row)
        return number


class _Vnics:
    """Who claims which address, and where a vNIC is."""

    def __init__(self, bits: RuleBits, objects: Mapping[str, Vnic], slots: Mapping[str, int]) -> None:
        self._bits = bits
        self.claims: dict[int, set[str]] = defaultdict(set)
        self.objects: Mapping[str, Vnic] = {}
        self.change(objects.keys(), objects, slots)

    def change(self, ids: Iterable[str], objects: Mapping[str, Vnic], slots: Mapping[str, int]) -> set[int]:
        """Follow a change of these vNICs; the addresses it concerns."""
        before, self.objects, self._slots = self.objects, objects, slots
        concerned: set[int] = set()
        for id in ids:
            for address in addresses_of(before.get(id)):
                concerned.add(address)
                self.claims[address].discard(id)
            for address in addresses_of(objects.get(id)):
                concerned.add(address)
                self.claims[address].add(id)
        for address in concerned:
            if not self.claims[address]:
                del self.claims[address]
        return concerned

    def member_hits(self, id: str) -> Hits:
        return union(self._bits.groups.get(group, NO_HITS) for group in self.objects[id].groups)

    def owner(self, id: str) -> int:
        return self._slots[id] + 1 if id in self._slots else OWNER_REMOTE


def _guards(state: DesiredState, slots: Mapping[str, int]) -> Mapping[int, Guard]:
    return {slot: _guard(state.vnics[id]) for id, slot in slots.items() if id in state.vnics}


def _guard(vnic: Vnic) -> Guard:
    spoof = vnic.spoofguard is not SpoofGuard.DISABLED
    return Guard(spoof, vnic.router, vnic.dhcp_server, frozenset(addresses_of(vnic) if spoof else ()))


def addresses_of(vnic: Vnic | None) -> set[int]:
    """A vNIC's addresses as the image writes them."""
    return {key.address for text in (vnic.addresses if vnic else ()) for key in prefixes_of(text)}


def _contested(id: str, address: int, claims: Iterable[str]) -> Refusal:
    if family_of(address) == 4:
        text = str(ipaddress.IPv4Address(address - IPV4_MAPPED))
    else:
        text = str(ipaddress.IPv6Address(address))
    others = ", ".join(sorted(set(claims) - {id}))
    return Refusal("vnics", id, f"address {text} is also claimed by {others}: it joins no group of either")
