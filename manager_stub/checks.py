"""What a change may not lead to: a reference to nothing, an object gone that others name, a rule that its
section cannot hold, something predefined made something else. Pure: the World that would be, or Refused."""

from collections.abc import Iterable, Mapping

from manager_stub import catalogue
from manager_stub.group_limits import nested_wrongly, too_much
from manager_stub.lookalikes import difference, lookalikes, unseen
from manager_stub.model import (
    ANY,
    ENVIRONMENT,
    ETHERNET,
    TIMERS,
    ALGTypeServiceEntry,
    Entity,
    Entry,
    EtherTypeServiceEntry,
    Group,
    Rule,
    SecurityPolicy,
    Segment,
    Service,
    Vm,
)
from manager_stub.services import around, plain, within
from manager_stub.world import Stored, World, kind_of, parent_of, vnic_path

EDITABLE: Mapping[str, frozenset[str]] = {
    "rules": frozenset({"action", "logged", "tag", "description", "notes", "tags", "display_name"}),
    "security-policies": frozenset({"stateful", "tcp_strict", "existing_flows", "locked", "comments"})
    | {"lock_modified_by", "lock_modified_time"},
    "security": frozenset({"members", "description", "tags", "display_name"}),
    "firewall-session-timer-profiles": frozenset({*TIMERS, "description", "tags", "display_name"}),
}
"""What may be changed of predefined objects, by kind."""
DEFAULT_SECTIONS = (catalogue.DEFAULT_SECTION, catalogue.DEFAULT_L2_SECTION)


class Refused(Exception):
    """The change is not possible; nothing of it happened. `field` is where in the body, empty: the whole."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)


class InUse(Refused):
    """The object is named by others."""


class Conflict(Refused):
    """Another object already has what must be one object's only."""


def check_system_owned(world: World, stored: list[Stored[Entity]], delete: list[str]) -> None:
    """What every installation has can be neither deleted nor changed, but for what EDITABLE names."""
    for path in delete:
        before = world.get(path)
        if before is not None and before.system_owned:
            what = "default section" if path in DEFAULT_SECTIONS else "predefined object"
            raise Refused("", f"cannot delete {what} {path}")
    for each in stored:
        before = world.get(each.path)
        if before is None and kind_of(each.path) == "rules" and parent_of(each.path) in DEFAULT_SECTIONS:
            raise Refused(
                "rules", f"the default section takes no further rules, and {each.path} is not there"
            )
        if before is None or not before.system_owned:
            continue
        editable = EDITABLE.get(kind_of(each.path), frozenset())
        if each.path == catalogue.DEFAULT_L2_RULE:
            editable |= {"services"}  # which EtherTypes pass by default
        was, now = before.body.model_dump(), each.body.model_dump()
        for field in was:
            if was[field] != now[field] and field not in editable:
                raise Refused(field, f"of {each.path} cannot be changed: it is predefined")


def check_references(world: World, stored: list[Stored[Entity]], gone: set[str]) -> None:
    for each in stored:
        for reference in each.body.references():
            if not world.has(reference):
                reason = f"there is no {reference.path!r} among {reference.kind} (in {each.path})"
                raise Refused(reference.field, reason)
    check_unused(world, gone)


def check_macs(before: World, after: World, stored: list[Stored[Entity]]) -> None:
    """A MAC address is one vNIC's of a segment: who has it keeps it."""
    for each in stored:
        if not isinstance(each.body, Vm):
            continue
        old = before.vms.get(each.path)
        kept = {(vnic.id, vnic.segment_path, vnic.mac) for vnic in old.body.vnics} if old else set()
        for index, vnic in enumerate(each.body.vnics):
            if (vnic.id, vnic.segment_path, vnic.mac) not in kept and (other := after.mac_holder(vnic)):
                holder = f"vNIC {other} of {after.vnics[other].path}"
                raise Conflict(f"vnics.{index}.mac", f"{vnic.mac} is that of {holder} in {vnic.segment_path}")


