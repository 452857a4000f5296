"""Random policies from a seed, over names and addresses few enough that they meet; and small changes of
one."""

from random import Random
from typing import Any, Final

from tests.harness.policies import vnic_id
from tests.oracle.clock import random_timers
from vsfwd.policy.model import (
    APPLICATION,
    Action,
    Direction,
    ExistingFlows,
    Family,
    Frames,
    Group,
    Match,
    Rule,
    Service,
    SpoofGuard,
    Tracking,
    Vnic,
)

GROUPS: Final = ("web", "app", "db")
HERE: Final = ("here", "twin")
OWN: Final = {
    "here": ("10.0.0.1", "fd00::1"),
    "twin": ("10.0.0.2", "fd00::2"),
    "far": ("10.0.1.1", "fd00::1:1"),
}
OUTSIDE: Final = ("10.0.1.2", "192.0.2.1", "fd00::1:2", "2001:db8::1")
ADDRESSES: Final = (*(address for own in OWN.values() for address in own), *OUTSIDE)
PREFIXES: Final = (
    *("10.0.0.0/8", "10.0.0.0/31", "10.0.1.0/24", "10.0.0.1-10.0.1.1", "0.0.0.0/0"),
    *("fd00::/8", "fd00::/112", "fd00::1:0/112", "fd00::1-fd00::1:1", "::/0"),
)
MACS: Final = {name: f"02:00:00:00:00:{number:02x}" for number, name in enumerate(OWN)}
OTHER_MACS: Final = ("02:00:00:00:99:99", "33:33:00:00:00:01")
"""Of everybody else here, and of a group."""
ETHERTYPES: Final = (0x0800, 0x86DD, 0x0806, 0x8847)
PORTS: Final = (22, 53, 79, 80, 81, 443, 65535)
SOURCE_PORTS: Final = (((1000, 1000),), ((0, 80),), ((81, 1000),))
PROTOCOLS: Final = (0, 47, 50, 59)
ICMP_TYPES: Final = (0, 3, 8, 13, 128, 129, 135, 136)
MONITORED: Final = 0.1
JUMPS: Final = 0.1
"""Of the rules that may, which are half of all."""

Objects = dict[str, dict[str, Any]]


def random_policy(rng: Random, *, decisive: bool = False) -> Objects:
    """`decisive`: every rule that matches decides."""
    rules = {str(number): random_rule(rng, decisive=decisive) for number in range(1, rng.randint(2, 9))}
    if rng.random() < 0.7:
        tracking = rng.choice((Tracking.STRICT, Tracking.STRICT, Tracking.LOOSE))
        rules["10"] = Rule(
            name="default", section="default", order=(9,), action=Action.ALLOW, tracking=tracking
        )
    return {
        "rules": rules,
        "groups": {name: random_group(rng) for name in GROUPS},
        "vnics": {vnic_id(name): random_vnic(rng, name) for name in OWN},
    }


def changed(rng: Random, objects: Objects) -> Objects:
    """Another policy, or the same but for one object."""
    objects = {kind: dict(items) for kind, items in objects.items()}
    kind = rng.choices(("all", "rules", "groups", "vnics", "gone"), (6, 8, 4, 4, 3))[0]
    if kind == "all":
        return random_policy(rng)
    if kind == "rules":
        number = str(rng.randint(1, 9))
        if objects["rules"].pop(number, None) is None or rng.random() < 0.7:
            objects["rules"][number] = random_rule(rng)
    elif kind == "groups":
        objects["groups"][rng.choice(GROUPS)] = random_group(rng)
    else:
        name = rng.choice(tuple(OWN))
        if kind == "vnics" or objects["vnics"].pop(vnic_id(name), None) is None:
            objects["vnics"][vnic_id(name)] = random_vnic(rng, name)
    return objects


