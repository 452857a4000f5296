"""The lab's VMs on real hosts: who is where, and that it is the same after every boot."""

from vagrant.machine.tiers import plan


def test_a_single_host_has_all_vms() -> None:
    """And is the machine itself: no namespace, vsfwd's own socket."""
    planned = plan({"host1": "192.0.2.1"})
    (host,) = planned.hosts
    assert {vm.host for vm in planned.vms} == {"host1"}
    assert {vm.name for vm in planned.vms} == {"web", "app", "db", "client"}
    assert (host.namespace, str(host.socket), host.address) == ("", "/run/vsfwd/vsfwd.sock", "192.0.2.1")


def test_two_hosts_share_the_vms() -> None:
    """As in the demo, so that the policy is enforced on both."""
    planned = plan({"host1": "192.0.2.1", "host2": "192.0.2.2"})
    assert {vm.name: vm.host for vm in planned.vms} == {
        "web": "host1",
        "client": "host1",
        "app": "host2",
        "db": "host2",
    }


def test_vms_keep_their_ids_over_a_boot() -> None:
    """The manager knows a VM and its tags by its id; no two share one."""
    first, second = (plan({"host1": "192.0.2.1"}) for _ in range(2))
    assert first == second
    ids = [each for vm in first.vms for each in (vm.id, vm.vnic)]
    assert len(set(ids)) == len(ids)
