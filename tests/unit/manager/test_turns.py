"""Whose report is read next: one host does not keep the manager from the others."""

from manager_stub.turns import MOST, REST, Turns

ROOM = 8


def test_a_host_that_says_much_waits_for_one_that_says_little() -> None:
    """After each report for as long as it cost; what another says meanwhile is read at once."""
    turns = Turns[str](ROOM)
    for number in range(3):
        turns.add("loud", None, f"loud {number}", 0)
    assert turns.next(0) == ("loud", "loud 0")
    turns.took("loud", 1, 1)
    assert (turns.next(1), turns.due()) == (None, 1 + REST)
    turns.add("quiet", None, "quiet", 2)
    assert turns.next(2) == ("quiet", "quiet")
    turns.took("quiet", 0.1, 2.1)
    assert turns.next(2.1) is None
    assert turns.next(1 + REST) == ("loud", "loud 1")


def test_nobody_gets_more_than_a_quarter_of_the_time() -> None:
    """However much it has to say; a second host that does the same gets as much."""
    turns, now, spent = Turns[str](1000), 0.0, {"a": 0.0, "b": 0.0}
    while now < 1000:
        for host in spent:
            turns.add(host, None, host, now)
        if (turn := turns.next(now)) is None:
            now = turns.due() or now
            continue
        now += 1
        spent[turn[0]] += 1
        turns.took(turn[0], 1, now)
    assert all(0.2 < each / now <= 0.26 for each in spent.values())


def test_a_newer_report_takes_the_place_of_an_older_one() -> None:
    """Of the same kind and host; the order of the others stays."""
    turns = Turns[str](ROOM)
    assert turns.add("a", "vnics", "old", 0) is None
    assert turns.add("a", "hello", "hello", 0) is None
    assert turns.add("b", "vnics", "another's", 0) is None
    assert turns.add("a", "vnics", "new", 0) == "old"
    found = []
    while turn := turns.next(0):
        found.append(turn)
        turns.took(turn[0], 0, 0)
    assert found == [("a", "hello"), ("a", "new"), ("b", "another's")]


def test_of_too_many_of_one_host_the_oldest_goes() -> None:
    """It does not fill what all have."""
    turns = Turns[int](10 * MOST)
    gone = [turns.add("a", None, number, 0) for number in range(MOST + 2)]
    assert gone == [None] * MOST + [0, 1]


def test_when_there_is_no_more_room_nobody_rests() -> None:
    """Or those who wait would keep out what the broker has for others."""
    turns = Turns[str](2)
    for host in ("a", "b"):
        turns.took(host, 10, 0)
    turns.add("a", None, "a", 1)
    assert turns.next(1) is None
    turns.add("b", None, "b", 1)
    assert turns.next(1) == ("a", "a")
    assert turns.next(1) is None


def test_who_has_the_turn_may_give_a_few() -> None:
    """Where many are read together; it rests for all of them."""
    turns = Turns[str](ROOM)
    for text in "123":
        turns.add("a", None, text, 0)
    turns.add("b", None, "x", 0)
    assert turns.next(0) == ("a", "1")
    assert (turns.more("a", 1), turns.more("a", 5), turns.more("a", 5)) == (["2"], ["3"], [])
    assert turns.next(0) == ("b", "x")


def test_a_host_has_one_turn_at_a_time() -> None:
    """Until it is known how long that took."""
    turns = Turns[str](1)
    turns.add("a", None, "first", 0)
    turns.add("a", None, "second", 0)
    assert turns.next(0) == ("a", "first")
    assert turns.next(0) is None
    turns.took("a", 0, 0)
    assert turns.next(0) == ("a", "second")
