"""The first rule that matches decides, and everything about the decision is visible."""

from tests.harness.datapath import Host, dropped, passed
from tests.harness.packets import Net, tcp, udp

HERE = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}


def test_an_allow_rule_passes_and_counts_a_session(host: Host, net: Net) -> None:
    """A UDP packet that a rule allows passes, counts one packet and one session, and is a flow."""
    here = host.port("here")
    host.install(["allow to web service udp/53", "drop"], vnics=HERE)
    assert here.receive(udp(net.peer, net.here)) == passed(1, new=True)
    assert here.states() == ["first"]


def test_a_drop_rule_drops_and_leaves_no_flow(host: Host, net: Net) -> None:
    """What the next port is allowed, this one is not: dropped by the rule below, no flow."""
    here = host.port("here")
    host.install(["allow to web service udp/53", "drop"], vnics=HERE)
    assert here.receive(udp(net.peer, net.here, 54)) == dropped("rule_drop", 2)
    assert here.receive(udp(net.peer, net.here, 52)) == dropped("rule_drop", 2)
    assert here.receive(tcp(net.peer, net.here, 53)) == dropped("rule_drop", 2)
    assert here.flows() == []
