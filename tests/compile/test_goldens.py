"""Small policies and the whole image of each, side by side, for the eye.

Rows are printed as the ids of their rules: `s` as source, `d` as destination, `l` as source by literal
prefixes only, where that differs from `s`."""

from ipaddress import IPv4Address, IPv6Address
from textwrap import dedent

from tests.harness.policies import policy, vnic_id
from vsfwd.image import OWNER_NONE, OWNER_REMOTE, Image
from vsfwd.policy.compile import compile

SERVICE_NAMES = ("tcp", "udp", "icmp", "icmpv6", "protocol")


def test_a_group_has_members_and_prefixes() -> None:
    """A member is web wherever its address lies; a listed prefix covers hosts nobody announced."""
    state = policy(
        rules=["allow from web to db service tcp/5432", "drop to db", "allow out"],
        groups={"db": ["10.2.0.0/16", "fd02::/64"]},
        vnics={"web1": "10.1.0.1 fd01::1 web", "db1": "10.2.0.1"},
    )
    assert _drawn(compile(state, {vnic_id("web1"): 0})) == dedent("""\
        10.1.0.1        s:1,2,3 d:3 l:2,3   of slot 0
        10.2.0.1        s:2,3 d:1,2,3       of another host
        fd01::1         s:1,2,3 d:3 l:2,3   of slot 0
        0.0.0.0/0       s:2,3 d:3
        10.2.0.0/16     s:2,3 d:1,2,3
        ::/0            s:2,3 d:3
        fd02::/64       s:2,3 d:1,2,3
        tcp 0-5431      2,3
        tcp 5432-5432   1,2,3
        tcp 5433-65535  2,3
        udp 0-65535     2,3
        icmp 0-65535    2,3
        icmpv6 0-65535  2,3
        protocol 0-255  2,3
        slot 0          in:1,2/1,2 out:1,2,3/1,2,3
        """)


def test_an_address_on_two_segments() -> None:
    """Each segment sees its own 10.0.0.1, others only the prefix; who has no twin needs no segment."""
    state = policy(
        rules=["allow from red", "drop from blue"],
        groups={"blue": ["10.0.0.0/8"]},
        vnics={"r": "10.0.0.1 red segment=1", "b": "10.0.0.1 segment=2", "c": "10.0.0.3 segment=3"},
    )
    image = compile(state, {vnic_id("r"): 0, vnic_id("c"): 2})
    assert _drawn(image, services=False) == dedent("""\
        10.0.0.1        s:2 d:1,2           of nobody
        10.0.0.3        s:2 d:1,2           of slot 2
        10.0.0.1%1      s:1,2 d:1,2 l:2     of slot 0
        10.0.0.1%2      s:2 d:1,2           of another host
        0.0.0.0/0       s:- d:1,2
        10.0.0.0/8      s:2 d:1,2
        ::/0            s:- d:1,2
        slot 0          in:1,2/1,2 out:1,2/1,2 segment 1
        slot 2          in:1,2/1,2 out:1,2/1,2
        """)
    assert image.warnings == ()


def test_an_address_that_two_claim_on_one_segment() -> None:
    """It joins neither's groups (whoever claims an address must not become who has it), and both are
    named."""
    state = policy(
        rules=["allow from admins"],
        vnics={"admin": "10.0.0.1 admins segment=1", "thief": "10.0.0.1 segment=1"},
    )
    image = compile(state, {vnic_id("thief"): 0})
    assert _drawn(image, services=False) == dedent("""\
        10.0.0.1        s:- d:1             of nobody
        0.0.0.0/0       s:- d:1
        ::/0            s:- d:1
        slot 0          in:1/1 out:1/1
        """)
    assert {(warning.kind, warning.id) for warning in image.warnings} == {
        ("vnics", vnic_id("admin")),
        ("vnics", vnic_id("thief")),
    }
    assert all("10.0.0.1" in warning.reason for warning in image.warnings)


