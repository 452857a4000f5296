"""FTP and TFTP: a control connection lets in the one data connection that it announces, and nothing else.

Row X40 of the attack catalogue. Rule 1 allows the control connection where the test has the client, rule 2
drops: a data connection that passes counts for rule 1. `Talk` says lines in sequence, unless told
otherwise."""

from dataclasses import dataclass

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Raw

from tests.harness.datapath import Host, Port, Seen, dropped, passed
from tests.harness.packets import IPV4, IPV6, ISN, Net, ip, reply_to, tcp, udp
from vsfwd.datapath import TIMEOUTS_S

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2 db"}
OPENED = passed(1, new=True)
SHUT = dropped("rule_drop", 2)
PORT = 5000


@dataclass(frozen=True)
class Form:
    """How a data connection is announced, and by whom."""

    name: str
    net: Net
    client: bool

    def line(self, address: str, port: int = PORT) -> str:
        numbers = ",".join([*address.split("."), str(port >> 8), str(port & 255)])
        return {
            "PORT": f"PORT {numbers}\r\n",
            "EPRT": f"EPRT |{'1' if self.net is IPV4 else '2'}|{address}|{port}|\r\n",
            "227": f"227 Entering Passive Mode ({numbers}).\r\n",
            "229": f"229 Entering Extended Passive Mode (|||{port}|)\r\n",
        }[self.name]


FORMS = {
    "PORT": Form("PORT", IPV4, client=True),
    "EPRT-ipv4": Form("EPRT", IPV4, client=True),
    "EPRT-ipv6": Form("EPRT", IPV6, client=True),
    "227": Form("227", IPV4, client=False),
    "229-ipv4": Form("229", IPV4, client=False),
    "229-ipv6": Form("229", IPV6, client=False),
}
CASES = {
    f"{name}-{'server' if inbound else 'client'}-inside": (form, inbound)
    for name, form in FORMS.items()
    for inbound in (True, False)
}
SOME = ("PORT-server-inside", "EPRT-ipv6-client-inside", "227-client-inside", "229-ipv6-server-inside")
"""Both families, both sides that announce, both directions: enough for what every form shares."""


class Talk:
    """A control connection, open; its client is the peer if `inbound`, else the workload."""

    def __init__(self, port: Port, net: Net, inbound: bool) -> None:
        self.port, self.net, self.inbound = port, net, inbound
        self.said = {True: ISN + 1, False: ISN + 1}
        for client, flags in ((True, "S"), (False, "SA"), (True, "A")):
            assert self.carry(self.segment(client, flags=flags), client).verdict == "pass"

    def address(self, client: bool) -> str:
        return self.net.peer if client == self.inbound else self.net.here

    def segment(self, client: bool, text: str = "", flags: str = "A", seq: int | None = None) -> Packet:
        sport, dport = (1000, 21) if client else (21, 1000)
        packet = tcp(
            self.address(client),
            self.address(not client),
            dport,
            flags,
            sport=sport,
            seq=(self.said[client] if seq is None else seq) - ("S" in flags),
            ack=self.said[not client],
        )
        packet[TCP].payload = Raw(text.encode())
        return packet

    def say(self, client: bool, text: str, seq: int | None = None) -> None:
        """In sequence, or at `seq`. It passes, whatever it is."""
        assert self.carry(self.segment(client, text, seq=seq), client) == passed(1)
        if seq is None:
            self.said[client] += len(text)

    def announce(self, form: Form, port: int = PORT) -> None:
        self.say(form.client, form.line(self.address(form.client), port))

    def carry(self, packet: Packet, client: bool) -> Seen:
        return self.port.receive(packet) if client == self.inbound else self.port.send(packet)

    def connect(self, form: Form, port: int = PORT, source: str | None = None, sport: int = 20) -> Seen:
        """The data connection, to whoever announces in this form."""
        packet = tcp(source or self.address(not form.client), self.address(form.client), port, sport=sport)
        return self.carry(packet, not form.client)

    def answer(self, form: Form, port: int = PORT, sport: int = 20) -> Seen:
        request = tcp(self.address(not form.client), self.address(form.client), port, sport=sport)
        return self.carry(reply_to(request), form.client)