def check_unique(before: World, stored: list[Stored[Entity]]) -> None:
    for each in stored:
        if isinstance(each.body, Vm):
            for index, vnic in enumerate(each.body.vnics):
                owner = before.vnics.get(vnic.id)
                if owner is not None and owner.path != each.path:
                    raise Conflict(f"vnics.{index}.id", f"{vnic.id} is a vNIC of {owner.path}")
        if isinstance(each.body, Segment) and each.body.overlay_id is not None:
            for path, other in before.segments.items():
                if other.body.overlay_id == each.body.overlay_id and path != each.path:
                    raise Conflict("overlay_id", f"{each.body.overlay_id} is {path}'s")


def check_names(before: World, world: World, stored: list[Stored[Entity]]) -> None:
    """A new name can be read, and is not taken for another of its list. What VMs are called is their hosts'
    word: which of them look alike is a matter of `lint`."""
    fresh = [each for each in stored if not (was := before.get(each.path)) or was.name != each.name]
    check_seen(fresh)
    for kind in {kind_of(each.path) for each in fresh} - {"vms"}:
        if not all(each.name.isascii() for each in world.kinds[kind].values()):
            _check_lookalikes([each for each in fresh if kind_of(each.path) == kind], world.kinds[kind])


def check_seen(stored: list[Stored[Entity]]) -> None:
    for each in stored:
        if letter := unseen(each.name):
            raise Refused("display_name", f"{letter} in it cannot be seen (in {each.path})")


def check_host_name(name: str, hosts: Iterable[str]) -> None:
    """The same of a host that is let in, beside the names of the others."""
    if letter := unseen(name):
        raise Refused("display_name", f"{letter} in it cannot be seen")
    for other in lookalikes({name, *hosts}).get(name, ()):
        what = f"{name!r} looks like the host {other!r}"
        raise Conflict("display_name", f"{what}: {difference(name, other)}")


def _check_lookalikes(fresh: list[Stored[Entity]], beside: Mapping[str, Stored[Entity]]) -> None:
    lists: dict[str, dict[str, str]] = {parent_of(each.path): {} for each in fresh}
    for path, each in beside.items():
        if (parent := parent_of(path)) in lists:
            lists[parent][each.name] = path
    alike = {parent: lookalikes(names) for parent, names in lists.items()}
    for each in fresh:
        parent = parent_of(each.path)
        for other in alike[parent].get(each.name, ()):
            what = f"{each.name!r} looks like {other!r} of {lists[parent][other]}"
            raise Conflict("display_name", f"{what}: {difference(each.name, other)} (in {each.path})")


def check_groups(world: World, stored: list[Stored[Entity]]) -> None:
    """Within limits, and none a member of itself."""
    written = [each for each in stored if isinstance(each.body, Group)]
    for each in written:
        if isinstance(each.body, Group) and (wrong := too_much(each.body)):
            raise Refused(wrong[0], f"{wrong[1]} (in {each.path})")
    if written and (wrong := nested_wrongly(world)):
        raise Refused(*wrong)


def check_layers(world: World, stored: list[Stored[Entity]]) -> None:
    """An Ethernet section has rules for frames, every other one rules for packets; also when it is the
    section or a service that changes."""
    rules = {each.path for each in stored if isinstance(each.body, Rule)}
    services = around(world, {each.path for each in stored if isinstance(each.body, Service)})
    changed = services | {each.path for each in stored if isinstance(each.body, SecurityPolicy)}
    for path in services:
        _check_one_layer(world, path)
    if changed:
        rules |= {
            path
            for path, rule in world.rules.items()
            if parent_of(path) in changed or not changed.isdisjoint(_services_of(rule.body))
        }
    for path in rules:
        ethernet = world.sections[parent_of(path)].body.category == ETHERNET
        wrong = _wrong_jump(world, path)
        if not wrong:
            wrong = _not_for_frames(world, path) if ethernet else _not_for_packets(world, path)
        if wrong:
            raise Refused(*wrong)


def _services_of(rule: Rule) -> set[str]:
    return {reference.path for reference in rule.references() if reference.kind == "services"}


