"""A host is believed about the vNICs it has, and not about those of others."""

from typing import Any

import pytest

from manager_stub.register import Register
from manager_stub.vnics import Vnics
from tests.unit.manager.expressions import named, vm
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.protocol.messages import Addresses, Binding, Bindings, Claim, Guest, Hello, Source, digest_text

pytestmark = pytest.mark.slow

HOST, ROGUE, THIRD = (f"33333333-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
VM, OTHER_VM = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
VNIC, OTHER_VNIC, THIRD_VNIC = (f"22222222-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HERE = Binding(VNIC, VM, MAC, "veth0", Guest("web-01"))
STOLEN = Binding(VNIC, VM, OTHER_MAC, "veth9", Guest("thief"))
DISPUTES = f"{VSFW}/disputes"


class Clock:
    """The manager's, as far as it is about claims."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("manager_stub.vnics.now_ms", lambda: clock.now_ms)
    return clock


@pytest.fixture
async def hosts(manager: Manager) -> Manager:
    """Three; the first has a VM, and a group of it is the source of a rule."""
    for host in (HOST, ROGUE, THIRD):
        manager.register.add_host(host, f"host{host[-1]}")
        manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1")})
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Name", "STARTSWITH", "web")]})
    rule = {"id": "r", "source_groups": [named("web")], "action": "ALLOW"}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    says(manager, HOST, HERE)
    return manager


def says(manager: Manager, host: str, *bindings: Binding) -> None:
    manager.vnics.bound(host, Bindings(bindings))


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
    hosts.vnics.claimed(ROGUE, Addresses({VNIC: (Claim("10.0.0.1", Source.DHCP),)}))
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


async def test_a_vm_that_was_started_elsewhere_is_its_first_hosts_again(hosts: Manager) -> None:
    """Who claims a vNIC while its host is away has it, not before; and no longer than until that is back and
    still has it. What the manager does not know of a host changes nothing."""
    hosts.vnics.stay_away({HOST: 75})
    says(hosts, ROGUE, HERE)
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([], [VNIC])
    says(hosts, THIRD, HERE)
    hosts.vnics.stay_away({})
    hosts.register = Register(hosts.parts.store, hosts.directory.signing_key())
    hosts.vnics = Vnics(hosts.register)
    assert has(hosts.register, ROGUE) == [VNIC]
    hosts.vnics.stay_away({}, connected={HOST, ROGUE, THIRD})
    assert has(hosts.register, HOST) == [VNIC]
    assert [(each.id, bool(each.disputed)) for each in hosts.register.hosts.values()] == [
        (HOST, False),
        (ROGUE, True),
        (THIRD, True),
    ]


async def test_a_vm_that_its_host_lost_stays_where_it_was_started(hosts: Manager) -> None:
    """The first host is back, and has it no more: then it is the other's, also against the first."""
    hosts.vnics.stay_away({HOST: 75})
    says(hosts, ROGUE, HERE)
    says(hosts, HOST)
    assert has(hosts.register, ROGUE) == [VNIC]
    says(hosts, HOST, HERE)
    assert await disputed(hosts) == [(VNIC, HOST, ROGUE)]


async def test_a_host_that_is_away_loses_nothing_to_who_waited_for_it(hosts: Manager, clock: Clock) -> None:
    """A claim that was raised while it was there gets nothing, nor when it is raised again; one that was
    raised since it was seen last does."""
    says(hosts, ROGUE, HERE)
    clock.wait(100)
    hosts.vnics.stay_away({HOST: 75})
    says(hosts, ROGUE)
    says(hosts, ROGUE, HERE)
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([VNIC], [])
    says(hosts, THIRD, HERE)
    assert has(hosts.register, THIRD) == [VNIC]


async def test_a_restart_elsewhere_may_be_quicker_than_the_manager(hosts: Manager, clock: Clock) -> None:
    """The claim came after the host was seen last, but before it counted as away."""
    clock.wait(100)
    says(hosts, ROGUE, HERE)
    clock.wait(50)
    hosts.vnics.stay_away({HOST: 75})
    assert has(hosts.register, ROGUE) == [VNIC]


async def test_a_host_that_is_away_keeps_what_nobody_claims(hosts: Manager) -> None:
    """And what several claim, until there is one; a claimant that is away itself gets nothing."""
    hosts.vnics.stay_away({HOST: 75, THIRD: 75})
    assert has(hosts.register, HOST) == [VNIC]
    says(hosts, ROGUE, HERE)
    assert has(hosts.register, ROGUE) == [VNIC]
    hosts.vnics.stay_away({ROGUE: 75, HOST: 75}, connected={THIRD})
    assert has(hosts.register, ROGUE) == [VNIC]


async def test_who_waits_for_a_vnic_does_not_get_it_when_it_moves(hosts: Manager, clock: Clock) -> None:
    """A claim of more than a minute waits for an operator, however often it is raised; the new host has the
    vNIC at once, be it before or after the old one withdraws it."""
    says(hosts, ROGUE, HERE)
    clock.wait(61)
    says(hosts, HOST)
    says(hosts, ROGUE)
    says(hosts, ROGUE, HERE)
    assert await disputed(hosts) == [(VNIC, ROGUE, None)]
    says(hosts, THIRD, HERE)
    assert await disputed(hosts) == [(VNIC, ROGUE, THIRD)]
    clock.wait(61)
    says(hosts, HOST, HERE)
    clock.wait(59)
    says(hosts, THIRD)
    assert (has(hosts.register, HOST), has(hosts.register, ROGUE)) == ([VNIC], [])


async def test_who_waits_for_a_vm_does_not_get_it_at_power_off(hosts: Manager, clock: Clock) -> None:
    """Nor by a vNIC of its own invention, and nor when the manager starts again; at power-on the VM is its
    last host's."""
    says(hosts, ROGUE, HERE, Binding(OTHER_VNIC, VM, OTHER_MAC, "veth9"))
    clock.wait(61)
    says(hosts, HOST)
    hosts.register = Register(hosts.parts.store, hosts.directory.signing_key())
    hosts.vnics = Vnics(hosts.register)
    assert has(hosts.register, ROGUE) == []
    says(hosts, HOST, HERE)
    assert has(hosts.register, HOST) == [VNIC]


@pytest.mark.parametrize("typed", [True, False])
async def test_no_host_adds_a_vnic_to_a_vm_that_is_off(hosts: Manager, typed: bool) -> None:
    """One that nobody knows, with the id of a VM that it has not and had not last: it would be in the VM's
    groups. The VM's last host adds one, and so does one that has the VM by a vNIC of it."""
    invented = Binding(OTHER_VNIC, OTHER_VM if typed else VM, OTHER_MAC, "veth9")
    if typed:
        await hosts.call("PUT", f"{VSFW}/vms/{OTHER_VM}", {"vnics": [{"id": THIRD_VNIC, "mac": MAC}]})
    says(hosts, HOST)
    before = hosts.stored()
    says(hosts, ROGUE, invented)
    assert (has(hosts.register, ROGUE), hosts.stored()) == ([], before)
    assert await disputed(hosts) == [(OTHER_VNIC, ROGUE, None)]
    says(hosts, ROGUE)
    if typed:
        says(hosts, THIRD, invented, Binding(THIRD_VNIC, OTHER_VM, MAC, "veth8"))
        assert has(hosts.register, THIRD) == [OTHER_VNIC, THIRD_VNIC]
    else:
        says(hosts, HOST, invented)
        assert has(hosts.register, HOST) == [OTHER_VNIC]


async def test_a_vm_that_was_typed_without_vnics_gets_them_from_its_host(hosts: Manager) -> None:
    """Tags first, then the host: as VMs are provisioned."""
    await hosts.call("PUT", f"{VSFW}/vms/{OTHER_VM}", {"tags": [{"tag": "t"}]})
    says(hosts, THIRD, Binding(OTHER_VNIC, OTHER_VM, OTHER_MAC, "veth0"))
    assert has(hosts.register, THIRD) == [OTHER_VNIC]


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
    vnics = Vnics(again)
    assert (has(again, HOST), has(again, ROGUE)) == ([VNIC], [])
    vnics.bound(HOST, Bindings(()))
    assert has(again, ROGUE) == [VNIC]
