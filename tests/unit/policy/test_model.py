"""What the wire may say, and what it may not."""

import ipaddress
import re
from contextlib import nullcontext

import msgspec
import pytest

from tests.harness.policies import group, rule, service, vnic
from vsfwd.policy.model import (
    Alg,
    Group,
    Match,
    Prefix,
    Rule,
    Service,
    SessionTimers,
    Vnic,
    is_uuid,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("10.0.0.1", [(4, "10.0.0.1", 32)]),
        ("10.0.0.0/8", [(4, "10.0.0.0", 8)]),
        ("0.0.0.0/0", [(4, "0.0.0.0", 0)]),
        ("10.0.0.1-10.0.0.1", [(4, "10.0.0.1", 32)]),
        ("10.0.0.1 - 10.0.0.4", [(4, "10.0.0.1", 32), (4, "10.0.0.2", 31), (4, "10.0.0.4", 32)]),
        ("0.0.0.0-255.255.255.255", [(4, "0.0.0.0", 0)]),
        ("fd00::1", [(6, "fd00::1", 128)]),
        ("FD00:0::/64", [(6, "fd00::", 64)]),
        ("::/0", [(6, "::", 0)]),
        ("fd00::1-fd00::2", [(6, "fd00::1", 128), (6, "fd00::2", 128)]),
    ],
)
def test_an_address_stands_for_prefixes(text: str, prefixes: list[tuple[int, str, int]]) -> None:
    """Hosts, prefixes and ranges of both families."""
    expected = tuple(
        Prefix(family, int(ipaddress.ip_address(low)), length) for family, low, length in prefixes
    )
    assert parse_address(text) == expected


NO_ADDRESS = (
    *(
        "",
        " ",
        "web",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.1/33",
        "10.0.0.1/8",
        "fd00::/129",
        "fd00::1/64",
        "010.0.0.1",
    ),
    *(
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-fd00::1",
        "10.0.0.1-",
        "-10.0.0.1",
        "10.0.0.0/31-10.0.0.9",
        "10.0.0.1-2",
    ),
    *(
        "::ffff:10.0.0.1",
        "::ffff:0:0/96",
        "::ffff:10.0.0.1-::ffff:10.0.0.9",
        "fe80::1%eth0",
        "10.0.0.1\n",
        "1-2-3",
    ),
)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_refused_wherever_it_stands(text: str) -> None:
    """In a group, in a rule, at a vNIC; the text is in the reason."""
    for fields, kind in (
        ({"name": "g", "addresses": [text]}, Group),
        ({"addresses": [text]}, Match),
        ({"vm": "v", "vm_name": "v", "mac": "02:00:00:00:00:01", "addresses": [text]}, Vnic),
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(fields, kind)
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_address(text)


@pytest.mark.parametrize("text", ["10.0.0.0/24", "10.0.0.1-10.0.0.2", "fd00::/64"])
def test_a_vnic_has_hosts_for_addresses(text: str) -> None:
    """Nobody owns a prefix."""
    fields = {"vm": "v", "vm_name": "v", "mac": "02:00:00:00:00:01", "addresses": [text]}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, Vnic)


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": -1},
        {"protocol": 256},
        {"protocol": "tcp"},
        {"protocol": 6, "ports": [[80]]},
        {"protocol": 6, "ports": [[81, 80]]},
        {"protocol": 6, "ports": [[0, 65536]]},
        {"protocol": 6, "ports": [[-1, 5]]},
        {"protocol": 1, "ports": [[80, 80]]},
        {"protocol": 112, "ports": [[80, 80]]},
        {"protocol": 6, "icmp_type": 8},
        {"protocol": 1, "icmp_code": 0},
        {"protocol": 1, "icmp_type": 256},
        {"protocol": 58, "icmp_type": 1, "icmp_code": -1},
        {"protocol": 17, "ports": [[21, 21]], "alg": "ftp"},
        {"protocol": 6, "ports": [[69, 69]], "alg": "tftp"},
        {"protocol": 6, "ports": [[20, 21]], "alg": "ftp"},
        {"protocol": 6, "ports": [[21, 21], [2121, 2121]], "alg": "ftp"},
        {"protocol": 6, "ports": [[0, 0]], "alg": "ftp"},
        {"protocol": 6, "alg": "ftp"},
        {"protocol": 6, "ports": [[21, 21]], "alg": "irc"},
    ],
)
def test_a_service_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    """Ports belong to TCP and UDP, types to ICMP, and both have ends; an ALG has one port."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, Service)


@pytest.mark.parametrize("text", ["allow service ftp/21,ftp/2121", "allow service tftp/69 stateless"])
def test_x40_a_rule_with_algs_that_cannot_be_is_refused(text: str) -> None:
    """One port for each, and connections that somebody follows."""
    with pytest.raises(msgspec.ValidationError, match="services"):
        rule(text)


def test_x40_a_rule_has_the_ports_of_its_algs() -> None:
    """And of nothing else that it allows."""
    assert rule("allow service ftp/2121,tcp/21,tftp/69,ftp/2121").alg_port(Alg.FTP) == 2121
    assert rule("allow service ftp/2121,tcp/21,tftp/69").alg_port(Alg.TFTP) == 69
    assert rule("allow service tcp/21,udp/69").alg_port(Alg.FTP) == 0
    assert rule("allow").alg_port(Alg.TFTP) == 0


@pytest.mark.parametrize(
    "mac", ["", "02:00:00:00:00", "02-00-00-00-00-01", "0A:00:00:00:00:01", "02:00:00:00:00:01:02"]
)
def test_a_mac_has_one_form(mac: str) -> None:
    """Lower case, colons, six bytes."""
    with pytest.raises(msgspec.ValidationError, match="mac"):
        msgspec.convert({"vm": "v", "vm_name": "v", "mac": mac}, Vnic)


def test_timers_are_nsx_s_unless_said_otherwise() -> None:
    """NSX's defaults, as its API guide has them; only what differs travels."""
    timers = msgspec.json.decode(b'{"tcp_established": 600}', type=SessionTimers)
    assert [*timers.seconds().values()] == [120, 30, 600, 120, 45, 20, 60, 30, 60, 20, 10]
    assert msgspec.json.encode(timers) == b'{"tcp_established":600}'


