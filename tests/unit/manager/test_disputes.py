"""A host is believed about the vNICs it has, and not about those of others."""

from typing import Any

import pytest

from manager_stub.register import Register
from tests.unit.manager.expressions import named, vm
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.protocol.messages import Addresses, Binding, Bindings, Claim, Guest, Hello, Source, digest_text

pytestmark = pytest.mark.slow

HOST, ROGUE, THIRD = (f"33333333-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
VM, OTHER_VM = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
VNIC, OTHER_VNIC = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HERE = Binding(VNIC, VM, MAC, "veth0", Guest("web-01"))
STOLEN = Binding(VNIC, VM, OTHER_MAC, "veth9", Guest("thief"))
DISPUTES = f"{VSFW}/disputes"


@pytest.fixture
async def hosts(manager: Manager) -> Manager:
    """Three; the first has a VM, and a group of it is the source of a rule."""
    for host in (HOST, ROGUE, THIRD):
        manager.register.add_host(host, f"host{host[-1]}")
        manager.register.reported(host, Hello(0, 0, digest_text(0), "0.1"))
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Name", "STARTSWITH", "web")]})
    rule = {"id": "r", "source_groups": [named("web")], "action": "ALLOW"}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    says(manager, HOST, HERE)
    return manager


def says(manager: Manager, host: str, *bindings: Binding) -> None:
    manager.register.bound(host, Bindings(bindings))


def has(register: Register, host: str) -> list[str]:
    """vNICs of a host, which are those it is sent policy for."""
    vnics = [binding.vnic for binding in register.hosts[host].bindings]
    assert bool(register.hosts[host].level.wanted.objects["rules"]) == bool(vnics)
    return vnics


async def disputed(manager: Manager) -> list[tuple[str, str, str | None]]:
    """vNIC, who claims it, who has it."""
    found = (await manager.call("GET", DISPUTES))["results"]
    return [(each["vnic"], each["claimed_by"]["id"], each["host"] and each["host"]["id"]) for each in found]


async def alarms(manager: Manager) -> list[Any]:
    found = (await manager.call("GET", "/api/v1/alarms"))["results"]
    return [alarm for alarm in found if alarm["event_type"] == "vnic_disputed"]


async def test_a_host_cannot_take_the_vnic_of_another(hosts: Manager) -> None:
    """Name, MAC address, addresses and groups stay as they were, and the claimant is sent nothing of it."""
    before = hosts.stored()
    says(hosts, ROGUE, STOLEN)
    hosts.register.claimed(ROGUE, Addresses({VNIC: (Claim("10.0.0.1", Source.DHCP),)}))
    assert hosts.stored() == before
    assert hosts.register.world.claims == {}
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([VNIC], [])


async def test_a_claim_is_shown_counted_and_alarmed(hosts: Manager) -> None:
    """With both hosts; the same claim again is not another one, and the alarm goes with it."""
    for _ in range(2):
        says(hosts, ROGUE, STOLEN)
    assert await disputed(hosts) == [(VNIC, ROGUE, HOST)]
    (alarm,) = await alarms(hosts)
    assert alarm["node_id"] == ROGUE
    for name in ("host1", "host2", HOST, ROGUE, VNIC):
        assert name in alarm["description"]
    shown = await hosts.call("GET", f"{VSFW}/hosts/{ROGUE}")
    assert (shown["disputes"], shown["vnics"], shown["disputed_vnics"][0]["vnic"]) == (1, [], VNIC)
    says(hosts, ROGUE)
    assert (await disputed(hosts), await alarms(hosts)) == ([], [])


async def test_a_host_cannot_add_a_vnic_to_the_vm_of_another(hosts: Manager) -> None:
    """Its tags and groups would reach the vNIC; nor a vNIC of it that nobody has plugged."""
    typed = {"display_name": "web-01", "tags": [{"tag": "t"}]}
    cards = [{"id": VNIC, "mac": MAC}, {"id": OTHER_VNIC, "mac": OTHER_MAC}]
    says(hosts, ROGUE, Binding(OTHER_VNIC, VM, OTHER_MAC, "veth9"))
    assert has(hosts.register, ROGUE) == []
    await hosts.call("PUT", f"{VSFW}/vms/{VM}", {**typed, "vnics": cards})
    says(hosts, ROGUE, Binding(OTHER_VNIC, OTHER_VM, OTHER_MAC, "veth9", Guest("thief")))
    assert has(hosts.register, ROGUE) == []
    assert await disputed(hosts) == [(OTHER_VNIC, ROGUE, HOST)]


async def test_a_claim_stops_no_other_vnic_of_the_host(hosts: Manager) -> None:
    """What is its own beside the claim is taken."""
    says(hosts, ROGUE, STOLEN, Binding(OTHER_VNIC, OTHER_VM, OTHER_MAC, "veth1"))
    assert has(hosts.register, ROGUE) == [OTHER_VNIC]


async def test_a_vm_that_moves_is_its_new_hosts_once_the_old_one_withdraws_it(hosts: Manager) -> None:
    """All its vNICs together; the new host is asked for what it said that did not count."""
    second = Binding(OTHER_VNIC, VM, OTHER_MAC, "veth1")
    says(hosts, HOST, HERE, second)
    says(hosts, ROGUE, HERE, second)
    says(hosts, HOST, second)
    assert has(hosts.register, ROGUE) == []
    says(hosts, HOST)
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([], [VNIC, OTHER_VNIC])
    assert [(host, request.method) for host, request in hosts.register.requests] == [(ROGUE, "report")]
    assert await disputed(hosts) == []


async def test_a_host_that_is_away_keeps_nobody_from_its_vnics(hosts: Manager) -> None:
    """Whoever claims one then has it, and the old host does not get it back by coming back."""
    says(hosts, ROGUE, HERE)
    hosts.register.stay_away(frozenset({HOST}))
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([], [VNIC])
    says(hosts, HOST, HERE)
    hosts.register.stay_away(frozenset())
    assert await disputed(hosts) == [(VNIC, HOST, ROGUE)]


async def test_a_host_that_is_away_keeps_what_nobody_claims(hosts: Manager) -> None:
    """And what several claim, until there is one; a claimant that is away itself gets nothing."""
    hosts.register.stay_away(frozenset({HOST, THIRD}))
    assert has(hosts.register, HOST) == [VNIC]
    says(hosts, ROGUE, HERE)
    assert has(hosts.register, ROGUE) == [VNIC]
    hosts.register.stay_away(frozenset({ROGUE, HOST}))
    assert has(hosts.register, ROGUE) == [VNIC]


async def test_of_several_that_claim_what_nobody_has_none_gets_it(hosts: Manager) -> None:
    """Not the first of them either, which may have waited for it."""
    says(hosts, ROGUE, HERE)
    says(hosts, THIRD, HERE)
    says(hosts, HOST)
    assert await disputed(hosts) == [(VNIC, ROGUE, None), (VNIC, THIRD, None)]
    says(hosts, ROGUE)
    assert has(hosts.register, THIRD) == [VNIC]


async def test_a_removed_host_has_nothing(hosts: Manager) -> None:
    """Who claimed its vNIC has it."""
    says(hosts, ROGUE, HERE)
    hosts.register.remove_host(HOST)
    assert has(hosts.register, ROGUE) == [VNIC]
    assert hosts.register.world.plugged == {VNIC: frozenset({ROGUE})}


async def test_an_operator_settles_a_dispute(hosts: Manager) -> None:
    """For one of the hosts that claim the vNIC, with its VM; it is in the audit log, and it stays so."""
    second = Binding(OTHER_VNIC, VM, OTHER_MAC, "veth1")
    says(hosts, HOST, HERE, second)
    says(hosts, THIRD, HERE, second)
    for body, status in (
        ({"vnic": VNIC, "host": ROGUE}, 409),
        ({"vnic": VM, "host": THIRD}, 404),
    ):
        assert (await hosts.answer("POST", f"{DISPUTES}?action=settle", body)).status_code == status
    await hosts.call("POST", f"{DISPUTES}?action=settle", {"vnic": VNIC, "host": THIRD})
    says(hosts, HOST, HERE, second)
    assert (has(hosts.register, HOST), has(hosts.register, THIRD)) == ([], [VNIC, OTHER_VNIC])
    assert await disputed(hosts) == [(VNIC, HOST, THIRD), (OTHER_VNIC, HOST, THIRD)]
    (row,) = (await hosts.call("GET", f"{VSFW}/audit-log?path=/vsfw/vnics/{VNIC}"))["results"]
    assert (row["user"], row["before"], row["after"]) == ("admin", {"host": HOST}, {"host": THIRD})


async def test_a_dispute_outlives_the_manager(hosts: Manager) -> None:
    """Who has the vNIC has it, who claims it claims it, and gets it when it is free."""
    says(hosts, ROGUE, STOLEN)
    again = Register(hosts.parts.store, hosts.directory.signing_key())
    assert (has(again, HOST), has(again, ROGUE)) == ([VNIC], [])
    again.bound(HOST, Bindings(()))
    assert has(again, ROGUE) == [VNIC]
