"""Where a host stands, and what it is sent next: each test is a conversation between manager and host."""

import dataclasses
from collections.abc import Mapping
from random import Random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from manager_stub import levels
from manager_stub.levels import EMPTY, Level, Position, State, TooMuch, check_size
from vsfwd.policy.desired import DesiredState, OutOfStep, apply
from vsfwd.policy.model import MAX_RULES
from vsfwd.protocol.envelope import Header, Kind, Refused, unseal
from vsfwd.protocol.messages import KINDS, Changes, digest_text
from vsfwd.protocol.topology import MAX_BODY

HOST = "33333333-0000-4000-8000-000000000001"
KEY = Ed25519PrivateKey.generate()
NOWHERE = Position(0, 0, digest_text(0))


def groups(**addresses: str) -> State:
    """A state of groups alone, each with one address."""
    raw = {
        name: f'{{"name":"{name}","addresses":["{address}"]}}'.encode() for name, address in addresses.items()
    }
    return levels.state({"rules": {}, "groups": raw, "vnics": {}})


ONE, TWO, THREE = groups(a="10.0.0.1"), groups(a="10.0.0.2", b="10.0.0.3"), groups(b="10.0.0.3")


class Conversation:
    """The manager's level of a host, and a host that applies what it is given, with the daemon's own code."""

    def __init__(self) -> None:
        self.level = Level(HOST, 1, 1, EMPTY, 0, "", None, NOWHERE)
        self.state = DesiredState()

    def want(self, wanted: State) -> None:
        self.level = levels.want(self.level, wanted, KEY)

    def report(self, *, resync: bool = False, refused: frozenset[str] = frozenset()) -> None:
        self.level = levels.report(self.level, self.position, KEY, resync=resync, refused=refused)

    @property
    def position(self) -> Position:
        return Position(self.state.epoch, self.state.generation, digest_text(self.state.digest))

    def outgoing(self) -> tuple[Header, Mapping[str, object]]:
        assert self.level.outgoing is not None
        header, json = unseal(KEY.public_key(), self.level.outgoing.message, HOST)
        changes = msgspec.json.decode(json)
        return header, changes

    def deliver(self) -> Header:
        """The host applies the message that is under way, and says nothing yet."""
        assert self.level.outgoing is not None
        header, json = unseal(KEY.public_key(), self.level.outgoing.message, HOST)
        self.state = apply(self.state, header, json)
        return header

    def settled(self) -> None:
        """Until nothing is under way."""
        while self.level.outgoing is not None:
            self.deliver()
            self.report()
        assert self.level.in_sync
        assert self.state.raw == self.level.wanted.objects


@pytest.fixture
def talk() -> Conversation:
    """A host that has said hello and applied its first snapshot of ONE."""
    talk = Conversation()
    talk.want(ONE)
    talk.report()
    talk.settled()
    return talk


def test_nothing_is_sent_before_the_first_hello() -> None:
    """The host may not be there yet; its queue is not filled with history."""
    talk = Conversation()
    talk.want(ONE)
    talk.want(TWO)
    assert talk.level.outgoing is None
    talk.report()
    header, changes = talk.outgoing()
    assert (header.kind, header.generation, header.base) == (Kind.SNAPSHOT, 3, 3)
    assert set(changes) == {"groups"}


def test_a_change_travels_as_the_difference_alone(talk: Conversation) -> None:
    """a is changed, b is new; then a goes and b is not mentioned."""
    talk.want(TWO)
    header, changes = talk.outgoing()
    assert (header.kind, header.base, header.generation) == (Kind.DELTA, 1 + 1, 3)
    assert set(changes["groups"]) == {"a", "b"}
    talk.settled()
    talk.want(THREE)
    assert talk.outgoing()[1] == {"groups": {"a": None}}
    talk.settled()


def test_what_changes_nothing_for_the_host_is_not_sent(talk: Conversation) -> None:
    """The same objects again: no generation, no message."""
    before = talk.level
    talk.want(groups(a="10.0.0.1"))
    assert talk.level is before


def test_changes_wait_while_a_message_is_under_way_and_then_travel_together(talk: Conversation) -> None:
    """Three changes, two messages; the wanted generation counts all three."""
    talk.want(TWO)
    under_way = talk.level.outgoing
    talk.want(THREE)
    talk.want(ONE)
    assert talk.level.outgoing is under_way
    assert talk.level.generation == 5
    talk.deliver()
    talk.report()
    header, _ = talk.outgoing()
    assert (header.kind, header.base, header.generation) == (Kind.DELTA, 3, 5)
    talk.settled()


def test_a_hello_with_the_current_digest_is_answered_with_nothing(talk: Conversation) -> None:
    """A reconnect is no reason for a message."""
    before = talk.level
    talk.report()
    assert talk.level == before


def test_a_host_on_the_base_of_what_is_under_way_is_left_to_the_deadline(talk: Conversation) -> None:
    """Its message may be in the queue still: no snapshot for a host that has only not got to it."""
    talk.want(TWO)
    under_way = talk.level.outgoing
    talk.report()
    assert talk.level.outgoing is under_way


@pytest.mark.parametrize("generation", [0, 1, 2, 3])
def test_a_host_with_anything_else_gets_a_snapshot_newer_than_it_has(
    talk: Conversation, generation: int
) -> None:
    """An older generation, or the right one with a wrong digest."""
    talk.want(TWO)
    talk.settled()
    talk.state = dataclasses.replace(DesiredState(), epoch=1, generation=generation, digest=7)
    talk.report()
    header = talk.deliver()
    assert header.kind == Kind.SNAPSHOT
    assert header.generation > generation
    talk.report()
    talk.settled()