def rules(inbound: bool, service: str = "ftp/21", more: str = "") -> list[str]:
    return [f"allow {'in' if inbound else 'out'} service {service} {more}", "drop"]


@pytest.fixture(params=SOME)
def case(request: pytest.FixtureRequest) -> tuple[Form, bool]:
    return CASES[request.param]


@pytest.fixture
def form(case: tuple[Form, bool]) -> Form:
    return case[0]


@pytest.fixture
def inbound(case: tuple[Form, bool]) -> bool:
    """Whether the server is the workload."""
    return case[1]


@pytest.fixture
def talk(host: Host, form: Form, inbound: bool) -> Talk:
    port = host.port("here")
    host.install(rules(inbound), vnics=VNICS)
    return Talk(port, form.net, inbound)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_x40_what_is_announced_passes_once(talk: Talk, form: Form) -> None:
    """The data connection, both ways, under the rule of its control connection; no second one."""
    assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED
    assert talk.answer(form) == passed(1)
    assert talk.connect(form, sport=21000) == SHUT


def test_x40_nothing_is_announced_unless_the_service_says_so(host: Host, form: Form, inbound: bool) -> None:
    """A service of TCP and the same port listens to nobody."""
    port = host.port("here")
    host.install(rules(inbound, "tcp/21"), vnics=VNICS)
    talk = Talk(port, form.net, inbound)
    talk.announce(form)
    assert talk.connect(form) == SHUT


def test_x40_only_the_port_of_the_service_is_heard(host: Host, form: Form, inbound: bool) -> None:
    """What the same rule allows beside it could be anything, as a form that a browser sends."""
    port = host.port("here")
    host.install(rules(inbound, "ftp/2121,tcp/21"), vnics=VNICS)
    talk = Talk(port, form.net, inbound)
    talk.announce(form)
    assert talk.connect(form) == SHUT


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("229")], indirect=True)
def test_x40_nobody_announces_a_third_party(talk: Talk, form: Form) -> None:
    """The address is the sender's own: neither another host's nor the other end's."""
    for address in (talk.net.other, talk.net.twin, talk.address(not form.client)):
        talk.say(form.client, form.line(address))
        assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_x40_a_third_party_does_not_use_it(talk: Talk, form: Form) -> None:
    """What is announced is for the other end of the control connection, and waits for it."""
    talk.announce(form)
    forged = talk.connect(form, source=talk.net.other)
    assert forged == SHUT
    assert talk.connect(form, port=PORT + 1) == SHUT
    assert talk.connect(form) == OPENED


def test_x40_not_below_port_1024(talk: Talk, form: Form) -> None:
    """Those are of servers."""
    for port in (0, 22, 1023):
        talk.announce(form, port)
        assert talk.connect(form, port) == SHUT
    for port in (1024, 65535):
        talk.announce(form, port)
        assert talk.connect(form, port) == OPENED


BEFORE = ("NOOP ", "SITE COMMENT ", "X", " ", "\0", "NOOP\r\n", "200 ok\r\n", "\r\n")


def test_x40_only_the_start_of_a_segment_is_heard(talk: Talk, form: Form) -> None:
    """Behind anything else in the same segment it is a comment, an argument, or too late."""
    for before in BEFORE:
        talk.say(form.client, before + form.line(talk.address(form.client)))
        assert talk.connect(form) == SHUT, before
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_x40_only_its_own_side_is_heard(talk: Talk, form: Form) -> None:
    """A server's command and a client's reply announce nothing."""
    talk.say(not form.client, form.line(talk.address(not form.client)))
    other_way = Form(form.name, form.net, not form.client)
    assert talk.connect(other_way) == SHUT
    talk.say(not form.client, form.line(talk.address(form.client)))
    assert talk.connect(form) == SHUT


