"""What is in maps of maps is found again by the next daemon: each has its pin, and no pin is left over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.datapath import Host, dropped, passed
from tests.harness.packets import IPV4, reply_to, udp
from vsfwd.datapath import bpf
from vsfwd.datapath.inner import INNER

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}
STEPS = {
    "before it is pinned": (bpf, "pin"),
    "when it is pinned": (bpf, "put_inner"),
    "when it is in": (Path, "unlink"),
}


class Killed(BaseException):
    """Nobody catches it, and nothing is tidied."""


def pinned(host: Host) -> set[int]:
    return {int(pin.name) for pin in (host.datapath._programs.pins / INNER).iterdir()}


def used(host: Host) -> set[int]:
    return {id_ for outer in host.datapath._programs._outers.values() for id_ in outer.ids()}


def killed_at(step: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as kill:
        kill.setattr(*STEPS[step], dies)
        with pytest.raises(Killed):
            work()


@pytest.mark.parametrize("step", STEPS)
def test_o1_killed_while_a_bank_is_exchanged(host: Host, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The policy of before is in force, and the next daemon can read it, and replace it."""
    here = host.port("here")
    for _ in range(2):  # both banks are in use
        host.install(["allow out", "drop"], vnics=VNICS)
    killed_at(step, monkeypatch, lambda: host.install(["drop"], vnics=VNICS))
    host.restart()
    assert pinned(host) == used(host)
    assert host.datapath.modes() == {here.slot: "enforced"}
    assert here.send(udp(IPV4.here, IPV4.peer)) == passed(1, new=True)
    host.install(["drop"], vnics=VNICS)
    assert here.send(udp(IPV4.here, IPV4.twin)) == dropped("rule_drop", 1)
    assert pinned(host) == used(host)


@pytest.mark.parametrize("step", STEPS)
def test_o1_killed_while_a_flow_table_is_exchanged(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The next daemon finds a table, that of before or the empty one, and flows go on in it."""
    here = host.port("here")
    host.install(["allow out", "drop"], vnics=VNICS)
    assert here.send(udp(IPV4.here, IPV4.peer)) == passed(1, new=True)
    killed_at(step, monkeypatch, lambda: host.datapath._slots.empty(here.id))
    host.restart()
    assert pinned(host) == used(host)
    assert len(here.flows()) == (0 if step == "when it is in" else 1)
    assert here.send(udp(IPV4.here, IPV4.twin)) == passed(1, new=True)
    assert here.receive(reply_to(udp(IPV4.here, IPV4.twin))) == passed(1)


def test_a_vnic_that_is_gone_leaves_no_pin(host: Host) -> None:
    """Its table with it."""
    before = pinned(host)
    here = host.port("here")
    assert len(pinned(host)) == len(before) + 1
    host.datapath.detach(here.id)
    assert pinned(host) == before == used(host)
