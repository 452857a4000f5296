"""Policies for tests, in words, and the messages that carry them.

    policy(
        rules=["allow from web to db service tcp/5432", "drop in on db"],
        groups={"db": ["10.0.2.0/24"]},
        vnics={"web1": "10.0.1.1 fd00::1 web", "twin": "10.0.1.1 segment=7"},
    )

Rules get the ids 1, 2, 3… in the order they stand. A vNIC is known by a short name; `vnic_id` is its id in
the policy."""

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vsfwd.policy.desired import DesiredState, apply
from vsfwd.policy.model import (
    APPLICATION,
    Alg,
    Group,
    Match,
    Rule,
    Service,
    SessionTimers,
    Vnic,
    parse_address,
)
from vsfwd.protocol.envelope import Header, Kind
from vsfwd.protocol.messages import KINDS, digest_text, object_digest

HOST = str(uuid.UUID(int=1))
EPOCH = 1
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
ALGS = {"ftp": "tcp", "tftp": "udp"}
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}

Objects = Mapping[str, Mapping[str, Any]]
"""Objects by kind and id: model objects, anything JSON can say, ready bytes, or None to delete."""


def vnic_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def policy(
    rules: Iterable[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    vnics: Mapping[str, str] | None = None,
) -> DesiredState:
    """The state after a snapshot of this policy. Groups that rules and vNICs name need not be listed."""
    return after(DesiredState(), objects(rules, groups or {}, vnics or {}), Kind.SNAPSHOT)


def objects(rules: Iterable[str], groups: Mapping[str, Sequence[str]], vnics: Mapping[str, str]) -> Objects:
    parsed = {str(number): rule(text, number) for number, text in enumerate(rules, 1)}
    cards = {vnic_id(name): vnic(text) for name, text in vnics.items()}
    named = {name for item in parsed.values() for name in item.groups()}
    named |= {name for card in cards.values() for name in card.groups} | groups.keys()
    return {
        "rules": parsed,
        "groups": {name: group(*groups.get(name, ())) for name in sorted(named)},
        "vnics": cards,
    }


def rule(text: str, number: int = 1) -> Rule:
    """A rule in words: action [in|out] [ipv4|ipv6] [from …] [to …] [service …] [on …] [logged]
    [loose|stateless] [keep|cut] [monitored]; action may be jump; an application's rule is `app`; of an
    Ethernet rule frames any|806,88cc [vlan 10,20-29].

    `from` and `to` take groups and addresses with commas between, `not` before them, or `nobody`; `service`
    takes tcp/80, tcp/80-90, udp, tcp/80@1000-2000 (source ports), ftp/21, tftp/69, icmp/8, icmp/3/1 or a
    protocol number."""
    action, *words = text.split()
    action = "jump_to_application" if action == "jump" else action
    fields: dict[str, Any] = {"name": text, "section": "test", "order": (0, number), "action": action}
    while words:
        word = words.pop(0)
        if word in ("in", "out"):
            fields["direction"] = word
        elif word in ("ipv4", "ipv6"):
            fields["family"] = word
        elif word in ("from", "to"):
            excluded = words[0] == "not"
            items = words.pop(1 if excluded else 0)
            del words[: int(excluded)]
            fields["sources" if word == "from" else "destinations"] = _match(items, excluded)
        elif word == "service":
            fields["services"] = tuple(service(item) for item in _items(words.pop(0)))
        elif word == "on":
            fields["scope"] = tuple(_items(words.pop(0)))
        elif word in ("frames", "vlan"):
            fields.setdefault("frames", {})[_FRAMES[word][0]] = _FRAMES[word][1](words.pop(0))
        elif word in ("logged", "monitored"):
            fields[word] = True
        elif word == "app":
            fields["order"] = (APPLICATION, number)
        elif word in ("loose", "stateless"):
            fields["tracking"] = word
        elif word in ("keep", "cut"):
            fields["existing_flows"] = word
        else:
            raise ValueError(f"{word!r} in {text!r}")
    return msgspec.convert(fields, Rule)


def ethertypes(text: str) -> list[int] | None:
    return None if text == "any" else [int(item, 16) for item in text.split(",")]


def vlans(text: str) -> list[tuple[int, int]]:
    ranges = (item.partition("-") for item in text.split(","))
    return [(int(low), int(high or low)) for low, _, high in ranges]


_FRAMES = {"frames": ("ethertypes", ethertypes), "vlan": ("vlans", vlans)}


def service(text: str) -> Service:
    protocol, *rest = text.split("/")
    alg = Alg(protocol) if protocol in ALGS else None
    number = PROTOCOLS.get(ALGS.get(protocol, protocol)) or int(protocol)
    if number in (1, 58):
        return Service(number, (), (), *map(int, rest))
    ports, _, source_ports = (rest or [""])[0].partition("@")
    return Service(number, _ports(ports), _ports(source_ports), alg=alg)


def _ports(text: str) -> tuple[tuple[int, int], ...]:
    low, _, high = text.partition("-")
    return ((int(low), int(high or low)),) if text else ()


def group(*addresses: str) -> Group:
    """What looks like a MAC address is one."""
    macs = tuple(text for text in addresses if _MAC.fullmatch(text))
    return Group("group", tuple(text for text in addresses if text not in macs), macs)


def vnic(text: str) -> Vnic:
    """A vNIC in words: addresses, groups, a MAC address, segment=N, spoofguard=MODE, router, dhcp_server,
    excluded, timers as in udp_single=20."""
    addresses, groups = [], []
    fields: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if key in SessionTimers.__struct_fields__:
            fields.setdefault("timers", {})[key] = value if key == "profile" else int(value)
        elif equals:
            fields[key] = int(value) if key == "segment" else value
        elif word in ("router", "dhcp_server", "excluded"):
            fields[word] = True
        elif _MAC.fullmatch(word):
            fields["mac"] = word
        elif _is_address(word):
            addresses.append(word)
        else:
            groups.append(word)
    card = {"vm": "vm", "vm_name": "vm", "mac": "02:00:00:00:00:01", "addresses": addresses, "groups": groups}
    return msgspec.convert(card | fields, Vnic)


def message(
    state: DesiredState, changes: Objects, kind: Kind = Kind.DELTA, **header: Any
) -> tuple[Header, bytes]:
    """Header and JSON of the message that follows on a state; fields of the header may be told otherwise."""
    raw = {
        name: {id: _json(value) for id, value in changes.get(name, {}).items()} for name in (*KINDS, *changes)
    }
    total = (
        {} if kind is Kind.SNAPSHOT else {(n, id): data for n in KINDS for id, data in state.raw[n].items()}
    )
    total |= {(n, id): data for n in KINDS for id, data in raw[n].items()}
    digest = sum(object_digest(n, id, data) for (n, id), data in total.items() if data != b"null")
    generation = state.generation + 1
    fields: dict[str, Any] = {
        "host": HOST,
        "epoch": state.epoch or EPOCH,
        "generation": generation,
        "base": state.generation if kind is Kind.DELTA else generation,
        "kind": kind,
        "digest": digest_text(digest),
    }
    json = msgspec.json.encode({n: {id: msgspec.Raw(data) for id, data in raw[n].items()} for n in raw})
    return Header(**(fields | {"body": hashlib.sha256(json).hexdigest()} | header)), json


def after(state: DesiredState, changes: Objects, kind: Kind = Kind.DELTA) -> DesiredState:
    """The state after one more message."""
    return apply(state, *message(state, changes, kind))


def _json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else msgspec.json.encode(value)


def _match(items: str, excluded: bool) -> Match:
    names = _items(items)
    return Match(
        groups=tuple(name for name in names if not _is_address(name)),
        addresses=tuple(name for name in names if _is_address(name)),
        excluded=excluded,
    )


def _items(text: str) -> list[str]:
    return [] if text == "nobody" else text.split(",")


def _is_address(text: str) -> bool:
    try:
        return bool(parse_address(text))
    except ValueError:
        return False