def test_x40_a_split_line_is_not_heard(talk: Talk, form: Form) -> None:
    """Wherever it is cut; the next whole line is."""
    line = form.line(talk.address(form.client))
    for at in range(1, len(line)):
        talk.say(form.client, line[:at])
        talk.say(form.client, line[at:])
        assert talk.connect(form) == SHUT, line[:at]
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_x40_a_segment_in_the_middle_of_a_line_is_not_heard(talk: Talk, form: Form) -> None:
    """A sender can be made to begin a segment anywhere in what it says."""
    talk.say(form.client, "USER somebody ")
    talk.announce(form)
    assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_x40_nothing_is_heard_twice(talk: Talk, form: Form) -> None:
    """A segment that is sent again passes, and announces nothing; nor does one that overlaps another."""
    start = talk.said[form.client]
    talk.announce(form)
    assert talk.connect(form) == OPENED
    line = form.line(talk.address(form.client))
    talk.say(form.client, line, seq=start)
    assert talk.connect(form, sport=21000) == SHUT
    talk.say(form.client, "NOOP\r\n")
    talk.say(form.client, line, seq=talk.said[form.client] - len("NOOP\r\n"))
    assert talk.connect(form, sport=21000) == SHUT


def test_x40_what_comes_out_of_sequence_is_not_heard(talk: Talk, form: Form) -> None:
    """What belongs before it may make it the middle of a line."""
    talk.say(form.client, form.line(talk.address(form.client)), seq=talk.said[form.client] + 10)
    assert talk.connect(form) == SHUT


def test_x40_what_its_receiver_would_refuse_is_not_heard(talk: Talk, form: Form) -> None:
    """A wrong checksum: the receiver never sees that line."""
    packet = talk.segment(form.client, form.line(talk.address(form.client)))
    packet[TCP].chksum = 0xDEAD
    assert talk.carry(packet, form.client) == passed(1)
    assert talk.connect(form) == SHUT


def test_x40_it_waits_for_thirty_seconds_at_most(host: Host, talk: Talk, form: Form) -> None:
    """A pinhole that has expired is none."""
    assert TIMEOUTS_S["PINHOLE"] <= 30
    with host.timers(PINHOLE=0):
        talk.announce(form)
        assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_x40_a_new_policy_forgets_what_was_announced(host: Host, talk: Talk, form: Form) -> None:
    """Until the control connection has been asked about again, and announces again."""
    talk.announce(form)
    host.install(rules(talk.inbound), vnics=VNICS)
    assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED


def test_a_new_policy_asks_the_rules_about_a_data_connection(host: Host, talk: Talk, form: Form) -> None:
    """Like any flow, and they do not know what announced it; flows of a rule that says keep go on."""
    for more, seen in (("", SHUT), ("keep", passed(1))):
        host.install(rules(talk.inbound, more=more), vnics=VNICS)
        talk.announce(form)
        assert talk.connect(form) == OPENED
        talk.answer(form)
        if more:
            established = tcp(
                talk.address(not form.client), talk.address(form.client), PORT, "A", sport=20, ack=ISN + 1
            )
            assert talk.carry(established, not form.client) == passed(1)
        host.install(rules(talk.inbound, more=more), vnics=VNICS)
        assert talk.answer(form) == seen


def test_a_rule_that_gets_an_alg_hears_from_the_next_line_on(host: Host, form: Form, inbound: bool) -> None:
    """Where a line begins in a connection from before is not known until one ends."""
    port = host.port("here")
    host.install(rules(inbound, "tcp/21"), vnics=VNICS)
    talk = Talk(port, form.net, inbound)
    host.install(rules(inbound), vnics=VNICS)
    talk.announce(form)
    assert talk.connect(form) == SHUT
    talk.announce(form)
    assert talk.connect(form) == OPENED
    host.install(rules(inbound, "tcp/21"), vnics=VNICS)
    talk.announce(form)
    assert talk.connect(form) == SHUT


