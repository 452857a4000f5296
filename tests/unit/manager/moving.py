"""Three hosts and a VM that moves from the first to the second: what they say, and what they are told."""

import asyncio
from typing import Any

from manager_stub.enrolment.credentials import Credential
from manager_stub.moves.move import State
from tests.unit.manager.rest import VSFW, Manager
from vsfwd.protocol import migration
from vsfwd.protocol.messages import Applied, Binding, Bindings, Guest
from vsfwd.protocol.migration import (
    MoveDone,
    Step,
)

NOBODY = "00000000-0000-4000-8000-00000000dead"
SOURCE, TARGET, OTHER = (f"33333333-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
OTHER_VM = "11111111-0000-4000-8000-000000000002"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
HERE = Binding(VNIC, VM, "02:00:00:00:00:01", "veth0", Guest("web-01"))
MOVES = f"{VSFW}/migrations"


def plugged(manager: Manager, host: str, *bindings: Binding) -> None:
    manager.vnics.bound(host, Bindings(bindings))


def applies(manager: Manager, host: str) -> None:
    """The host says that it has what it is sent, until that is all it is to have."""
    while sent := manager.register.hosts[host].level.outgoing:
        position = sent.position
        said = Applied(position.epoch, position.generation, position.digest)
        manager.register.reported({host: said})


def told(manager: Manager) -> list[tuple[str, migration.Move]]:
    """What hosts have been told of moves since it was asked last."""
    moves = manager.parts.moves
    return [(letter.host, migration.decode(letter.body)) for letter in moves.letters.take(len(moves.letters))]


def says(manager: Manager, host: str, said: migration.Move) -> None:
    manager.parts.moves.heard(host, said)


def done(manager: Manager, host: str, id: str, step: Step, **more: Any) -> None:
    says(manager, host, MoveDone(id, VM, step, **more))


def know_key(manager: Manager, host: str) -> None:
    """As if the host was enrolled."""
    pem, _ = manager.directory.authority().issue_client(host)
    manager.parts.moves._credentials.take(Credential(host, 1, pem.decode()))


async def begun(
    manager: Manager, source: str = SOURCE, target: str = TARGET
) -> tuple["asyncio.Task[Any]", str]:
    """A POST that waits, and the id of its move."""
    for host in (source, target):
        know_key(manager, host)
    known = set(manager.parts.moves.moves)
    posting = asyncio.create_task(manager.answer("POST", MOVES, {"vm": VM, "target": target}))
    async with asyncio.timeout(20):
        while not (new := manager.parts.moves.moves.keys() - known):  # noqa: ASYNC110
            await asyncio.sleep(0)
    return posting, new.pop()


async def prepared(manager: Manager, source: str = SOURCE, target: str = TARGET) -> str:
    """A move that has come so far that the VM may leave."""
    posting, id = await begun(manager, source, target)
    applies(manager, target)
    for host in (source, target):
        done(manager, host, id, Step.PREPARE)
    done(manager, target, id, Step.IMPORT, flows=7)
    answer = await posting
    assert (answer.status_code, answer.json()["state"]) == (201, "prepared")
    told(manager)
    return id


def state(manager: Manager, id: str) -> State:
    return manager.parts.moves.moves[id].state
