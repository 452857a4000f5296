"""Who is connected, who lags behind and who is cloned, by what the broker and the hosts say."""

import pytest

from manager_stub.presence import (
    AWAY_AFTER_S,
    KNOCKS_S,
    LAGS_AFTER_S,
    MAX_CONSUMERS,
    MAX_KNOCKS,
    Presence,
)
from tests.unit.manager.rest import Manager
from vsfwd.protocol.messages import Applied, Hello, Refusal, digest_text

HOST = "33333333-0000-4000-8000-000000000001"
ALARMS = "/api/v1/alarms"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def presence(clock: Clock) -> Presence:
    """The broker tells, and knew of nobody."""
    presence = Presence(clock)
    presence.begin(())
    return presence


def test_nobody_is_up_or_down_before_the_broker_tells(clock: Clock) -> None:
    """And not any more when it has stopped."""
    presence = Presence(clock)
    assert presence.is_up(HOST) is None
    presence.begin([HOST])
    assert presence.is_up(HOST) is True
    presence.end()
    assert presence.is_up(HOST) is None


def test_a_connection_that_is_closed_is_a_host_that_is_down_at_once(presence: Presence, clock: Clock) -> None:
    """Since that moment; what it said before, and is read now, does not bring it back, its next one does."""
    presence.came(HOST, "a")
    presence.went(HOST, "a")
    presence.heard(HOST)
    assert presence.is_up(HOST) is False
    clock.now += 5
    assert presence.away_for_s(HOST) == 5
    presence.came(HOST, "b")
    assert (presence.is_up(HOST), presence.away_for_s(HOST)) == (True, 0)


def test_a_host_that_comes_again_before_it_went_is_up(presence: Presence) -> None:
    """The broker finds out late that the old connection is dead."""
    presence.came(HOST, "a")
    presence.came(HOST, "b")
    assert presence.clones() == [HOST]
    presence.went(HOST, "a")
    assert (presence.is_up(HOST), presence.clones()) == (True, [])


def test_a_host_that_opens_one_consumer_after_the_other_takes_no_memory(presence: Presence) -> None:
    """Only a few are told apart: when those have gone it counts as gone."""
    for number in range(10 * MAX_CONSUMERS):
        presence.came(HOST, str(number))
    assert (len(presence._consumers[HOST]), presence.clones()) == (MAX_CONSUMERS, [HOST])
    for number in range(10 * MAX_CONSUMERS):
        presence.went(HOST, str(number))
    assert (presence._consumers[HOST], presence.is_up(HOST)) == (set(), False)


async def test_of_a_host_that_is_removed_nothing_is_left(manager: Manager, presence: Presence) -> None:
    """Or names would pile up."""
    presence.begin([HOST, HOST])
    presence.came(HOST, "a")
    presence.went(HOST, "a")
    presence.went(HOST, "a")
    presence.look(manager.register.hosts)
    kept = (presence._consumers, presence._signs, presence._since, presence._closed, presence._doubles)
    assert not any(kept)


def test_a_host_that_says_nothing_is_away_whatever_the_broker_believes(
    presence: Presence, clock: Clock
) -> None:
    """After 75 s, of which each word counts; one that was never heard of is not known until then."""
    presence.came(HOST, "a")
    clock.now += AWAY_AFTER_S - 1
    presence.heard(HOST)
    clock.now += AWAY_AFTER_S - 1
    assert (presence.is_up(HOST), presence.is_up("another")) == (True, False)
    clock.now += 1
    assert presence.is_up(HOST) is False


def test_knocks_are_counted_and_end(presence: Presence, clock: Clock) -> None:
    """By login; however many there are, few are remembered."""
    for _ in range(3):
        presence.knocked("login", "192.0.2.1:5")
    (knock,) = presence.knocks()
    assert (knock.login, knock.peer, knock.count) == ("login", "192.0.2.1:5", 3)
    for number in range(2 * MAX_KNOCKS):
        presence.knocked(str(number), "")
    assert len(presence.knocks()) == MAX_KNOCKS
    clock.now += KNOCKS_S
    assert presence.knocks() == []


async def test_a_host_that_lags_behind_is_an_alarm(manager: Manager, clock: Clock) -> None:
    """When it is connected and has not had what is wanted for half a minute; gone when it has."""
    presence, register = manager.parts.presence, manager.register
    presence._clock = clock
    register.add_host(HOST, "host1")
    register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    presence.begin([HOST])
    presence.look(register.hosts)
    clock.now += LAGS_AFTER_S - 1
    assert (await manager.call("GET", ALARMS))["results"] == []
    clock.now += 1
    (alarm,) = (await manager.call("GET", ALARMS))["results"]
    assert (alarm["event_type"], alarm["event_code"], alarm["node_id"]) == (
        "realization_delayed",
        301031,
        HOST,
    )
    wanted = register.hosts[HOST].level.wanted_position
    register.reported({HOST: Applied(wanted.epoch, wanted.generation, wanted.digest)})
    presence.look(register.hosts)
    assert (await manager.call("GET", ALARMS))["results"] == []


async def test_who_knocks_with_a_revoked_certificate_is_an_alarm(manager: Manager) -> None:
    """With where it came from and whose it was."""
    manager.parts.presence.knocked(HOST, "192.0.2.1:5")
    (alarm,) = (await manager.call("GET", ALARMS))["results"]
    assert alarm["event_type"] == "unknown_transport_node_knocks"
    assert alarm["description"] == f"192.0.2.1:5 shows a certificate that was revoked, {HOST}"


async def test_a_host_is_sent_everything_when_somebody_says_so(manager: Manager) -> None:
    """NSX's forceSync: a snapshot, under a newer generation than any it has; it shows which it has."""
    manager.register.add_host(HOST, "host1")
    manager.register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    at = manager.register.hosts[HOST].level.wanted_position
    manager.register.reported({HOST: Applied(at.epoch, at.generation, at.digest)})
    assert manager.register.hosts[HOST].level.outgoing is None
    shown = await manager.call("POST", f"/api/v1/vsfw/hosts/{HOST}?action=force_sync")
    outgoing = manager.register.hosts[HOST].level.outgoing
    assert outgoing is not None
    assert (outgoing.kind, shown["wanted"]["generation"]) == ("snapshot", at.generation + 1)
    assert (await manager.answer("POST", f"/api/v1/vsfw/hosts/{HOST}?action=forget")).status_code == 400
    path = f"/vsfw/hosts/{HOST}"
    line, *_ = (await manager.call("GET", f"/api/v1/vsfw/audit-log?path={path}"))["results"]
    generations = {"generation": at.generation}, {"generation": at.generation + 1}
    assert (line["user"], (line["before"], line["after"])) == ("admin", generations)


async def test_a_heartbeat_changes_nothing_that_is_stored(manager: Manager) -> None:
    """When it says what was said before; that the host was seen is known, and a refusal of before stays."""
    register = manager.register
    register.add_host(HOST, "host1")
    register.reported({HOST: Hello(0, 0, digest_text(0), "0.1")})
    generation = register.hosts[HOST].level.wanted_position.generation
    refusal = Refusal("message", str(generation), "too large")
    register.reported({HOST: Applied(0, 0, digest_text(0), refusals=(refusal,))})
    before, stored = register.hosts[HOST], manager.parts.store.hosts()
    register.reported({HOST: Applied(0, 0, digest_text(0))})
    after = register.hosts[HOST]
    assert after.refusals == (refusal,)
    assert after.last_seen_ms >= before.last_seen_ms
    assert manager.parts.store.hosts() == stored
