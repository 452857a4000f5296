"""A kernel that has no room in the middle of an update: packets see the policy of before, whole, and the next
update is in force as if nothing had been. Each call that writes tables fails in its turn."""

import errno
import os
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from tests.harness.datapath import Host, dropped, passed
from tests.harness.packets import Net, udp
from tests.harness.policies import policy
from vsfwd.datapath import DatapathError, bpf
from vsfwd.image import InPlace, diff

VNICS = {"here": "10.0.0.1 fd00::1 web", "twin": "10.0.0.2 fd00::2"}
BEFORE, AFTER = ["allow service udp", "drop"], ["drop service tcp", "drop service udp"]


def failing(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    """`call`, but the kernel has no room for number `at`."""
    numbers = count()

    def attempt(*arguments: Any) -> Any:
        if next(numbers) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*arguments)

    return attempt


@pytest.mark.parametrize(
    ("call", "at"),
    [
        *(("create_map", number) for number in range(6)),
        *(("update_batch", number) for number in range(3)),
        *(("put_inner", number) for number in range(7)),
    ],
)
def test_o22_a_full_map_in_the_middle_of_an_update_changes_nothing(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    """The error says what there was no room for."""
    here = host.port("here")
    host.install(BEFORE, vnics=VNICS)
    packet = udp(net.twin, net.here)
    with monkeypatch.context() as full:
        full.setattr(bpf, call, failing(getattr(bpf, call), at))
        with pytest.raises(DatapathError, match=r"write bank \d of 2 rules: .*No space left on device"):
            host.install(AFTER, vnics=VNICS)
    assert here.receive(packet) == passed(1, new=True)
    host.install(AFTER, vnics=VNICS)
    assert here.receive(packet) == dropped("rule_drop", 2)


def test_a_mistake_of_ours_in_the_middle_of_an_update_leaves_nothing(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No map that nobody uses: it is tried again every second."""

    def mistaken(*_: object) -> None:
        raise RuntimeError("half done")

    here = host.port("here")
    host.install(BEFORE, vnics=VNICS)
    descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as broken:
        broken.setattr(bpf, "update_batch", mistaken)
        with pytest.raises(RuntimeError):
            host.install(AFTER, vnics=VNICS)
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # of others some may be collected meanwhile
    assert here.receive(udp(net.twin, net.here)) == passed(1, new=True)


def test_o22_a_full_map_in_the_middle_of_a_change_in_place_changes_nothing(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One address that joins a group: the one entry that says so cannot be written."""
    here = host.port("here")
    rules, groups = ["drop from bad", "allow"], {"bad": ["10.0.0.9", "fd00::9"]}
    before = host.image(policy(rules, groups, {**VNICS, "twin": net.twin}))
    after = host.image(policy(rules, groups, {**VNICS, "twin": f"{net.twin} bad"}))
    host.flip(before)
    plan = diff(before, after)
    assert isinstance(plan, InPlace)
    packet = udp(net.twin, net.here)
    with monkeypatch.context() as full:
        full.setattr(bpf, "update", failing(bpf.update, 0))
        with pytest.raises(DatapathError, match="No space left on device"):
            host.datapath.install(plan)
    assert here.receive(packet) == passed(2, new=True)
    host.flip(after)
    assert here.receive(packet) == dropped("rule_drop", 1)
