"""What context agents tell of guests, at the manager: in the inventory, and who is logged on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from manager_stub.components import context
from manager_stub.reported import reported
from manager_stub.world import World
from tests.unit.manager.rest import VSFW, Manager
from vsfwd.protocol.components import ComponentMessage
from vsfwd.protocol.messages import Binding, Bindings, Guest

HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
ALICE = {"name": "alice", "domain": "EXAMPLE", "session": "ssh", "since": 1795390000}


def plug(manager: Manager, host: str = HOST, *vms: str) -> None:
    """As vsfwd reports it: it has heard of another operating system."""
    known = Guest(name="web", os_name="Linux", computer_name="?")
    bindings = [Binding(VNIC, vm, "02:00:00:00:00:01", "veth", known) for vm in vms]
    manager.vnics.bound(host, Bindings(tuple(bindings)))


def tell(manager: Manager, topic: str, host: str = HOST, **body: Any) -> str:
    """Why it does not count."""
    (reason,) = manager.parts.switchboard.take(
        [(host, ComponentMessage(str(uuid4()), "context-agent", topic, body))]
    )
    return reason


@pytest.fixture(autouse=True)
def _hosts(manager: Manager) -> None:
    for host in (HOST, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")


async def names(manager: Manager) -> tuple[Any, Any]:
    found = await manager.call("GET", f"{VSFW}/vms/{VM}")
    return found.get("os_name"), found.get("computer_name")


async def users(manager: Manager) -> Any:
    return await manager.call("GET", f"{VSFW}/vms/{VM}/users")


async def test_what_a_guest_says_of_itself_is_in_the_inventory(manager: Manager) -> None:
    """Before what vsfwd heard of it, also when vsfwd says that again; who said so is in the audit log."""
    plug(manager, HOST, VM)
    assert await names(manager) == ("Linux", "?")
    assert not tell(manager, "vm", vm=VM, os_name="Debian 12", computer_name="web01")
    assert await names(manager) == ("Debian 12", "web01")
    plug(manager, HOST, VM)
    assert await names(manager) == ("Debian 12", "web01")
    lines = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/vms/{VM}"))["results"]
    assert [line["user"] for line in lines] == [f"host {HOST}"] * 2


async def test_groups_ask_for_it_like_for_anything_in_the_inventory(manager: Manager) -> None:
    """A condition on the computer name."""
    condition = {
        "resource_type": "Condition", "member_type": "VirtualMachine",
        "key": "ComputerName", "operator": "EQUALS", "value": "web01",
    }  # fmt: skip
    group = "/policy/api/v1/infra/domains/default/groups/g"
    await manager.call("PATCH", group, {"expression": [condition]})
    plug(manager, HOST, VM)
    tell(manager, "vm", vm=VM, computer_name="web01")
    found = await manager.call("GET", f"{group}/members/virtual-machines")
    assert [each["external_id"] for each in found["results"]] == [VM]


async def test_who_is_logged_on_is_read_by_vm(manager: Manager) -> None:
    """As told last, with the host that told it; of a VM nobody knows there is nothing to read."""
    assert (await manager.answer("GET", f"{VSFW}/vms/{VM}/users")).status_code == 404
    plug(manager, HOST, VM)
    assert await users(manager) == {"results": [], "result_count": 0, "host": None, "time": None}
    tell(manager, "vm", vm=VM, users=[ALICE, {"name": "bob"}])
    found = await users(manager)
    assert found["results"] == [ALICE, {"name": "bob", "domain": "", "session": "", "since": None}]
    assert (found["result_count"], found["host"]) == (2, {"id": HOST, "display_name": "host1"})
    tell(manager, "vm", vm=VM, users=[])
    assert (await users(manager))["results"] == []


async def test_an_agent_may_be_ahead_of_vsfwd(manager: Manager) -> None:
    """It tells of a VM before vsfwd reports it: that counts from then on."""
    tell(manager, "vm", vm=VM, os_name="Debian 12", users=[ALICE])
    plug(manager, HOST, VM)
    assert await names(manager) == ("Debian 12", "?")
    assert (await users(manager))["results"] == [ALICE]


async def test_a_host_speaks_for_its_own_vms_only(manager: Manager) -> None:
    """What another tells counts for nothing, until the VM is there; then what the first told does not."""
    plug(manager, HOST, VM)
    tell(manager, "vm", OTHER, vm=VM, os_name="forged", users=[{"name": "mallory"}])
    assert await names(manager) == ("Linux", "?")
    assert (await users(manager))["results"] == []
    tell(manager, "vm", vm=VM, users=[ALICE])
    plug(manager, HOST)
    plug(manager, OTHER, VM)
    assert (await users(manager))["host"]["id"] == OTHER


async def test_of_a_vm_on_two_hosts_the_newest_word_counts(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is while a VM moves, whichever host began."""
    bindings = (Binding(VNIC, VM, "02:00:00:00:00:01", "veth"),)
    for host, known in manager.register.hosts.items():
        manager.register._hosts[host] = replace(known, bindings=bindings)
    for moment, host in enumerate((HOST, OTHER, HOST), start=1):
        monkeypatch.setattr(context, "now_ms", lambda now=moment: now)
        tell(manager, "vm", host, vm=VM, users=[{**ALICE, "since": moment}])
        assert (await users(manager))["host"]["id"] == host


