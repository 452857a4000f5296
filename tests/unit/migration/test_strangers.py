"""Which VMs a host asks about that it was told nothing of."""

from typing import Any, cast
from unittest.mock import Mock

from vsfwd.migration.here import Here
from vsfwd.migration.move import MAX_WANTED, Moves
from vsfwd.protocol.messages import Binding
from vsfwd.protocol.migration import Move, MoveWanted

MAC = "02:00:00:00:00:01"


class Attached:
    """A host with vNICs, and nothing else."""

    def __init__(self) -> None:
        self.plugged: list[Binding] = []
        self.datapath = Mock()

    async def apply_thread(self, *_: object) -> None: ...

    async def reserved(self) -> set[str]:
        return set()

    async def held(self) -> dict[str, Any]:
        return {}

    async def attached(self) -> dict[str, int]:
        return {each.vnic: slot for slot, each in enumerate(self.plugged)}

    def bindings(self) -> list[Binding]:
        return self.plugged


async def asked(host: Attached) -> tuple[Moves, list[Move]]:
    """A host that has been looked at already, and what its manager hears from then on."""
    moves, heard = Moves(cast(Here, host)), list[Move]()

    async def say(said: Move) -> bool:
        heard.append(said)
        return True

    moves.say = say
    await moves.look()
    return moves, heard


async def test_of_many_vms_at_once_each_is_asked_about() -> None:
    """A part of them with each look, and each once."""
    host = Attached()
    moves, heard = await asked(host)
    host.plugged = [Binding(f"vnic {n}", f"vm {n}", MAC, f"veth{n}") for n in range(MAX_WANTED + 1)]
    await moves.look()
    assert len(heard) == MAX_WANTED
    for _ in range(2):
        await moves.look()
    assert sorted(cast(MoveWanted, each).vm for each in heard) == sorted(each.vm for each in host.plugged)


async def test_a_vnic_is_asked_about_when_it_is_known_whose_it_is() -> None:
    """Its alias alone does not say the VM; an announcement or the policy does, later."""
    host = Attached()
    moves, heard = await asked(host)
    host.plugged = [Binding("vnic", "", MAC, "veth0")]
    await moves.look()
    assert heard == []
    host.plugged = [Binding("vnic", "vm", MAC, "veth0")]
    for _ in range(2):
        await moves.look()
    assert heard == [MoveWanted("vm", (host.plugged[0],))]
