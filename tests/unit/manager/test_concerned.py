"""Most changes are nothing to most hosts: who is not asked would have needed the same."""

import random
import uuid
from collections.abc import Callable, Iterable

import pytest

import manager_stub.concerned
import manager_stub.hosts
from manager_stub.hosts import Host, vnics_of
from manager_stub.model import Cluster, Entity, ExcludeList, Group, Rule, SecurityPolicy, Vm
from manager_stub.span import Realised, realise
from tests.unit.manager.rest import Manager
from vsfwd.protocol.messages import Addresses, Binding, Bindings, Claim, Source

HOSTS, VMS, GROUPS = 6, 12, 8
EXCLUDABLE = 3
"""VMs that the exclusion list may name, and that therefore stay."""
DOMAIN = "/infra/domains/default"
ADDRESSES = [f"10.0.0.{number}" for number in range(1, 8)]
"""Fewer than vNICs: some claim the same."""


def id_of(kind: int, number: int) -> str:
    return str(uuid.UUID(int=(kind << 100) + number))


def vm_path(number: int) -> str:
    return f"/vsfw/vms/{id_of(1, number)}"


def group_path(number: int) -> str:
    return f"{DOMAIN}/groups/g{number}"


def binding(number: int) -> Binding:
    return Binding(id_of(2, number), id_of(1, number), f"02:00:00:00:00:{number:02x}", "veth0")


class Changes:
    """One change after the other, made from a seed."""

    def __init__(self, manager: Manager, seed: int) -> None:
        self.register = manager.register
        self.vnics = manager.parts.vnics
        self.chance = random.Random(seed)
        self.register.write(put={f"{DOMAIN}/security-policies/s": SecurityPolicy.model_validate({})})
        self.register.write(put={group_path(number): Group() for number in range(GROUPS)})
        self.register.write(put={vm_path(number): self.vm(number) for number in range(VMS)})
        for host in range(HOSTS):
            self.register.add_host(id_of(3, host), f"host {host}")
        hosts = [id_of(3, host) for host in range(0, HOSTS, 2)]
        cluster = Cluster.model_validate({"display_name": "cluster", "hosts": hosts})
        self.register.write(put={"/vsfw/clusters/c": cluster})
        self.kinds: list[Callable[[], None]] = [
            *[self.tag] * 4,
            *(self.group, self.rule, self.plug, self.plug, self.claim, self.exclude, self.forget),
        ]

    def step(self) -> str:
        kind = self.chance.choice(self.kinds)
        kind()
        return kind.__name__

    def some(self, of: Iterable[str], most: int = 2) -> list[str]:
        known = list(of)
        return self.chance.sample(known, self.chance.randint(1, most))

    def put(self, path: str, body: Entity) -> None:
        self.register.write(put={path: body})

    def vm(self, number: int) -> Vm:
        card = {"id": id_of(2, number), "mac": binding(number).mac, "addresses": self.some(ADDRESSES)}
        tags = [{"scope": "s", "tag": tag} for tag in self.some("abcd")]
        return Vm.model_validate({"display_name": f"vm {number}", "tags": tags, "vnics": [card]})

    def tag(self) -> None:
        number = self.chance.randrange(VMS)
        self.put(vm_path(number), self.vm(number))

    def group(self) -> None:
        number = self.chance.randrange(GROUPS)
        tag = {
            "resource_type": "Condition",
            "member_type": "VirtualMachine",
            "key": "Tag",
            "operator": "EQUALS",
            "value": f"s|{self.chance.choice('abcd')}",
        }
        listed = {"resource_type": "IPAddressExpression", "ip_addresses": self.some(ADDRESSES)}
        nested = {"resource_type": "PathExpression", "paths": [group_path((number + 1) % GROUPS)]}
        where = tag | {"member_type": "Cluster", "key": "Name", "value": "cluster"}
        expressions = [tag, listed, where, nested] if number % 2 else [tag, listed, where]
        self.put(group_path(number), Group.model_validate({"expression": [self.chance.choice(expressions)]}))

    def rule(self) -> None:
        groups = [group_path(number) for number in range(GROUPS)]
        body = {
            "action": "ALLOW",
            "source_groups": self.some(groups),
            "scope": self.chance.choice([["ANY"], self.some(groups)]),
        }
        self.put(f"{DOMAIN}/security-policies/s/rules/r{self.chance.randrange(6)}", Rule.model_validate(body))

    def plug(self) -> None:
        """Also where another host has them."""
        there = tuple(binding(self.chance.randrange(VMS)) for _ in range(self.chance.randint(0, 3)))
        self.vnics.bound(id_of(3, self.chance.randrange(HOSTS)), Bindings(tuple(dict.fromkeys(there))))

    def claim(self) -> None:
        for host in self.register.hosts.values():
            seen = {
                each.vnic: (Claim(self.chance.choice(ADDRESSES), Source.ARP),) for each in host.bindings[:1]
            }
            self.vnics.claimed(host.id, Addresses(seen))

    def exclude(self) -> None:
        members = self.some([vm_path(number) for number in range(EXCLUDABLE)])
        self.put(
            "/infra/settings/firewall/security/exclude-list",
            ExcludeList.model_validate({"members": members}),
        )

    def forget(self) -> None:
        """A VM that may still be plugged; a change of its tags brings it back."""
        path = vm_path(self.chance.randrange(EXCLUDABLE, VMS))
        if path in self.register.world.vms:
            self.register.write(put={}, delete=[path])


