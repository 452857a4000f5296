"""Which name somebody meant who mistyped one."""

import pytest

from vsfwd.nearest import meant

NAMES = ("client", "Web-01", "web-02", "db")


@pytest.mark.parametrize(
    ("said", "name"), [("clint", "client"), ("CLIENT1", "client"), ("web01", "Web-01"), ("dbb", "db")]
)
def test_the_nearest_name_is_asked_about(said: str, name: str) -> None:
    """As it is written, however it was typed."""
    assert meant(said, NAMES) == f"; did you mean {name}?"


@pytest.mark.parametrize("said", ["x", "", "gateway"])
def test_where_no_name_is_near_nothing_is_said(said: str) -> None:
    """A guess would be worse than none."""
    assert meant(said, NAMES) == ""
    assert meant("client", ()) == ""
