"""VMs that may not move, at the manager: refused or vetoed, with the reason, before anything happens."""

import pytest

from manager_stub.enrolment.credentials import Credential
from manager_stub.moves import moves as module
from manager_stub.moves.move import LIVES_S, State
from tests.unit.manager.moving import (
    MOVES,
    NOBODY,
    OTHER,
    SOURCE,
    TARGET,
    VM,
    applies,
    begun,
    done,
    know_key,
    plugged,
    prepared,
    says,
    state,
    told,
)
from tests.unit.manager.rest import Manager
from vsfwd.protocol.messages import Applied, digest_text
from vsfwd.protocol.migration import (
    MoveAborted,
    MoveOffer,
    MoveRefused,
    Step,
)

pytestmark = pytest.mark.usefixtures("hosts_of_a_move")


async def test_o33_a_policy_of_another_epoch_is_not_the_one_that_is_needed(manager: Manager) -> None:
    """However high its generation: it is that of a manager that was not restored."""
    posting, id = await begun(manager)
    wanted = manager.register.hosts[TARGET].level
    stranger = Applied(wanted.epoch + 1, wanted.generation + 1, digest_text(1))
    manager.register.reported({TARGET: stranger})
    assert (told(manager), state(manager, id)) == ([], State.PREPARING)
    posting.cancel()


@pytest.mark.parametrize(
    ("vm", "target", "status", "named_"),
    [
        (NOBODY, TARGET, 400, "vm: there is no VM"),
        (VM, NOBODY, 400, "target: there is no host"),
        (VM, SOURCE, 409, "is on host host1 already"),
        ("x", TARGET, 400, "vm"),
    ],
)
async def test_o31_who_cannot_move_is_refused_by_name(
    manager: Manager, vm: str, target: str, status: int, named_: str
) -> None:
    """And nothing has happened."""
    answer = await manager.answer("POST", MOVES, {"vm": vm, "target": target})
    assert answer.status_code == status
    assert named_ in answer.json()["error_message"]
    assert manager.parts.moves.moves == {}


async def test_o31_a_target_that_cannot_take_it_is_vetoed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is down, its key is not known, it has no place for more vNICs: 409, and the source is not told."""

    for host in (SOURCE, TARGET):
        know_key(manager, host)

    async def vetoed() -> str:
        answer = await manager.answer("POST", MOVES, {"vm": VM, "target": TARGET})
        assert answer.status_code == 409
        return str(answer.json()["error_message"])

    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_HOST_VNICS", 0)
        assert "target: host host2 would have 1 vNICs of 0" in await vetoed()
    with monkeypatch.context() as patch:
        patch.setattr(manager.parts.presence, "is_up", lambda host: host != TARGET)
        assert "target: host host2 is down" in await vetoed()
    manager.parts.moves._credentials.take(Credential(TARGET, 1, ""))
    assert "target: the key of host host2 is not known" in await vetoed()
    plugged(manager, SOURCE)
    assert "vm: VM web-01 is plugged nowhere" in await vetoed()
    assert told(manager) == []


async def test_o31_what_a_host_refuses_ends_the_move(manager: Manager) -> None:
    """The answer says who and why; both hosts hear that it does not take place, and the target's policy is as
    before."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    told(manager)
    says(manager, TARGET, MoveRefused(id, VM, Step.PREPARE, "flow table too small"))
    answer = await posting
    assert answer.status_code == 409
    assert "host2 does not prepare: flow table too small" in answer.json()["error_message"]
    reason = manager.parts.moves.moves[id].reason
    assert told(manager) == [(host, MoveAborted(id, VM, reason)) for host in (SOURCE, TARGET)]
    assert manager.register.hosts[TARGET].level.wanted.objects["vnics"] == {}


async def test_o33_a_target_that_stays_behind_is_vetoed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say in time that it has the policy: nobody was asked anything."""
    posting, id = await begun(manager)
    manager.parts.moves.expire()
    assert not posting.done()
    later = manager.parts.moves.moves[id].expires_ms
    monkeypatch.setattr(module, "now_ms", lambda: later)
    manager.parts.moves.expire()
    answer = await posting
    assert answer.status_code == 409
    assert f"it was preparing for {LIVES_S[State.PREPARING]:g} s" in answer.json()["error_message"]
    assert "host2 has not said that it has the policy" in answer.json()["error_message"]
    assert not [said for _, said in told(manager) if isinstance(said, MoveOffer)]


async def test_o33_a_host_that_does_not_answer_is_named(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have been asked, and one is ready."""
    posting, id = await begun(manager)
    applies(manager, TARGET)
    done(manager, TARGET, id, Step.PREPARE)
    later = manager.parts.moves.moves[id].expires_ms
    monkeypatch.setattr(module, "now_ms", lambda: later)
    manager.parts.moves.expire()
    assert (await posting).json()["error_message"].endswith("; no answer of host1")


async def test_o33_without_a_broker_nobody_is_prepared(manager: Manager) -> None:
    """503 at once, and there is no move."""
    for host in (SOURCE, TARGET):
        know_key(manager, host)
    manager.parts.publisher.connected_to = None
    answer = await manager.answer("POST", MOVES, {"vm": VM, "target": TARGET})
    assert (answer.status_code, "no broker" in answer.json()["error_message"]) == (503, True)
    assert manager.parts.moves.moves == {}


async def test_a_vm_moves_once_at_a_time(manager: Manager) -> None:
    """The second is told of the first."""
    id = await prepared(manager)
    answer = await manager.answer("POST", MOVES, {"vm": VM, "target": OTHER})
    assert answer.status_code == 409
    assert f"moving already, to host2 ({id})" in answer.json()["error_message"]
