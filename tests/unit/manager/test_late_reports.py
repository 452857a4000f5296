"""Reports that arrive after newer ones: of a session that broke, or redelivered."""

import pytest

from manager_stub import vnics
from manager_stub.register import Register
from tests.unit.manager.rest import Manager
from vsfwd.protocol.messages import Binding, Bindings

pytestmark = pytest.mark.slow

HOST = "33333333-0000-4000-8000-000000000001"
OLD, NEW = (
    Binding(f"22222222-0000-4000-8000-00000000000{n}", "", "02:00:00:00:00:01", "veth") for n in (1, 2)
)


def has(register: Register) -> tuple[Binding, ...]:
    return register.hosts[HOST].bindings


async def test_an_old_report_does_not_overtake_a_newer_one(manager: Manager) -> None:
    """It is left out, and the host is asked to say it again; the same one twice is no trouble."""
    register, bound = manager.register, manager.vnics.bound
    register.add_host(HOST, "host")
    for _ in range(2):
        bound(HOST, Bindings((NEW,), said_ns=20))
    assert list(register.requests) == []
    bound(HOST, Bindings((OLD,), said_ns=10))
    assert has(register) == (NEW,)
    ((host, request),) = register.requests
    assert (host, request.method) == (HOST, "report")


async def test_a_host_is_asked_once_however_much_it_says_too_late(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has answered, or the question has gone; a newer report beside them is none."""
    manager.register.add_host(HOST, "host")
    requests = manager.register.requests
    for number in range(10):
        manager.vnics.bound(HOST, Bindings((NEW,), said_ns=20 + number))
        manager.vnics.bound(HOST, Bindings((OLD,), said_ns=10))
    assert len(requests) == 1
    manager.vnics.bound(HOST, Bindings((OLD,), said_ns=10))
    assert len(requests) == 1
    monkeypatch.setattr(vnics, "REQUEST_LIVES_S", 0)
    manager.vnics.bound(HOST, Bindings((OLD,), said_ns=10))
    assert len(requests) == 2
    *_, newest = requests.of(HOST)
    monkeypatch.undo()
    manager.vnics.bound(HOST, Bindings((OLD,), said_ns=10, answers=newest.id))
    manager.vnics.bound(HOST, Bindings((NEW,), said_ns=5))
    assert len(requests) == 3


async def test_a_clock_that_was_set_back_costs_one_question(manager: Manager) -> None:
    """The answer counts, and from then on the clock as it is now; an answer to what nobody asked does not."""
    register, bound = manager.register, manager.vnics.bound
    register.add_host(HOST, "host")
    bound(HOST, Bindings((OLD,), said_ns=2**62))
    bound(HOST, Bindings((NEW,), said_ns=5, answers="something"))
    assert has(register) == (OLD,)
    [(_, request)] = register.requests.take(1)
    bound(HOST, Bindings((NEW,), said_ns=6, answers=request.id))
    assert has(register) == (NEW,)
    bound(HOST, Bindings((), said_ns=7))
    assert has(register) == ()
    bound(HOST, Bindings((OLD,), said_ns=6, answers=request.id))
    assert has(register) == ()
