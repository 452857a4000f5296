"""Session timers: how long a flow lives, at which vNIC, after which packet.

A flow that is expired is missing: nothing has to take it away first."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.packet import Packet

from tests.harness.datapath import Host, Port, dropped, passed
from tests.harness.packets import Net, echo, other, reply_to, tcp, udp, unreachable
from vsfwd.policy.model import MAX_TIMER, SessionTimers

pytestmark = pytest.mark.slow

BPF = Path(__file__).parents[2] / "bpf"
IN_ONLY = ["allow in", "drop out"]
VNICS = {"here": "10.0.0.1 fd00::1", "there": "10.0.0.2 fd00::2"}
NSX = SessionTimers().seconds()
OWN = {
    "tcp_first_packet": 111,
    "tcp_opening": 122,
    "tcp_established": 1033,
    "tcp_closing": 144,
    "tcp_finwait": 155,
    "tcp_closed": 166,
    "udp_first_packet": 177,
    "udp_single": 188,
    "udp_multiple": 199,
    "icmp_first_packet": 210,
    "icmp_error_reply": 15,
}
"""A profile in which no two timers are alike."""
PASS, DROP = 0, 2
PROFILES = pytest.mark.parametrize("timers", [NSX, OWN], ids=["nsx", "own"])

Step = tuple[str, Callable[[Packet], object], Packet]
"""The timer that a packet starts, who takes the packet, and the packet."""


def install(host: Host, timers: dict[str, int] = NSX) -> None:
    """The policy, with these timers at the vNIC `here` and NSX's at the other."""
    own = " ".join(f"{name}={seconds}" for name, seconds in timers.items()) if timers is not NSX else ""
    host.install(IN_ONLY, vnics={**VNICS, "here": f"{VNICS['here']} {own}"})


def jiffies(host: Host) -> int:
    return int(host.datapath._programs.jiffies())


def ticks(host: Host, seconds: int) -> int:
    return seconds * int(host.datapath.status()["hz"])


def end(host: Host, port: Port) -> int:
    """When the only flow of a vNIC ends."""
    flows = host.datapath._flows
    ((_, value),) = flows._taken(port.slot)
    return int(flows._value.unpack(value)["expires"])


def check(host: Host, port: Port, timers: dict[str, int], steps: list[Step]) -> None:
    """That each packet lets the flow end exactly one lifetime later."""
    for timer, take, packet in steps:
        before = jiffies(host)
        take(packet)
        lifetime = ticks(host, timers[timer])
        assert before <= end(host, port) - lifetime <= jiffies(host), (timer, port.flow())


def handshake(here: Port, net: Net) -> list[Step]:
    return [
        ("tcp_first_packet", here.receive, tcp(net.peer, net.here, 80, "S")),
        ("tcp_opening", here.send, tcp(net.here, net.peer, 1000, "SA", sport=80)),
        ("tcp_established", here.receive, tcp(net.peer, net.here, 80, "A")),
        ("tcp_established", here.send, tcp(net.here, net.peer, 1000, "PA", sport=80)),
    ]


@PROFILES
@pytest.mark.parametrize("first", ["initiator", "responder"])
def test_every_timer_of_tcp_to_the_jiffy(host: Host, net: Net, timers: dict[str, int], first: str) -> None:
    """From the SYN to both FINs, whoever closes first: each segment starts the timer of the state it leads
    to."""
    here = host.port("here")
    install(host, timers)
    theirs = (here.receive, tcp(net.peer, net.here, 80, "FA"))
    ours = (here.send, tcp(net.here, net.peer, 1000, "FA", sport=80))
    one, two = (theirs, ours) if first == "initiator" else (ours, theirs)
    check(host, here, timers, [*handshake(here, net), ("tcp_closing", *one), ("tcp_finwait", *two)])


@PROFILES
def test_a_reset_starts_the_timer_of_what_is_closed(host: Host, net: Net, timers: dict[str, int]) -> None:
    """A connection that one RST has ended is gone long before one that idles."""
    here = host.port("here")
    install(host, timers)
    reset = tcp(net.peer, net.here, 80, "R")
    check(host, here, timers, [*handshake(here, net), ("tcp_closed", here.receive, reset)])


@PROFILES
@pytest.mark.parametrize("protocol", ["udp", "gre"])
def test_every_timer_of_udp_to_the_jiffy(host: Host, net: Net, timers: dict[str, int], protocol: str) -> None:
    """One packet, several, a reply; and the same timers for protocols that NSX has none for."""
    here = host.port("here")
    install(host, timers)
    question = udp(net.peer, net.here) if protocol == "udp" else other(net.peer, net.here, 47)
    check(
        host,
        here,
        timers,
        [
            ("udp_first_packet", here.receive, question),
            ("udp_single", here.receive, question),
            ("udp_multiple", here.send, reply_to(question)),
            ("udp_multiple", here.receive, question),
        ],
    )


@PROFILES
def test_the_timers_of_an_echo_to_the_jiffy(host: Host, net: Net, timers: dict[str, int]) -> None:
    """Request and reply start it; an ICMP error about the request leaves it the shorter time; one more
    request starts it again."""
    here = host.port("here")
    install(host, timers)
    request = echo(net.peer, net.here)
    check(
        host,
        here,
        timers,
        [
            ("icmp_first_packet", here.receive, request),
            ("icmp_first_packet", here.send, reply_to(request)),
            ("icmp_error_reply", here.send, unreachable(net.here, request)),
            ("icmp_first_packet", here.receive, request),
        ],
    )