async def test_what_a_host_tells_of_its_guests_is_bounded_in_all(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by their number alone, since one may have many users: who is too much is named, and keeps what was
    told before. Another host has its own, and it is so after a restart."""
    monkeypatch.setattr(context, "MAX_BYTES", 500)
    many = [{**ALICE, "name": "x" * 100}] * 2
    first, second = str(uuid4()), str(uuid4())
    assert not tell(manager, "vm", vm=first, users=many)
    assert not tell(manager, "vm", vm=second, users=[ALICE])
    reason = tell(manager, "vm", vm=second, users=many)
    assert second in reason
    assert "over 500" in reason
    assert not tell(manager, "vm", vm=first, users=[*many[1:], ALICE])
    assert not tell(manager, "vm", OTHER, vm=second, users=many)
    parts = manager.parts
    reborn = context.GuestContext(parts.store, parts.register, parts.vnics, parts.switchboard)
    assert second in tell(manager, "vm", vm=second, users=many)
    assert {vm: len(each.guest.users) for vm, each in reborn._known[HOST].items()} == {first: 2, second: 1}


async def test_gone_and_start_take_back_what_was_told(manager: Manager) -> None:
    """Of one guest, or of all of that host; other hosts' stay. It is so after a restart, too."""
    plug(manager, HOST, VM)
    tell(manager, "vm", OTHER, vm=str(uuid4()))
    for topic, body in (("gone", {"vm": VM}), ("start", {})):
        tell(manager, "vm", vm=VM, users=[ALICE])
        assert (await users(manager))["result_count"] == 1
        tell(manager, topic, **body)
        assert (await users(manager))["result_count"] == 0
        assert [row["host"] for row in manager.parts.store.guests()] == [OTHER]


async def test_a_guest_costs_what_is_plugged_of_it_and_only_when_it_changes(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host has a thousand, and its agent says as much as it likes: no other of them is looked at again, and
    what was said before is not stored again."""
    many = [Binding(str(uuid4()), str(uuid4()), f"02:00:00:00:01:{n:02x}", f"veth{n}") for n in range(9)]
    one = Binding(VNIC, VM, "02:00:00:00:00:01", "veth")
    manager.vnics.bound(HOST, Bindings((one, *many)))
    looked_at: list[list[str]] = []

    def counted(world: World, bindings: Sequence[Binding]) -> Any:
        looked_at.append([binding.vm for binding in bindings])
        return reported(world, bindings)

    monkeypatch.setattr("manager_stub.vnics.reported", counted)
    tell(manager, "vm", vm=VM, os_name="Debian 12")
    stored = manager.parts.store.guests()
    assert not tell(manager, "vm", vm=VM, os_name="Debian 12")
    assert looked_at == [[VM]]
    assert manager.parts.store.guests() == stored
    tell(manager, "vm", vm=VM, os_name="Debian 13")
    assert (await names(manager))[0] == "Debian 13"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"vm": "web"},
        {"vm": VM, "os": "x"},
        {"vm": VM, "users": [{"name": ""}]},
        {"vm": VM, "users": [{"name": "a\u202e\x1b"}]},
        {"vm": VM, "os_name": "x" * 256},
        {"vm": VM, "users": [{"name": "x"}] * 129},
        {"vm": VM, "users": [{"name": "x", "since": -1}]},
    ],
    ids=str,
)
async def test_what_no_agent_says_is_refused_and_the_last_word_stays(manager: Manager, body: Any) -> None:
    """With the reason; it is not among what the component has said, either."""
    plug(manager, HOST, VM)
    tell(manager, "vm", vm=VM, os_name="Debian 12", users=[ALICE])
    assert tell(manager, "vm", **body)
    assert (await users(manager))["results"] == [ALICE]
    assert await names(manager) == ("Debian 12", "?")
    said = await manager.call("GET", f"{VSFW}/components/context-agent/messages")
    assert len(said["results"]) == 1


@pytest.mark.parametrize("vm", ["\0", "web", VM.upper().replace("1", "A")])
async def test_a_guest_that_is_gone_has_the_id_of_a_vm(manager: Manager, vm: str) -> None:
    """Text that a database does not take does not reach it."""
    assert "is not a UUID in lower case" in tell(manager, "gone", vm=vm)