@pytest.mark.parametrize(
    ("name", "seconds", "good"),
    [
        ("udp_single", 10, True),
        ("udp_single", 9, False),
        ("udp_single", 4320000, True),
        ("udp_single", 4320001, False),
        ("tcp_established", 120, True),
        ("tcp_established", 119, False),
        ("icmp_error_reply", 0, False),
    ],
)
def test_timers_have_the_limits_of_nsx(name: str, seconds: int, good: bool) -> None:
    """10 s to 50 days, an established connection at least 120 s; the timer is named."""
    card = {"vm": "v", "vm_name": "v", "mac": "02:00:00:00:00:01", "timers": {name: seconds}}
    with nullcontext() if good else pytest.raises(msgspec.ValidationError, match=f"{name}: {seconds}"):
        msgspec.convert(card, Vnic)


def test_objects_survive_the_wire() -> None:
    """What is sent is what arrives: an empty list stays a list, None stays any (CVE-2025-64715)."""
    for thing in (
        rule("allow in ipv6 from nobody to not a,10.0.0.0/8 service nobody on nobody logged"),
        rule("drop"),
        rule("reject from a service tcp/1-5,icmp/3/1,47"),
        rule("allow service ftp/21,tftp/69"),
        group(),
        group("10.0.0.1"),
        vnic("10.0.0.1 web segment=9"),
        vnic("10.0.0.1 profile=short udp_single=10"),
    ):
        assert msgspec.json.decode(msgspec.json.encode(thing), type=type(thing)) == thing
    nobody = msgspec.json.decode(
        msgspec.json.encode(rule("drop from nobody service nobody on nobody")), type=Rule
    )
    assert (nobody.sources, nobody.services, nobody.scope) == (Match(), (), ())


def test_a_rule_names_its_groups() -> None:
    """As source, destination and scope, excluded ones too."""
    assert rule("drop from a,10.0.0.1 to not b on c").groups() == {"a", "b", "c"}
    assert rule("drop").groups() == set()
    assert service("tcp").ports == ()


def test_a_uuid_has_one_form() -> None:
    """Ids are compared as text."""
    assert is_uuid("01234567-89ab-cdef-0123-456789abcdef")
    for text in ("", "x", "01234567-89AB-cdef-0123-456789abcdef", "0123456789abcdef0123456789abcdef"):
        assert not is_uuid(text)
