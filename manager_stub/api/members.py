"""Who is in a group and why, which groups have somebody, and who names a group; in NSX's shape.

Beside what NSX says of a member stands `reasons`: lists of parts of the expression, each list enough by
itself.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query

from manager_stub.api.errors import Problem
from manager_stub.api.fabric import places, vif_shown, vm_shown
from manager_stub.api.infra import PREFIX
from manager_stub.api.objects import Json, Page, existing, listed
from manager_stub.groups import Reason, covers, literals, naming
from manager_stub.membership import Candidate, Membership
from manager_stub.model import HostAddress, Id, Path, Uuid
from manager_stub.register import Register
from manager_stub.span import Card
from manager_stub.world import Stored, kind_of

_GROUP = f"{PREFIX}/infra/domains/default/groups/{{id}}"
MEMBER_TYPES = ("VirtualMachine", "VirtualNetworkInterface", "Segment", "IPAddress")


def router(register: Register) -> APIRouter:
    routes = APIRouter(tags=["Group"])
    _add_members(routes, register)
    _add_addresses(routes, register)
    _add_groups_of(routes, register)

    @routes.get(f"{PREFIX}/infra/group-service-associations")
    async def named_by(intent_path: Path, page: Page) -> Json:
        """What names the group, or a group it is in: rules, sections, the exclusion list, bindings."""
        if kind_of(intent_path) != "groups":
            raise Problem(400, "is not the path of a group", "intent_path")
        world = register.world
        groups = naming(world.groups, {existing(world, intent_path).path})
        users = {path for path, _ in world.referrers(set(groups))} - set(groups)
        return listed(sorted(users), page, lambda path: _reference(existing(world, path)))

    @routes.get(f"{PREFIX}/infra/group-associations")
    async def groups_with(intent_path: Path, page: Page) -> Json:
        """Groups that name the group or the segment, or a group that does."""
        world = register.world
        groups = naming(world.groups, {existing(world, intent_path).path}) - {intent_path}
        return listed(sorted(groups), page, lambda path: _reference(world.groups[path]))

    return routes


def _add_members(routes: APIRouter, register: Register) -> None:
    @routes.get(f"{_GROUP}/member-types")
    async def member_types(id: Id) -> Json:
        existing(register.world, _path(id))
        return {"results": list(MEMBER_TYPES), "result_count": len(MEMBER_TYPES)}

    @routes.get(f"{_GROUP}/members/virtual-machines")
    async def vms(id: Id, page: Page) -> Json:
        """A VM is one as soon as one of its vNICs is; its reasons are those of all its vNICs."""
        where = places(register)
        cards: dict[str, list[Card]] = {}
        for card in _members(register, id):
            cards.setdefault(card.vm.path, []).append(card)

        def show(path: str) -> Json:
            reasons = [reason for card in cards[path] for reason in _reasons(register, card.candidate, id)]
            unique = [reason for place, reason in enumerate(reasons) if reason not in reasons[:place]]
            return {**vm_shown(register.world.vms[path], where), "reasons": unique}

        return listed(sorted(cards), page, show)

    @routes.get(f"{_GROUP}/members/vifs")
    async def vifs(id: Id, page: Page) -> Json:
        where = places(register)

        def show(card: Card) -> Json:
            shown = vif_shown(register, card.vm, _typed(card), where)
            return {**shown, "reasons": _reasons(register, card.candidate, id)}

        return listed(_members(register, id), page, show)

    @routes.get(f"{_GROUP}/members/segments")
    async def segments(id: Id, page: Page) -> Json:
        """Those that are members as a whole, whatever is on them."""
        existing(register.world, _path(id))
        every = register.world.segments.values()
        found = [
            segment
            for segment in every
            if _path(id) in Membership(register.realised.asked, Candidate(segment=segment))
        ]

        def show(segment: Stored[Any]) -> Json:
            shown = {"id": segment.path.rpartition("/")[2], "path": segment.path}
            reasons = _reasons(register, Candidate(segment=segment), id)
            return {**shown, "display_name": segment.name, "reasons": reasons}

        return listed(found, page, show)


def _add_addresses(routes: APIRouter, register: Register) -> None:
    @routes.get(f"{_GROUP}/members/ip-addresses")
    async def addresses(id: Id, page: Page) -> Json:
        """Those that are listed, and those of members. `reasons` by address: where it is listed, or whose it
        is."""
        world, path = register.world, _path(id)
        existing(world, path)
        reasons: dict[str, list[Json]] = {}
        for address, reason in literals(register.realised.asked, path):
            reasons.setdefault(address, []).append(_shown(reason))
        for card in _members(register, id):
            for address in card.vnic.addresses:
                reasons.setdefault(address, []).append({"vnic": card.vnic.id, "vm": card.vm.name})
        whole = replace(page, sort_by="", fields=frozenset())
        found = listed(sorted(reasons), whole, lambda address: {"address": address})
        texts = [each["address"] for each in found["results"]]
        return {**found, "results": texts, "reasons": {address: reasons[address] for address in texts}}


def _add_groups_of(routes: APIRouter, register: Register) -> None:
    def of(cards: Iterable[Card], page: Page) -> Json:
        ids = frozenset[str]().union(*(card.memberships for card in cards))
        found = [group for group in register.world.groups.values() if group.unique_id in ids]
        return listed(found, page, _reference)

    @routes.get(f"{PREFIX}/infra/virtual-machine-group-associations")
    async def of_vm(vm_external_id: Uuid, page: Page) -> Json:
        """Groups of which a vNIC of the VM is a member."""
        vm = existing(register.world, f"/vsfw/vms/{vm_external_id}")
        return of((card for card in register.realised.cards.values() if card.vm.path == vm.path), page)

    @routes.get(f"{PREFIX}/infra/virtual-network-interface-group-associations")
    async def of_vif(vif_external_id: Uuid, page: Page) -> Json:
        card = register.realised.cards.get(vif_external_id)
        if card is None:
            raise Problem(404, f"there is no vNIC {vif_external_id}", "vif_external_id")
        return of([card], page)

    @routes.get(f"{PREFIX}/infra/ip-address-group-associations")
    async def of_address(ip_address: Annotated[HostAddress, Query()], page: Page) -> Json:
        """Groups that list it, and those of the vNICs that have it."""
        realised = register.realised
        having = [card for card in realised.cards.values() if ip_address in card.vnic.addresses]
        ids = frozenset[str]().union(*(card.memberships for card in having))
        found = [
            group
            for path, group in register.world.groups.items()
            if group.unique_id in ids or covers(realised.asked.lists[path].prefixes, ip_address)
        ]
        return listed(found, page, _reference)


def _path(id: str) -> str:
    return f"/infra/domains/default/groups/{id}"


def _members(register: Register, id: str) -> list[Card]:
    group = existing(register.world, _path(id))
    realised = register.realised
    return [realised.cards[vnic] for vnic in sorted(realised.members[group.unique_id])]


def _typed(card: Card) -> Any:
    """The vNIC as it was set by hand: addresses that were learned have another source."""
    return card.candidate.vnic


def _reasons(register: Register, candidate: Candidate, id: str) -> list[list[Json]]:
    reasons = Membership(register.realised.asked, candidate).reasons(_path(id))
    return [[_shown(reason) for reason in term] for term in reasons]


def _shown(reason: Reason) -> Json:
    group = {"group": reason.group} if reason.group else {}
    return {"where": reason.where, "what": reason.what, **group}


def _reference(stored: Stored[Any]) -> Json:
    """NSX's PolicyResourceReference."""
    return {
        "path": stored.path,
        "target_id": stored.path,
        "target_type": stored.body.resource_type,
        "target_display_name": stored.name,
        "is_valid": True,
    }