def random_rule(rng: Random, *, decisive: bool = False) -> Rule:
    if rng.random() < 0.1:
        return _frame_rule(rng, decisive)
    place = rng.randint(APPLICATION - 2, APPLICATION + 1)
    action = rng.choices((Action.ALLOW, Action.DROP, Action.REJECT), (6, 2, 2))[0]
    if not decisive and place < APPLICATION and rng.random() < JUMPS:
        action = Action.JUMP_TO_APPLICATION
    return Rule(
        name="rule",
        section="section",
        order=(place,),
        action=action,
        direction=rng.choices(tuple(Direction), (1, 1, 2))[0],
        family=rng.choices(tuple(Family), (1, 1, 4))[0],
        sources=_match(rng),
        destinations=_match(rng),
        services=None if rng.random() < 0.5 else tuple(_service(rng) for _ in range(rng.randint(0, 3))),
        scope=None if rng.random() < 0.7 else tuple(rng.sample(GROUPS, rng.randint(0, 2))),
        tracking=rng.choices(tuple(Tracking), (4, 1, 1))[0],
        existing_flows=rng.choices(tuple(ExistingFlows), (4, 1, 1))[0],
        monitored=not decisive and rng.random() < MONITORED,
    )


def _frame_rule(rng: Random, decisive: bool) -> Rule:
    """About ARP and other EtherTypes more than about IP, of which something should be left."""
    return Rule(
        name="frames",
        section="ethernet",
        order=(0, rng.randint(0, 3)),
        action=rng.choice((Action.ALLOW, Action.DROP)),
        direction=rng.choices(tuple(Direction), (1, 1, 2))[0],
        sources=_macs(rng),
        destinations=_macs(rng),
        scope=None if rng.random() < 0.7 else tuple(rng.sample(GROUPS, rng.randint(0, 2))),
        frames=Frames(tuple(rng.sample(ETHERTYPES, rng.choice((1, 2)))) if rng.random() < 0.8 else None),
        monitored=not decisive and rng.random() < MONITORED,
    )


def _macs(rng: Random) -> Match | None:
    if rng.random() < 0.4:
        return None
    return Match(tuple(rng.sample(GROUPS, rng.randint(0, 2))), excluded=rng.random() < 0.25)


def random_group(rng: Random) -> Group:
    macs = tuple(rng.sample((*MACS.values(), *OTHER_MACS), rng.choice((0, 0, 1))))
    return Group("group", tuple(rng.sample(ADDRESSES + PREFIXES, rng.randint(0, 2))), macs)


def random_vnic(rng: Random, name: str) -> Vnic:
    """Mostly with its own addresses; sometimes it claims another's, or has none."""
    addresses = OWN[name] if rng.random() < 0.8 else tuple(rng.sample(ADDRESSES, rng.randint(0, 3)))
    groups = tuple(rng.sample(GROUPS, rng.randint(0, 2)))
    segment, excluded = rng.choice((0, 0, 1, 2)), rng.random() < 0.05
    mac = MACS[name] if rng.random() < 0.9 else rng.choice(tuple(MACS.values()))
    timers = random_timers(rng)
    return Vnic(
        *("vm", name, mac, segment, addresses, groups, excluded),
        spoofguard=rng.choices(tuple(SpoofGuard), (6, 1, 1))[0],
        router=rng.random() < 0.1,
        dhcp_server=rng.random() < 0.1,
        timers=timers,
    )


def _match(rng: Random) -> Match | None:
    if rng.random() < 0.5:
        return None
    groups = tuple(rng.sample(GROUPS, rng.randint(0, 2)))
    literals = tuple(rng.sample(ADDRESSES + PREFIXES, rng.randint(0, 2)))
    return Match(groups, literals, excluded=rng.random() < 0.25)


def _service(rng: Random) -> Service:
    protocol = rng.choice((6, 6, 17, 17, 1, 58, *PROTOCOLS))
    if protocol in (6, 17):
        ends = sorted(rng.sample(PORTS, 2))
        ports = ((ends[0], ends[1]),) if rng.random() < 0.8 else ()
        return Service(protocol, ports, rng.choice(SOURCE_PORTS) if rng.random() < 0.1 else ())
    if protocol in (1, 58) and rng.random() < 0.7:
        code = rng.choice((None, 0, 1))
        return Service(protocol, (), (), rng.choice(ICMP_TYPES), code)
    return Service(protocol)
