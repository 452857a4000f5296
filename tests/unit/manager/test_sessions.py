"""Sessions: whose they are, and when they end."""

from manager_stub.sessions import IDLE_S, MAX_SESSIONS, Sessions


def test_a_session_needs_its_own_token() -> None:
    """Another session's token, or none, does not do, and takes nothing away."""
    sessions = Sessions()
    (first, token), (_, other) = sessions.open("admin"), sessions.open("admin")
    assert [sessions.user(first, xsrf) for xsrf in (other, "", "é")] == [None] * 3
    assert sessions.user(first, token) == "admin"
    assert sessions.user("no-such-session", token) is None


def test_a_session_nobody_uses_ends_and_one_in_use_does_not() -> None:
    """Half an hour after the last request, not after the first."""
    now = 0.0
    sessions = Sessions(lambda: now)
    id, token = sessions.open("admin")
    now = IDLE_S
    assert sessions.user(id, token) == "admin"
    now = 2 * IDLE_S
    assert sessions.user(id, token) == "admin"
    now = 3 * IDLE_S + 1
    assert sessions.user(id, token) is None


def test_of_too_many_of_a_user_the_one_unused_for_longest_goes() -> None:
    """The oldest stays if it is in use; nobody ends another user's."""
    sessions = Sessions()
    others = sessions.open("eve")
    opened = [sessions.open("admin") for _ in range(MAX_SESSIONS)]
    assert sessions.user(*opened[0]) == "admin"
    sessions.open("admin")
    assert sessions.user(*opened[0]) == "admin"
    assert sessions.user(*opened[1]) is None
    assert sessions.user(*others) == "eve"


def test_closed_is_closed() -> None:
    """One session, or all of a user's."""
    sessions = Sessions()
    first, second, others = sessions.open("a"), sessions.open("a"), sessions.open("b")
    sessions.close(first[0])
    assert (sessions.user(*first), sessions.user(*second)) == (None, "a")
    sessions.close_all("a")
    assert (sessions.user(*second), sessions.user(*others)) == (None, "b")