CLIENT4 = "10,0,9,9"
REFUSED = {
    "five-numbers": f"PORT {CLIENT4},19\r\n",
    "seven-numbers": f"PORT {CLIENT4},19,136,1\r\n",
    "large-number": f"PORT {CLIENT4},19,392\r\n",
    "endless-number": f"PORT 0000000{CLIENT4},19,136\r\n",
    "no-end": f"PORT {CLIENT4},19,136",
    "half-end": f"PORT {CLIENT4},19,136\n",
    "dots": "PORT 10.0.9.9,19,136\r\n",
    "eprt-open": "EPRT |1|10.0.9.9|5000\r\n",
    "eprt-delimiter": "EPRT !1!10.0.9.9!5000!\r\n",
    "eprt-family": "EPRT |2|10.0.9.9|5000|\r\n",
    "eprt-unknown-family": "EPRT |0|10.0.9.9|5000|\r\n",
    "eprt-large-port": "EPRT |1|10.0.9.9|70536|\r\n",
    "eprt-mapped": "EPRT |2|::ffff:a00:909|5000|\r\n",
    "irc-dcc": "PRIVMSG x :\1DCC SEND file 167774473 5000\1\r\n",
    "long": f"PORT {CLIENT4},19,136{' ' * 200}\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_x40_a_line_that_is_not_exactly_right_is_not_heard(host: Host, name: str) -> None:
    """No guessing; the right line is heard after it. (A mapped address is one, but nobody writes that.)"""
    form = FORMS["PORT"]
    port = host.port("here")
    host.install(rules(True), vnics=VNICS)
    talk = Talk(port, form.net, True)
    talk.say(True, REFUSED[name])
    heard = name == "eprt-mapped"
    assert talk.connect(form) == (OPENED if heard else SHUT)
    talk.say(True, "NOOP\r\n")
    talk.announce(form)
    assert talk.connect(form, sport=21000) == OPENED


SPELLINGS = {
    "fd00::9:9": True,
    "FD00::9:9": True,
    "fd00:0:0:0:0:0:9:9": True,
    "fd00:0000:0000:0000:0000:0000:0009:0009": True,
    "fd00::0:9:9": True,
    "fd00:0:0:0:0:0:9": False,
    "fd00:0:0:0:0:0:0:9:9": False,
    "fd00::9::9": False,
    "fd00::9:9:": False,
    ":fd00::9:9": False,
    "fd00::00009:9": False,
    "fd00::9:g": False,
    "::9:9": False,
    "fd00::": False,
    "::": False,
    "": False,
}


def test_x40_ipv6_addresses_are_read_in_every_spelling(host: Host) -> None:
    """RFC 4291 2.2; what is no address announces nothing."""
    port = host.port("here")
    host.install(rules(True), vnics=VNICS)
    talk = Talk(port, IPV6, True)
    for number, (spelling, right) in enumerate(SPELLINGS.items(), PORT):
        talk.say(True, f"eprt |2|{spelling}|{number}|\r\n")
        assert talk.connect(FORMS["EPRT-ipv6"], number) == (OPENED if right else SHUT), spelling


def test_x40_two_vnics_announce_for_themselves(host: Host, form: Form, inbound: bool) -> None:
    """What one vNIC has announced opens nothing at another."""
    here, twin = host.port("here"), host.port("twin")
    host.install(rules(inbound), vnics=VNICS)
    talk = Talk(here, form.net, inbound)
    talk.announce(form)
    talk.port = twin
    assert talk.connect(form).verdict == "drop"
    talk.port = here
    assert talk.connect(form) == OPENED


# ---- TFTP ----


@dataclass
class Transfer:
    """TFTP between a client's port 3000 and the server; the client is the peer if `inbound`."""

    port: Port
    net: Net
    inbound: bool

    def request(self, operation: int = 1, sport: int = 3000, dport: int = 69) -> Seen:
        packet = self._packet(True, dport, sport)
        packet[UDP].payload = Raw(operation.to_bytes(2, "big") + b"file\0octet\0")
        return self.carry(packet, True)

    def answer(self, sport: int = 40000, dport: int = 3000) -> Seen:
        return self.carry(self._packet(False, dport, sport), False)

    def acknowledge(self, dport: int = 40000) -> Seen:
        return self.carry(self._packet(True, dport, 3000), True)

    def _packet(self, client: bool, dport: int, sport: int) -> Packet:
        ends = (self.net.peer, self.net.here) if client == self.inbound else (self.net.here, self.net.peer)
        return udp(*ends, dport, sport=sport)

    def carry(self, packet: Packet, client: bool) -> Seen:
        return self.port.receive(packet) if client == self.inbound else self.port.send(packet)


@pytest.fixture(params=[True, False], ids=["server-inside", "client-inside"])
def server_inside(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def transfer(host: Host, net: Net, server_inside: bool) -> Transfer:
    port = host.port("here")
    host.install(rules(server_inside, "tftp/69"), vnics=VNICS)
    return Transfer(port, net, server_inside)


@pytest.mark.parametrize("operation", [1, 2], ids=["read", "write"])
def test_x40_a_tftp_request_lets_one_answer_in(transfer: Transfer, operation: int) -> None:
    """From whatever port the server answers, to the client's; that port speaks on, no second one does."""
    assert transfer.answer() == SHUT
    assert transfer.request(operation) == OPENED
    assert transfer.answer() == OPENED
    assert transfer.acknowledge() == passed(1)
    assert transfer.answer() == passed(1)
    assert transfer.answer(sport=40001) == SHUT


def test_x40_a_tftp_request_that_is_repeated_is_one_more(transfer: Transfer) -> None:
    """A client that waits in vain asks again, and the server may answer from a new port."""
    assert transfer.request() == OPENED
    assert transfer.answer() == OPENED
    assert transfer.request() == passed(1)
    assert transfer.answer(sport=40001) == OPENED
    assert transfer.answer(sport=40002) == SHUT


def test_x40_only_tftp_requests_are_heard(transfer: Transfer) -> None:
    """Data, acknowledgements, errors and nonsense announce nothing."""
    assert transfer.request(0) == OPENED
    for operation in (3, 4, 5, 6, 256):
        assert transfer.request(operation) == passed(1)
        assert transfer.answer() == SHUT


def test_x40_tftp_to_another_port_of_the_client_stays_out(transfer: Transfer) -> None:
    """And nothing goes to a client's port below 1024."""
    assert transfer.request() == OPENED
    assert transfer.answer(dport=3001) == SHUT
    assert transfer.request(sport=1023) == OPENED
    assert transfer.answer(dport=1023) == SHUT


def test_x40_tftp_is_off_unless_the_service_says_so(host: Host, transfer: Transfer) -> None:
    """A service of UDP and the same port listens to nobody."""
    host.install(rules(transfer.inbound, "udp/69"), vnics=VNICS)
    assert transfer.request() == OPENED
    assert transfer.answer() == SHUT


def test_x40_a_request_in_fragments_is_not_heard(host: Host) -> None:
    """What its later fragments say is never looked at, so the first says nothing either."""
    port = host.port("here")
    host.install(rules(True, "tftp/69"), vnics=VNICS)
    packet = ip(IPV4.peer, IPV4.here, flags="MF") / UDP(sport=3000, dport=69, len=100)
    assert port.receive(packet / Raw(b"\0\1" + bytes(14))) == OPENED
    assert port.send(udp(IPV4.here, IPV4.peer, 3000, sport=40000)) == SHUT