@pytest.mark.parametrize("seed", range(4))
async def test_who_is_not_asked_needs_the_same(
    manager: Manager, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags, groups, rules, vNICs that move and are disputed, addresses that several claim: after each change
    every host is to have what it needs, though many were not asked."""
    asked: list[str] = []
    monkeypatch.setattr("manager_stub.hosts.levels.state", _noting(manager_stub.hosts.levels.state, asked))
    changes = Changes(manager, seed)
    done = 0
    for number in range(120):
        asked.clear()
        kind = changes.step()
        done += len(asked)
        anew = realise(manager.register.world)
        for host in manager.register.hosts.values():
            needs = anew.needs(vnics_of(host.bindings))
            assert host.level.wanted.objects == needs, f"change {number}, {kind}: {host.display_name}"
    assert done < 120 * HOSTS * 0.8


def _noting(original: Callable[..., object], asked: list[str]) -> Callable[..., object]:
    def noting(*arguments: object) -> object:
        asked.append("")
        return original(*arguments)

    return noting


async def test_a_tag_is_nothing_to_hosts_without_its_groups(manager: Manager) -> None:
    """Of two hosts, each with a VM in a group of its own, only one is asked when a VM joins its group."""
    register, vnics = manager.register, manager.parts.vnics
    put: dict[str, Entity] = {}
    for number in range(2):
        condition = {
            "resource_type": "Condition",
            "member_type": "VirtualMachine",
            "key": "Tag",
            "operator": "EQUALS",
            "value": f"s|{number}",
        }
        section = f"{DOMAIN}/security-policies/s{number}"
        put[group_path(number)] = Group.model_validate({"expression": [condition]})
        put[section] = SecurityPolicy.model_validate({"scope": [group_path(number)]})
        put[f"{section}/rules/r"] = Rule.model_validate(
            {"action": "ALLOW", "source_groups": [group_path(number)]}
        )
    register.write(put=put)

    def vm(number: int, tag: str) -> Vm:
        card = {"id": id_of(2, number), "mac": binding(number).mac}
        return Vm.model_validate({"tags": [{"scope": "s", "tag": tag}], "vnics": [card]})

    register.write(put={vm_path(number): vm(number, str(number)) for number in range(2)})
    register.write(put={vm_path(2): vm(2, "none")})
    for number in range(2):
        register.add_host(id_of(3, number), f"host {number}")
        vnics.bound(id_of(3, number), Bindings((binding(number),)))
    before = register.realised
    register.write(put={vm_path(2): vm(2, "1")})
    assert [host.id for host in _concerned(before, register.realised, register.hosts.values())] == [
        id_of(3, 1)
    ]
    assert id_of(2, 2) in register.hosts[id_of(3, 1)].level.wanted.objects["vnics"]


def _concerned(before: Realised, after: Realised, hosts: Iterable[Host]) -> list[Host]:
    return list(manager_stub.concerned.concerned(before, after, hosts))


async def test_who_says_the_same_again_changes_nothing(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of the vNICs that the manager knows is not decided again, unless the inventory is another or
    the host was away."""
    register, vnics = manager.register, manager.parts.vnics
    register.write(put={vm_path(0): Vm.model_validate({"display_name": "vm"})})
    register.add_host(id_of(3, 0), "host")
    decided: list[int] = []
    original = vnics._plug
    monkeypatch.setattr(vnics, "_plug", lambda *a, **k: (decided.append(1), original(*a, **k)))
    report = Bindings((binding(0),))
    vnics.bound(id_of(3, 0), report)  # the VM has a new vNIC
    vnics.bound(id_of(3, 0), report)  # the inventory knows it now
    assert len(decided) == 2
    vnics.bound(id_of(3, 0), report)
    assert len(decided) == 2
    vnics.stay_away({id_of(3, 0): 100.0})
    vnics.bound(id_of(3, 0), report)
    vnics.bound(id_of(3, 0), Bindings(()))
    assert len(decided) == 5
    assert register.hosts[id_of(3, 0)].bindings == ()
