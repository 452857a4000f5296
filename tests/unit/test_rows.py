"""Rows of answers: the words for matches and services, the order of rules, the packet that is asked about."""

from dataclasses import replace

import pytest

import vsfwd.ipc.interface as api
from vsfwd.image import Image, RuleEntry, VnicRows
from vsfwd.policy.model import Action, Alg, Frames, Group, Match, Service
from vsfwd.rows import applied, frames_text, match_text, packet_of, services_text

GROUPS = {"g1": Group("web servers")}


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (None, "any"),
        (Match(groups=("g1",), addresses=("10.0.0.0/8",)), "web servers, 10.0.0.0/8"),
        (Match(groups=("gone",)), "gone"),
        (Match(addresses=("10.0.0.1",), excluded=True), "not 10.0.0.1"),
        (Match(), "nobody"),
    ],
)
def test_a_match_in_words(match: Match | None, words: str) -> None:
    """Groups by their name, where they have one."""
    assert match_text(match, GROUPS) == words


@pytest.mark.parametrize(
    ("services", "words"),
    [
        (None, "any"),
        ((), "nothing"),
        ((Service(6, ports=((80, 80), (8000, 8080))), Service(17)), "tcp/80,8000-8080, udp"),
        ((Service(1, icmp_type=8), Service(58, icmp_type=1, icmp_code=4)), "icmp/8, icmpv6/1.4"),
        ((Service(47),), "protocol 47"),
        ((Service(6, ((80, 80),), ((1, 9),)), Service(17, (), ((53, 53),))), "tcp/80 from 1-9, udp from 53"),
        ((Service(6, ports=((21, 21),), alg=Alg.FTP), Service(17)), "tcp/21 (ftp alg), udp"),
    ],
)
def test_services_in_words(services: tuple[Service, ...] | None, words: str) -> None:
    """Protocol and ports as people write them."""
    assert services_text(services) == words


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (Frames(), "ethertype any"),
        (Frames((0x0806, 0x88CC)), "ethertype 0x0806,0x88cc"),
        (Frames((), ((10, 10), (20, 29))), "ethertype none vlan 10,20-29"),
    ],
)
def test_frames_in_words(frames: Frames, words: str) -> None:
    """EtherTypes as they are written everywhere, VLAN ids as ranges."""
    assert frames_text(frames) == words


def test_the_rules_of_a_vnic_are_those_of_the_kernels_rows() -> None:
    """Any direction, any family, in the order of evaluation, each once."""
    rules = tuple(RuleEntry(id, Action.ALLOW, False) for id in (30, 10, 20))
    image = Image((0, 0b001, 0b101), {}, {}, (), {4: VnicRows(1, 0, 2, 0)}, rules)
    assert applied(image, 4) == [30, 20]
    assert applied(image, 5) == []
    assert applied(None, 4) == []


def test_a_packet_is_asked_about_by_name_or_number() -> None:
    """tcp and 6 are the same."""
    named = api.PacketSpec("in", "TCP", "10.0.0.1", "10.0.0.2", port=80)
    numbered = api.PacketSpec("in", "6", "10.0.0.1", "10.0.0.2", port=80)
    assert packet_of(named) == packet_of(numbered)


@pytest.mark.parametrize(("protocol", "echo_request"), [("icmp", 8), ("icmpv6", 128), ("47", 0)])
def test_an_icmp_packet_is_an_echo_request_unless_it_is_said(protocol: str, echo_request: int) -> None:
    """As `vsfwctl trace` takes it; 0 is a type, and what else has none."""
    source, destination = ("fd00::1", "fd00::2") if protocol == "icmpv6" else ("10.0.0.1", "10.0.0.2")
    spec = api.PacketSpec("in", protocol, source, destination)
    assert packet_of(spec).icmp_type == echo_request
    assert packet_of(replace(spec, icmp_type=0)).icmp_type == 0


@pytest.mark.parametrize(
    ("packet", "named"),
    [
        (api.PacketSpec("in", "tcp", "10.0.0.1", "10.0.0.2"), "port"),
        (api.PacketSpec("in", "carrier pigeon", "10.0.0.1", "10.0.0.2"), "protocol"),
        (api.PacketSpec("in", "300", "10.0.0.1", "10.0.0.2"), "protocol"),
        (api.PacketSpec("in", "udp", "10.0.0", "10.0.0.2", port=1), "10.0.0"),
        (api.PacketSpec("in", "udp", "10.0.0.1", "fd00::1", port=1), "family"),
    ],
)
def test_a_packet_that_cannot_be_is_refused(packet: api.PacketSpec, named: str) -> None:
    """With what is wrong in the text."""
    with pytest.raises(ValueError, match=named):
        packet_of(packet)
