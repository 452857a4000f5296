"""A lab from the outside: up, down, and what demo, tests and benchmarks do with it in between.

    with Lab.up(parse(vms=["web@host1#web", "client@host2"])) as lab:
        lab.publish({"domains/default/groups/web": {...}})
        lab.exec("client", ["ping", "-c1", lab.vm("web").v4])

`up` either returns a whole lab or leaves nothing; so does leaving the `with`, on whatever way. A lab that
shall outlive its maker is given up (`keep`), and found again by `attach`.
"""

import dataclasses
import functools
import os
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx

from vagrant.lab import agents, migration, network, rest, state
from vagrant.lab import host as hosts
from vagrant.lab import layout as layouts
from vagrant.lab import manager as managers
from vagrant.lab.broker import Broker
from vagrant.lab.layout import Host, Layout, Vm
from vagrant.lab.manager import Manager
from vagrant.lab.processes import Process, living, recall
from vagrant.lab.spec import Spec, check_name, parse_tag
from vagrant.lab.state import Access, LabError, State
from vagrant.lab.waiting import step, wait_until


class Lab:
    """`rest` is a client of the manager with address, CA and credentials set; its paths begin with a
    slash."""

    def __init__(self, layout: Layout, access: Access) -> None:
        self.layout = layout
        self.access = access
        self.manager = Manager(layout)
        self.broker = Broker(
            layout.directory / "broker",
            layout.mgmt_address,
            access.broker_tls,
            access.broker_password,
            namespace=layout.mgmt,
            port=managers.BROKER_PORT,
            api_port=managers.BROKER_API_PORT,
        )
        self.rest = httpx.Client(
            base_url=access.url,
            auth=(access.user, access.password),
            verify=ssl.create_default_context(cafile=str(access.ca)),
            timeout=30.0,
            trust_env=False,
        )

    @classmethod
    def up(cls, spec: Spec, name: str = "lab") -> Self:
        """Raises LabError when it is up already; removes what a killed run of this name left behind."""
        check_name(name)
        with state.locked(name):
            remains = state.load(name)
            if remains is not None and remains.up():
                raise LabError(f"lab {name!r} is up; take it down first (lab down)")
            if state.left_behind(name):
                with step("removing what a killed run left behind"):
                    state.remove(name)
            try:
                return cls._build(spec, name)
            except BaseException:
                state.remove(name)
                raise

    @classmethod
    def _build(cls, spec: Spec, name: str) -> Self:
        owner = living(os.getpid())
        with step(f"network: {len(spec.hosts)} hosts, {len(spec.vms)} VMs"):
            layout = layouts.plan(name, network.claim_number(name), spec)
            state.save(State(layout, owner))
            network.build(layout)
        with step("manager's keys and certificates"):
            access = Manager(layout).init()
            state.save(State(layout, owner, access))
        lab = cls(layout, access)
        with step("broker: RabbitMQ, TLS only"):
            lab.broker.start()
            lab.broker.wait_ready()
        with step("manager"):
            lab.manager.start()
            lab.manager.wait_ready(lab.rest)
            rest.enter_policy(lab.rest, layout)
        lab._start(owner)
        return lab

    def _start(self, owner: Process | None) -> None:
        with step("hosts enrolled"):
            with ThreadPoolExecutor() as side_by_side:
                ids = list(side_by_side.map(self._enrolled, self.layout.hosts))
            enrolled = (
                dataclasses.replace(host, id=id) for host, id in zip(self.layout.hosts, ids, strict=True)
            )
            self.layout = dataclasses.replace(self.layout, hosts=tuple(enrolled))
            state.save(State(self.layout, owner, self.access))
            rest.enter_groups_of_hosts(self.rest, self.layout)
        with step("vsfwd on every host"):
            self._run_vsfwd(self.layout.hosts)
        with step("VMs plugged, their policy in force"):
            self._plug(self.layout.vms)

    def _run_vsfwd(self, there: Sequence[Host]) -> None:
        for host in there:
            hosts.start(host)
        for host in there:
            hosts.wait_ready(host)
            agents.start(host)

    def _plug(self, vms: Sequence[Vm]) -> None:
        for vm in vms:
            hosts.announce(self.host(vm.host), vm, hosts.guest(vm))
            network.plug(self.layout, vm)
        there = [self.host(vm.host).namespace for vm in vms]
        network.wait_carrying(*there, *(vm.namespace for vm in vms))
        for vm in vms:
            rest.complete_vm(self.rest, vm)
        self.wait_open()
        self.wait_applied()

    def add_host(self, *vms: str) -> Host:
        """One more, with these VMs, written NAME[#tag,tag][+segment]; returns when they have their policy."""
        before = self.layout
        self.layout = layouts.grown(before, vms)
        *others, host = self.layout.hosts
        added = self.layout.vms[len(before.vms) :]
        self._save()
        network.build_host(self.layout, host)
        for other in others:
            network.introduce(self.layout, other, host)
        for vm in added:
            network.build_vm(self.layout, vm)
        with step(f"{host.name} enrolled"):
            host = dataclasses.replace(host, id=self._enrolled(host))
            self.layout = dataclasses.replace(self.layout, hosts=(*others, host))
            self._save()
        with step(f"vsfwd on {host.name}"):
            self._run_vsfwd([host])
        with step(f"{len(added)} VMs plugged, their policy in force"):
            self._plug(added)
        return host

    def migrate(self, vm: str, host: str, *, announced: bool = True) -> dict[str, Any]:
        """Move a VM to another host while it runs; returns when it can be reached there, with the manager's
        record of the move. Raises LabError when that cannot be, and the VM is where it was. Not `announced`:
        by a hypervisor that says nothing to anybody."""
        moving, target = self.vm(vm), self.host(host)
        for each in (moving.host, target.name):
            if self.vsfwd(each) is None:
                raise LabError(f"VM {vm} cannot move: the vsfwd of {each} is not running (lab start {each})")
        move: dict[str, Any] = {}
        if announced:
            self.layout, move = migration.migrate(self.layout, self.rest, moving, target.name)
        else:
            self.layout = migration.migrate_unannounced(self.layout, moving, target.name)
        self._save()
        return move

    def _save(self) -> None:
        known = state.load(self.layout.name)
        state.save(State(self.layout, known.owner if known else None, self.access))

    def _enrolled(self, host: Host) -> str:
        return hosts.enrol(self.rest, host, self.access.url)

    @classmethod
    def attach(cls, name: str = "lab") -> Self:
        """The lab that is up under this name. Raises LabError when there is none."""
        found = state.load(name)
        if found is None or not found.up() or found.access is None:
            raise LabError(f"lab {name!r} is not up (lab up)")
        return cls(found.layout, found.access)

    def keep(self) -> None:
        """From now on the lab is nobody's: it stays when this process ends."""
        state.save(State(self.layout, None, self.access))

    def down(self) -> None:
        """May be called again."""
        self.rest.close()
        take_down(self.layout.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def host(self, name: str) -> Host:
        for host in self.layout.hosts:
            if host.name == name:
                return host
        raise LabError(f"no host {name!r}, there are {', '.join(h.name for h in self.layout.hosts)}")

    def vm(self, name: str) -> Vm:
        for vm in self.layout.vms:
            if vm.name == name:
                return vm
        raise LabError(f"no VM {name!r}, there are {', '.join(v.name for v in self.layout.vms) or 'none'}")

    def exec_argv(self, vm: str, argv: Sequence[str]) -> list[str]:
        """`ip netns exec`: /sys shows the VM's devices, as it would inside of a machine."""
        return ["ip", "netns", "exec", self.vm(vm).namespace, *argv]

    def exec(self, vm: str, argv: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a program inside of a VM; `options` are those of subprocess.run."""
        return subprocess.run(self.exec_argv(vm, argv), **options)

    def publish(self, objects: Mapping[str, Mapping[str, object]]) -> None:
        """PUT policy objects, paths below /policy/api/v1/infra/, in this order; returns when every host
        enforces them. Raises LabError with the manager's answer when one is refused."""
        for path, body in objects.items():
            rest.put(self.rest, path, body)
        self.wait_applied()

    def set_tags(self, vm: str, *tags: str) -> None:
        """Replace the tags of a VM, written scope|tag or tag; returns when every host enforces what follows
        from it."""
        parsed = [parse_tag(tag) for tag in tags]
        rest.set_tags(self.rest, self.vm(vm), [{"scope": t.scope, "tag": t.tag} for t in parsed])
        self.wait_applied()

    def wait_open(self, timeout_s: float = 60.0) -> None:
        """Until every VM's vNIC has its policy: the manager knows by then where each of them is."""
        for host in self.layout.hosts:
            vnics = {vm.vnic for vm in self.layout.vms if vm.host == host.name}
            is_open = functools.partial(hosts.are_open, host, vnics)
            wait_until(is_open, f"policy for every VM of {host.name}", timeout_s)

    def wait_applied(self, timeout_s: float = 60.0) -> None:
        """Until every host has applied what the manager wants it to. The default is longer than a host that
        lost the broker waits before it tries again."""

        def applied() -> bool:
            answer = self.rest.get("/api/v1/vsfw/hosts").raise_for_status().json()
            return all(host["in_sync"] for host in answer["results"])

        wait_until(applied, "policy applied on every host", timeout_s)

    def vsfwd(self, host: str) -> Process | None:
        """The host's daemon, if it lives."""
        process = recall(self.host(host).pid_file)
        return process if process is not None and process.alive() else None

    def kill_vsfwd(self, host: str) -> None:
        """SIGKILL, as if it had crashed."""
        process = self.vsfwd(host)
        if process is not None:
            process.kill()

    def start_vsfwd(self, host: str) -> None:
        self._run_vsfwd([self.host(host)])


def take_down(name: str) -> bool:
    """Remove the lab of this name, or what is left of one. False when there was nothing."""
    with state.locked(name):
        there = state.left_behind(name)
        if there:
            state.remove(name)
        return there
