"""Random policies for hypothesis, over names and addresses few enough that they meet."""

from ipaddress import ip_address
from itertools import product

from hypothesis import strategies as st

from tests.harness.policies import vnic_id
from vsfwd.policy.evaluate import Frame, Packet
from vsfwd.policy.model import (
    Action,
    Direction,
    ExistingFlows,
    Family,
    Frames,
    Group,
    Match,
    Rule,
    Service,
    Tracking,
    Vnic,
)

GROUPS = ("web", "app", "db", "lab")
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "fd00::1", "fd00::2", "fd00::1:1")
PREFIXES = (
    *("10.0.0.0/8", "10.0.0.0/24", "10.0.0.2/31", "10.0.0.1-10.0.0.3", "10.0.0.1-10.0.1.1", "0.0.0.0/0"),
    *("fd00::/8", "fd00::/112", "fd00::2/127", "fd00::1-fd00::1:1", "::/0", "10.0.0.2/32", "fd00::2/128"),
)
OUTSIDE = ("192.0.2.1", "2001:db8::1")
VNICS = tuple(vnic_id(f"vnic{number}") for number in range(4))
PORTS = (1, 79, 80, 81, 443, 65535)

_groups = st.lists(st.sampled_from(GROUPS), max_size=2, unique=True).map(tuple)
_literals = st.lists(st.sampled_from(HOSTS + PREFIXES), max_size=2, unique=True).map(tuple)

matches = st.none() | st.builds(Match, groups=_groups, addresses=_literals, excluded=st.booleans())

_ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda ends: (min(ends), max(ends)))
services = st.one_of(
    st.builds(
        Service,
        protocol=st.sampled_from((6, 17)),
        ports=st.lists(_ranges, max_size=2).map(tuple),
        source_ports=st.just(()) | st.lists(_ranges, max_size=2).map(tuple),
    ),
    st.builds(Service, protocol=st.sampled_from((1, 58)), icmp_type=st.sampled_from((None, 8, 128))),
    st.builds(Service, protocol=st.just(1), icmp_type=st.just(3), icmp_code=st.sampled_from((None, 0, 1))),
    st.builds(Service, protocol=st.sampled_from((0, 47, 255))),
)

rules = st.builds(
    Rule,
    name=st.just("rule"),
    section=st.just("section"),
    order=st.tuples(st.sampled_from((0, 1, 4, 5)), st.integers(0, 1)),
    action=st.sampled_from([action for action in Action if action is not Action.JUMP_TO_APPLICATION]),
    direction=st.sampled_from(Direction),
    family=st.sampled_from(Family),
    sources=matches,
    destinations=matches,
    services=st.none() | st.lists(services, max_size=2).map(tuple),
    scope=st.none() | _groups,
    logged=st.booleans(),
    tracking=st.sampled_from(Tracking),
    existing_flows=st.sampled_from(ExistingFlows),
    monitored=st.sampled_from((False, False, True)),
) | st.builds(
    Rule,
    name=st.just("rule"),
    section=st.just("section"),
    order=st.tuples(st.sampled_from((0, 1)), st.integers(0, 1)),
    action=st.just(Action.JUMP_TO_APPLICATION),
    sources=matches,
    monitored=st.booleans(),
)
groups = st.builds(Group, name=st.just("group"), addresses=_literals)
vnics = st.builds(
    Vnic,
    vm=st.just("vm"),
    vm_name=st.just("vm"),
    mac=st.just("02:00:00:00:00:01"),
    segment=st.sampled_from((0, 1, 2)),
    addresses=st.lists(st.sampled_from(HOSTS), max_size=3).map(tuple),
    groups=_groups,
    excluded=st.sampled_from((False, False, False, True)),
)

policies = st.fixed_dictionaries(
    {
        "rules": st.dictionaries(st.integers(1, 9).map(str), rules, max_size=7),
        "groups": st.fixed_dictionaries({name: groups for name in GROUPS}),
        "vnics": st.dictionaries(st.sampled_from(VNICS), vnics, min_size=1),
    }
)
"""A whole policy: objects by kind and id, for `policies.after`."""

_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03")
_macs = st.sampled_from(_MACS)
_vlans = st.sampled_from(((), ((10, 10),), ((0, 4095),), ((5, 9), (10, 11))))
_ethertypes = st.none() | st.lists(st.sampled_from((0x0800, 0x0806, 0x88CC)), max_size=2).map(tuple)
ethernet_rules = st.builds(
    Rule,
    name=st.just("rule"),
    section=st.just("section"),
    order=st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple),
    action=st.sampled_from((Action.ALLOW, Action.DROP)),
    direction=st.sampled_from(Direction),
    sources=st.none() | st.builds(Match, groups=_groups, excluded=st.booleans()),
    destinations=st.none() | st.builds(Match, groups=_groups, excluded=st.booleans()),
    scope=st.none() | _groups,
    frames=st.builds(Frames, ethertypes=_ethertypes, vlans=_vlans),
    monitored=st.sampled_from((False, False, True)),
)
mixed_policies = st.fixed_dictionaries(
    {
        "rules": st.dictionaries(st.integers(1, 9).map(str), rules | ethernet_rules, max_size=7),
        "groups": st.fixed_dictionaries(
            {
                name: st.builds(
                    Group,
                    name=st.just("group"),
                    addresses=_literals,
                    macs=st.lists(_macs, max_size=1).map(tuple),
                )
                for name in GROUPS
            }
        ),
        "vnics": st.dictionaries(
            st.sampled_from(VNICS),
            st.builds(
                Vnic,
                vm=st.just("vm"),
                vm_name=st.just("vm"),
                mac=_macs,
                segment=st.sampled_from((0, 1)),
                addresses=st.lists(st.sampled_from(HOSTS), max_size=2).map(tuple),
                groups=_groups,
            ),
            min_size=1,
        ),
    }
)
"""With Ethernet rules, and vNICs with different MAC addresses."""


_frames = st.sampled_from(
    [
        Frame(*fields)
        for fields in product(
            (*_MACS, "02:00:00:00:00:09"),
            (*_MACS, "ff:ff:ff:ff:ff:ff"),
            (0x0800, 0x0806, 0x86DD, 0x88CC, 0x88CD, 0x0027, 0x8100),
            (None, 0, 4, 5, 10, 12, 4095),
        )
    ]
)


slots = st.permutations(range(5)).flatmap(
    lambda numbers: st.sets(st.sampled_from(VNICS)).map(
        lambda here: dict(zip(sorted(here), numbers, strict=False))
    )
)
"""Which vNICs are on this host, and where."""


_ENDS = tuple(map(ip_address, HOSTS + OUTSIDE))
_heads = st.sampled_from(
    [
        (source, destination, protocol, midstream)
        for source, destination in product(_ENDS, _ENDS)
        for protocol in (6, 17, 1 if source.version == 4 else 58, 0, 47)
        for midstream in (False, True)
        if source.version == destination.version and (protocol == 6 or not midstream)
    ]
)
_port_pairs = st.sampled_from(list(product((*PORTS, 0, 2, 442, 444), repeat=2)))
_icmp = st.sampled_from(list(product((0, 3, 8, 128), (0, 1, 2))))
_packets = st.builds(
    lambda head, ports, icmp: Packet(*head[:3], ports[0], *icmp, midstream=head[3], source_port=ports[1]),
    _heads,
    _port_pairs,
    _icmp,
)


def packets() -> st.SearchStrategy[Packet]:
    """Few draws each: tests want tens of thousands."""
    return _packets


def frames() -> st.SearchStrategy[Frame]:
    return _frames