def test_no_error_lets_an_echo_live_longer(host: Host, net: Net) -> None:
    """Whoever sends errors about it does not keep a flow: not with a long timer for errors either."""
    here = host.port("here")
    install(host, {**OWN, "icmp_error_reply": 3000})
    here.receive(echo(net.peer, net.here))
    before = end(host, here)
    assert here.send(unreachable(net.here, echo(net.peer, net.here))) == passed(1)
    assert end(host, here) == before


def test_an_error_leaves_other_flows_their_time(host: Host, net: Net) -> None:
    """icmp_error_reply is of ICMP: an error about UDP changes nothing."""
    here = host.port("here")
    install(host)
    here.receive(udp(net.peer, net.here))
    before = end(host, here)
    assert here.send(unreachable(net.here, udp(net.peer, net.here))) == passed(1)
    assert end(host, here) == before


def test_alive_in_the_last_jiffy_missing_in_the_next(host: Host, net: Net) -> None:
    """A reply passes as part of its flow one tick before the end, and is a stranger's at the end."""
    here, question = host.port("here"), udp(net.peer, net.here)
    reply = bytes(here.frame_out(reply_to(question)))
    install(host)

    def asked_at(tick: int) -> tuple[int, int]:
        """What becomes of the reply, and the first tick by which that was known."""
        while jiffies(host) < tick:
            pass
        return here.run_raw(host.datapath.vnic_out, reply), jiffies(host)

    seen, deadline = set[str](), time.monotonic() + 60
    with host.timers(FIRST=0.3, SINGLE=0.3, MULTIPLE=0.3):
        while len(seen) < 2:
            assert time.monotonic() < deadline, f"never asked in time, but for {seen}"
            here.receive(question)
            last = end(host, here)
            verdict, tick = asked_at(last - 1)
            if tick == last - 1:
                assert verdict == PASS
                seen.add("alive")
            verdict, tick = asked_at(end(host, here))
            assert verdict == DROP
            if tick == end(host, here):
                seen.add("missing")


def test_two_vnics_keep_two_times(host: Host, net: Net) -> None:
    """One connection through two vNICs of a host ends at each when that vNIC's profile says so."""
    here, there = host.port("here"), host.port("there")
    install(host, OWN)
    request = udp(net.peer, net.here)
    here.receive(request)
    there.receive(request)
    assert [round(port.flow().expires_s) for port in (here, there)] == [177, 60]


def test_a_changed_timer_counts_from_the_next_packet(host: Host, net: Net) -> None:
    """A live flow keeps the end it has, and its next packet gives it the new time: shorter or longer."""
    here, question = host.port("here"), udp(net.peer, net.here)
    install(host)
    here.receive(question)
    before = end(host, here)
    for profile in (OWN, NSX):
        install(host, profile)
        assert end(host, here) == before
        check(host, here, profile, [("udp_single", here.receive, question)])
        before = end(host, here)


def test_a_longer_timer_brings_nothing_back(host: Host, net: Net) -> None:
    """What has expired is gone, whatever the profile says from then on."""
    here, question = host.port("here"), udp(net.peer, net.here)
    install(host)
    with host.timers(FIRST=0):
        here.receive(question)
    install(host, OWN)
    assert here.flows() == []
    assert here.send(reply_to(question)) == dropped("rule_drop", 2)
    assert here.receive(question) == passed(1, new=True)


def test_the_longest_timer_is_as_long_as_it_says(host: Host, net: Net) -> None:
    """50 days are more ticks than 32 bits hold where a second has a thousand of them."""
    here = host.port("here")
    timers = {**OWN, "udp_first_packet": MAX_TIMER}
    install(host, timers)
    check(host, here, timers, [("udp_first_packet", here.receive, udp(net.peer, net.here))])


@pytest.mark.slow
def test_timers_outlive_the_daemon(host: Host, net: Net) -> None:
    """A daemon that takes over leaves each vNIC its timers; a vNIC that comes has those of its policy."""
    here = host.port("here")
    install(host, OWN)
    host.restart()
    check(host, here, OWN, [("udp_first_packet", here.receive, udp(net.peer, net.here))])


def test_the_next_vnic_in_a_slot_has_its_own_timers(host: Host, net: Net) -> None:
    """Nothing of the profile of a vNIC that went stays in its place."""
    gone = host.port("here")
    install(host, OWN)
    host.unplug()
    host.datapath.set_timers({})
    there = host.port("there")
    assert there.slot == gone.slot
    install(host)
    check(host, there, NSX, [("udp_first_packet", there.receive, udp(net.peer, net.here))])


def test_o25_o26_programs_ask_for_no_time_of_day() -> None:
    """Flows age by the kernel's ticks, rates and what is logged go by its monotonic clock: whoever sets the
    wall clock ends no flow and brings none back, and while a host sleeps neither goes on."""
    text = "".join(path.read_text() for path in sorted(BPF.glob("*.[ch]")))
    assert set(re.findall(r"\bbpf_(?:ktime_get\w*|jiffies\w*)", text)) == {
        "bpf_ktime_get_ns",
        "bpf_jiffies64",
    }