def test_an_address_with_and_without_a_segment() -> None:
    """No segment is no place to tell twins apart by: 10.0.0.1 is red on segment 1 and nobody's elsewhere."""
    state = policy(
        rules=["allow from red", "drop from blue"],
        vnics={"r": "10.0.0.1 red segment=1", "b": "10.0.0.1 blue"},
    )
    image = compile(state, {vnic_id("r"): 0, vnic_id("b"): 1})
    assert _drawn(image, services=False) == dedent("""\
        10.0.0.1        s:- d:1,2           of nobody
        10.0.0.1%1      s:1 d:1,2 l:-       of slot 0
        0.0.0.0/0       s:- d:1,2
        ::/0            s:- d:1,2
        slot 0          in:1,2/1,2 out:1,2/1,2 segment 1
        slot 1          in:1,2/1,2 out:1,2/1,2
        """)
    assert [warning.id for warning in image.warnings] == [vnic_id("b")]


def test_rules_are_applied_by_scope_direction_and_family() -> None:
    """A scope takes vNICs by membership and by address; direction and family choose the row."""
    state = policy(
        rules=["allow on web", "allow in on lab", "allow out ipv6", "drop ipv4 on nobody"],
        groups={"lab": ["10.0.0.2"]},
        vnics={"a": "10.0.0.1 web", "b": "10.0.0.2"},
    )
    assert _drawn(compile(state, {vnic_id("a"): 0, vnic_id("b"): 1}), services=False).splitlines()[-2:] == [
        "slot 0          in:1/1 out:1/1,3",
        "slot 1          in:2/2 out:-/3",
    ]


def test_services_of_every_kind() -> None:
    """Ports, overlapping ranges, types, codes and protocol numbers, each point in one range."""
    state = policy(
        rules=[
            "allow service tcp/80-90,tcp/85-100,tcp/101",
            "allow service udp",
            "allow service icmp/3/1,icmpv6/128",
            "allow service 47",
            "allow service nobody",
        ]
    )
    assert _drawn(compile(state, {})) == dedent("""\
        0.0.0.0/0       s:1,2,3,4,5 d:1,2,3,4,5
        ::/0            s:1,2,3,4,5 d:1,2,3,4,5
        tcp 0-79        -
        tcp 80-101      1
        tcp 102-65535   -
        udp 0-65535     2
        icmp 0-768      -
        icmp 769-769    3
        icmp 770-65535  -
        icmpv6 0-32767  -
        icmpv6 32768-33023 3
        icmpv6 33024-65535 -
        protocol 0-46   -
        protocol 47-47  4
        protocol 48-255 -
        """)


def _drawn(image: Image, services: bool = True) -> str:
    def rules(number: int) -> str:
        row = image.rows[number]
        return ",".join(str(rule.id) for bit, rule in enumerate(image.rules) if row >> bit & 1) or "-"

    lines = []
    for (segment, address), entry in sorted(image.hosts.items()):
        name = _address(address) + (f"%{segment}" if segment else "")
        literal = f" l:{rules(entry.literal)}" if entry.literal != entry.source else ""
        text = f"s:{rules(entry.source)} d:{rules(entry.destination)}{literal}"
        lines.append(f"{name:15} {text:19} of {_owner(entry.owner)}")
    for (_, length, address), prefix in sorted(image.prefixes.items()):
        name = f"{_address(address)}/{length}"
        lines.append(f"{name:15} s:{rules(prefix.source)} d:{rules(prefix.destination)}")
    for first, last, row in image.services if services else ():
        # A range may run on into the next protocol; it is drawn in pieces.
        for kind in range(first >> 16, (last >> 16) + 1):
            low, high = max(first, kind << 16), min(last, (kind << 16) + 65535)
            name = f"{SERVICE_NAMES[kind]} {low & 65535}-{high & 65535}"
            lines.append(f"{name:15} {rules(row)}")
    for slot, rows in sorted(image.vnics.items()):
        segment = f" segment {rows.segment}" if rows.segment else ""
        into = f"in:{rules(rows.in_ipv4)}/{rules(rows.in_ipv6)}"
        out = f"out:{rules(rows.out_ipv4)}/{rules(rows.out_ipv6)}"
        lines.append(f"{f'slot {slot}':15} {into} {out}{segment}")
    return "".join(f"{line}\n" for line in lines)


def _address(address: int) -> str:
    return str(IPv4Address(address & 0xFFFF_FFFF) if address >> 32 == 0xFFFF else IPv6Address(address))


def _owner(owner: int) -> str:
    return {OWNER_NONE: "nobody", OWNER_REMOTE: "another host"}.get(owner, f"slot {owner - 1}")
