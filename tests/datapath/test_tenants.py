"""Two tenants with the same addresses, each behind a vNIC of its own: what one says is nothing to the
other."""

import pytest

from tests.harness.datapath import Host, Port, Seen, dropped, passed
from tests.harness.packets import Net, reply_to, tcp, udp, unreachable

VNICS = {"here": "10.0.0.1 fd00::1 segment=1", "twin": "10.0.0.1 fd00::1 segment=2"}


class Tenants:
    """`ask` in the direction that the rules allow, `answer` in the other."""

    def __init__(self, host: Host, net: Net, inward: bool) -> None:
        self.one, self.two = host.port("here"), host.port("twin")
        self.ends = (net.peer, net.here) if inward else (net.here, net.peer)
        self._inward = inward
        host.install(["allow in", "drop out"] if inward else ["allow out", "drop in"], vnics=VNICS)

    def ask(self, at: Port, packet: object) -> Seen:
        return (at.receive if self._inward else at.send)(packet)

    def answer(self, at: Port, packet: object) -> Seen:
        return (at.send if self._inward else at.receive)(packet)


@pytest.fixture(params=[True, False], ids=["in", "out"])
def tenants(host: Host, net: Net, request: pytest.FixtureRequest) -> Tenants:
    return Tenants(host, net, request.param)


def test_x42_a_flow_of_one_lets_nothing_by_at_the_other(tenants: Tenants) -> None:
    """The same five numbers at another vNIC are another flow: neither the answer nor an ICMP error about it
    passes there, and the question begins a flow of its own."""
    question = udp(*tenants.ends)
    assert tenants.ask(tenants.one, question) == passed(1, new=True)
    assert tenants.answer(tenants.two, reply_to(question)) == dropped("rule_drop", 2)
    error = unreachable(tenants.ends[1], question)
    assert tenants.answer(tenants.two, error) == dropped("icmp_error_unrelated")
    assert tenants.two.flows() == []
    assert tenants.ask(tenants.two, question) == passed(1, new=True)
    assert tenants.answer(tenants.one, error) == passed(1)


def test_x42_a_connection_of_one_is_not_ended_by_the_other(tenants: Tenants) -> None:
    """An exact RST there is of no connection, and this one goes on."""
    syn = tcp(*tenants.ends)
    last = tcp(*tenants.ends, flags="A")
    for take, packet in ((tenants.ask, syn), (tenants.answer, reply_to(syn)), (tenants.ask, last)):
        assert take(tenants.one, packet).verdict == "pass"
    assert tenants.ask(tenants.two, last) == dropped("no_state")
    assert tenants.ask(tenants.two, tcp(*tenants.ends, flags="R")) == dropped("no_state")
    assert tenants.one.states() == ["established"]
    assert tenants.ask(tenants.one, last) == passed(1)