def check_nesting(world: World, stored: list[Stored[Entity]]) -> None:
    """A service in itself means nothing."""
    for each in stored:
        if isinstance(each.body, Service):
            for reference in each.body.references():
                if reference.path == each.path or each.path in within(world, reference.path):
                    raise Refused(reference.field, f"{reference.path} has {each.path} in it: a cycle")


def _check_one_layer(world: World, path: str) -> None:
    entries = plain(world, world.services[path].body.service_entries)
    if len({isinstance(entry, EtherTypeServiceEntry) for entry in entries}) > 1:
        raise Refused(
            "service_entries", f"EtherTypes and what is within IP cannot be one service (in {path})"
        )


def _wrong_jump(world: World, path: str) -> tuple[str, str] | None:
    category = world.sections[parent_of(path)].body.category
    if world.rules[path].body.action == "JUMP_TO_APPLICATION" and category != ENVIRONMENT:
        return "action", f"JUMP_TO_APPLICATION is for the category Environment, not {category} (in {path})"
    return None


def _not_for_frames(world: World, path: str) -> tuple[str, str] | None:
    rule = world.rules[path].body
    if rule.action == "REJECT":
        return "action", f"a frame cannot be rejected, only dropped (in {path})"
    if rule.ip_protocol != "IPV4_IPV6":
        return "ip_protocol", f"an Ethernet rule has EtherTypes (in {path})"
    for field in ("source_groups", "destination_groups"):
        for index, value in enumerate(getattr(rule, field)):
            if value != ANY and not value.startswith("/"):
                return (
                    f"{field}.{index}",
                    f"{value!r}: an Ethernet rule has groups of MAC addresses (in {path})",
                )
    return _of_other_layer(world, path, ethernet=True)


def _not_for_packets(world: World, path: str) -> tuple[str, str] | None:
    if world.rules[path].body.vlan_ids:
        return "vlan_ids", f"only a rule of an Ethernet section has them (in {path})"
    return _of_other_layer(world, path, ethernet=False) or _wrong_algs(world, path)


def _wrong_algs(world: World, path: str) -> tuple[str, str] | None:
    """An ALG needs a rule that knows connections, and a rule has one port for each."""
    ports: dict[str, str] = {}
    for field, entries in _entries(world, world.rules[path].body):
        for entry in entries:
            if not isinstance(entry, ALGTypeServiceEntry):
                continue
            if not world.sections[parent_of(path)].body.stateful:
                return field, f"{entry.alg} needs a section that is stateful (in {path})"
            (port,) = entry.destination_ports
            if int(ports.setdefault(entry.alg, port)) != int(port):
                return field, f"a rule has one port for {entry.alg} (in {path})"
    return None


def _of_other_layer(world: World, path: str, *, ethernet: bool) -> tuple[str, str] | None:
    what = "Ethernet" if ethernet else "another"
    for field, entries in _entries(world, world.rules[path].body):
        if any(isinstance(entry, EtherTypeServiceEntry) != ethernet for entry in entries):
            return field, f"not for a rule of {what} section (in {path})"
    return None


def _entries(world: World, rule: Rule) -> list[tuple[str, list[Entry]]]:
    """Those of a rule's services and its own, by the field that has them."""
    named = [(f"services.{i}", world.services[p].body) for i, p in enumerate(rule.services) if p != ANY]
    own = ("service_entries", rule.service_entries)
    return [
        (field, plain(world, entries))
        for field, entries in (*((field, service.service_entries) for field, service in named), own)
    ]


def gone(before: World, after: World, deleted: set[str]) -> set[str]:
    """Paths that nothing may name any more; a VM takes its vNICs with it."""
    if before.vms is after.vms:
        return deleted
    return deleted | {vnic_path(vnic) for vnic in before.vnics.keys() - after.vnics.keys()}


def check_unused(world: World, gone: set[str]) -> None:
    users = sorted({path for path, _ in world.referrers(gone)}) if gone else []
    if users:
        raise InUse("", f"{', '.join(sorted(gone))} is used by {', '.join(users[:10])}")
