"""vsfwctl trace: what stays at the manager, which is nothing."""

from typing import Any

import pytest

from vsfwd.ctl.trace import TRACEFLOWS, observed
from vsfwd.rest import Denied

PACKET = {"ip_header": {"dst_ip": "10.0.0.2"}}


class Manager:
    """Has one traceflow. `refused`: what it says in place of observations."""

    def __init__(self, refused: str = "") -> None:
        self._refused = refused
        self.deleted: list[str] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if method == "DELETE":
            self.deleted.append(path)
        return {"id": "one"}

    def every(self, path: str) -> list[Any]:
        if self._refused:
            raise Denied(self._refused)
        return ["seen"]


def test_a_traceflow_is_taken_away_again() -> None:
    """Once it is read."""
    manager: Any = Manager()
    assert observed(manager, "vnic", PACKET) == ({"id": "one"}, ["seen"])
    assert manager.deleted == [f"{TRACEFLOWS}/one"]


def test_a_traceflow_that_cannot_be_read_is_taken_away_too() -> None:
    """And why it cannot is said."""
    manager: Any = Manager("the database takes too long")
    with pytest.raises(Denied, match="takes too long"):
        observed(manager, "vnic", PACKET)
    assert manager.deleted == [f"{TRACEFLOWS}/one"]
