"""What waits to be sent: no host's waits behind all of another's."""

from manager_stub.rounds import Rounds


def waiting(*each: tuple[str, str]) -> Rounds[str]:
    rounds = Rounds[str]()
    for host, text in each:
        rounds.add(host, text)
    return rounds


def test_each_host_in_its_turn_gives_one() -> None:
    """In the order in which they came to have something; of each host the oldest first."""
    rounds = waiting(("loud", "1"), ("loud", "2"), ("loud", "3"), ("quiet", "a"))
    assert rounds.take(3) == [("loud", "1"), ("quiet", "a"), ("loud", "2")]
    rounds.add("quiet", "b")
    assert rounds.take(3) == [("loud", "3"), ("quiet", "b")]
    assert not rounds


def test_what_was_not_sent_after_all_is_the_hosts_next() -> None:
    """In its order, before what came meanwhile."""
    rounds = waiting(("a", "1"), ("a", "2"), ("b", "x"))
    taken = rounds.take(3)
    rounds.add("a", "3")
    rounds.put_back(taken)
    assert (rounds.of("a"), rounds.of("b")) == (("1", "2", "3"), ("x",))


def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    """Unless it has been, which is no trouble."""
    rounds = waiting(("a", "1"), ("a", "2"))
    rounds.remove("a", "1")
    rounds.remove("a", "1")
    rounds.remove("b", "1")
    assert (list(rounds), len(rounds)) == ([("a", "2")], 1)