def test_a_host_that_lost_its_state_gets_a_snapshot_though_a_delta_is_under_way(talk: Conversation) -> None:
    """The delta would not fit: there is no point in waiting for it to be refused."""
    talk.want(TWO)
    talk.state = DesiredState()
    talk.report()
    assert talk.outgoing()[0].kind == Kind.SNAPSHOT
    talk.settled()


def test_a_host_that_asks_for_it_gets_a_snapshot_once(talk: Conversation) -> None:
    """The delta does not fit; asking again while the snapshot is under way changes nothing."""
    talk.want(TWO)
    talk.report(resync=True)
    snapshot = talk.level.outgoing
    assert snapshot is not None
    assert snapshot.kind == Kind.SNAPSHOT
    talk.report(resync=True)
    assert talk.level.outgoing is snapshot
    talk.settled()


def test_a_message_that_the_host_refuses_is_not_sent_again_until_something_changes(
    talk: Conversation,
) -> None:
    """What is wanted next goes out as a snapshot: the host has not the base a delta would need."""
    talk.want(TWO)
    header, _ = talk.outgoing()
    talk.report(refused=frozenset({str(header.generation)}))
    assert talk.level.outgoing is not None
    assert talk.level.outgoing.refused
    talk.want(THREE)
    assert talk.outgoing()[0].kind == Kind.SNAPSHOT
    assert not talk.level.outgoing.refused
    talk.settled()


def test_a_host_ahead_of_the_manager_gets_a_new_epoch(talk: Conversation) -> None:
    """The manager was restored from an old copy; a generation in its own epoch would be refused as old."""
    talk.state = dataclasses.replace(talk.state, generation=talk.state.generation + 50)
    talk.report()
    header = talk.deliver()
    assert (header.kind, header.epoch, header.generation) == (Kind.SNAPSHOT, 2, 1)
    talk.report()
    talk.settled()


def test_after_a_restart_the_rest_goes_out_as_a_snapshot(talk: Conversation) -> None:
    """Of what was last sent only the name is known: there is nothing to take a difference from."""
    talk.level = dataclasses.replace(talk.level, sent=None)
    talk.want(TWO)
    assert talk.outgoing()[0].kind == Kind.SNAPSHOT
    talk.settled()


@pytest.mark.parametrize("count", [MAX_RULES, MAX_RULES + 1])
def test_the_limit_of_rules_is_the_hosts(count: int) -> None:
    """MAX_RULES fit, one more does not, and the reason says both numbers."""
    many = State({"rules": {str(number): b"{}" for number in range(count)}, "groups": {}, "vnics": {}}, 1)
    if count == MAX_RULES:
        check_size(many)
    else:
        with pytest.raises(TooMuch, match=f"{MAX_RULES + 1} rules .* at most {MAX_RULES}"):
            check_size(many)


def test_a_state_that_no_message_can_carry_is_too_much() -> None:
    """Large and compressible is fine; large and random is not."""
    fine = {"a": b'"' + b"x" * (MAX_BODY + 1) + b'"'}
    check_size(State({"rules": {}, "groups": fine, "vnics": {}}, 1))
    random = bytes(b % 94 + 33 for b in Random(1).randbytes(2 * MAX_BODY))
    large = {"a": b'"' + random.replace(b'"', b"a").replace(b"\\", b"b") + b'"'}
    with pytest.raises(TooMuch, match="compressed"):
        check_size(State({"rules": {}, "groups": large, "vnics": {}}, 1))


_states = st.dictionaries(st.sampled_from("abc"), st.sampled_from(("10.0.0.1", "10.0.0.2"))).map(
    lambda found: groups(**found)
)
_steps = st.lists(
    st.one_of(
        _states.map(lambda wanted: ("want", wanted)),
        st.sampled_from(("deliver", "deliver", "report", "report", "lose", "forget", "restart")).map(
            lambda name: (name, EMPTY)
        ),
    ),
    max_size=25,
)


@given(_states, _states)
def test_the_digest_reckoned_from_a_difference_is_that_of_the_state(before: State, wanted: State) -> None:
    """Whatever came, went or changed between the two."""
    assert levels.state(wanted.objects, before).digest == wanted.digest


@given(_steps)
def test_whatever_is_lost_or_forgotten_they_agree_in_the_end(steps: list[tuple[str, State]]) -> None:
    """Messages delivered, delivered twice or not at all, late reports, a host that loses its disk, a manager
    that restarts: after that, re-sending what is under way brings the host to what is wanted."""
    talk = Conversation()
    for step, wanted in steps:
        if step == "want":
            talk.want(wanted)
        elif step == "deliver" and talk.level.outgoing is not None:
            attempt(talk)
        elif step == "report":
            talk.report()
        elif step == "forget":
            talk.state = DesiredState()
        elif step == "restart" and talk.level.sent_digest != talk.level.wanted.text:
            talk.level = dataclasses.replace(talk.level, sent=None)
    talk.report()
    for _ in range(6):
        if talk.level.outgoing is not None:
            attempt(talk)
        talk.report()
    assert talk.level.outgoing is None
    assert talk.level.in_sync
    assert {kind: dict(talk.state.raw[kind]) for kind in KINDS} == talk.level.wanted.objects


def attempt(talk: Conversation) -> None:
    """As vsfwd does: what does not fit is answered with a request to resync, a duplicate with nothing."""
    try:
        talk.deliver()
    except OutOfStep:
        talk.report(resync=True)
    except Refused:
        pass


def test_the_body_is_of_the_contracts_shape(talk: Conversation) -> None:
    """Kinds of which nothing changed are left out."""
    talk.want(TWO)
    assert talk.level.outgoing is not None
    _, json = unseal(KEY.public_key(), talk.level.outgoing.message, HOST)
    assert set(msgspec.json.decode(json, type=Changes).groups) == {"a", "b"}
