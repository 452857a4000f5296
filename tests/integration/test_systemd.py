"""The shipped units under a systemd that has booted: start, policy, kill, hang, upgrade, stop, while somebody
looks for gaps in the firewall."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.harness.booted import PACKAGES, SOURCE, Machine, booted
from tests.harness.lone import VM_ADDRESSES, VM_MAC, LoneHost, lone_host, other_version
from tests.harness.policies import HOST, message, objects
from tests.harness.prober import RULES
from tests.integration.private_broker import ManagersEnd, PrivateBroker
from vagrant.lab.waiting import wait_until
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol import envelope
from vsfwd.protocol.components import ComponentMessage
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import Applied, Hello

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UPLINK: Final = f"vsfwds{os.getpid()}"
_LINK: Final = ip_address("198.19.64.0") + 4 * (os.getpid() % 2**12)
BROKER_ADDRESS: Final = str(_LINK + 1)
DEADLINE_S: Final = 60.0
AGENTS: Final = ("vsfwd-context-agent", "vsfwd-control-plane-agent")
MANAGER: Final = (
    'listen = "127.0.0.1:8443"\nbrokers = ["127.0.0.1:1"]\nbroker_apis = ["https://127.0.0.1:1"]\n'
)
SOON: Final = "[Service]\nWatchdogSec=10\nRestartSec=100ms\n"
"""For a test that does not wait half a minute, on a machine on which a process may wait for seconds."""


@dataclass(frozen=True)
class Site:
    machine: Machine
    host: LoneHost
    broker: PrivateBroker

    def restarts(self) -> int:
        return int(self.machine.show("vsfwd", "NRestarts"))

    def status(self) -> str:
        return self.machine.show("vsfwd", "StatusText")

    def runs_again(self, before: int) -> None:
        """After a restart by systemd, ready."""

        def ready() -> bool:
            return self.restarts() == before + 1 and self.machine.show("vsfwd", "ActiveState") == "active"

        wait_until(ready, "vsfwd runs again", DEADLINE_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host with a VM and a neighbour, a broker, and a machine with the units installed and configured."""
    directory = tmp_path_factory.mktemp("systemd")
    with ExitStack() as stack:
        host = stack.enter_context(lone_host(directory))
        ip(f"link add {UPLINK} type veth peer name up0 netns {host.namespace}")
        stack.callback(ip, f"link delete {UPLINK}")
        ip(f"address add {BROKER_ADDRESS}/30 dev {UPLINK}")
        ip(f"link set {UPLINK} up")
        ip(f"-n {host.namespace} address add {_LINK + 2}/30 dev up0")
        for device in ("lo", "up0"):
            ip(f"-n {host.namespace} link set {device} up")
        broker = PrivateBroker(directory, HOST, BROKER_ADDRESS)
        stack.callback(broker.node.kill)
        broker.start()
        broker.declare()
        machine = stack.enter_context(booted(directory, host.namespace))
        configure(machine, host, broker)
        yield Site(machine, host, broker)


@pytest_asyncio.fixture
async def manager(site: Site) -> AsyncIterator[ManagersEnd]:
    async with ManagersEnd(site.broker) as manager:
        yield manager


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def configure(machine: Machine, host: LoneHost, broker: PrivateBroker) -> None:
    """Users and directories as a package makes them, and what enrolment wrote when all of it was vsfwd's."""
    machine.run("systemd-sysusers")
    etc = machine.root / "etc" / "vsfwd"
    certificate, key = broker.host_certificate
    (etc / "host.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    (etc / "ca.pem").write_bytes(broker.authority.ca.read_bytes())
    given = {name: host.daemon.settings[name] for name in ("host_id", "manager_key")}
    given |= {"broker_urls": [broker.node.url], "ca": "/etc/vsfwd/ca.pem"}
    given |= dict.fromkeys(("certificate", "key"), "/etc/vsfwd/host.pem")
    (etc / "vsfwd.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items()))
    for path in etc.iterdir():
        path.chmod(0o600)
    machine.run("chown", "-R", "vsfwd:vsfwd", "/etc/vsfwd")
    (etc / "manager.toml").write_text(MANAGER)
    for _ in range(2):  # what is done is not done again
        machine.run(str(SOURCE / "vsfwd/systemd/layout.sh"))
    soon = machine.root / "etc/systemd/system/vsfwd.service.d"
    soon.mkdir()
    (soon / "soon.conf").write_text(SOON)
    machine.systemctl("daemon-reload")


def snapshot(host: LoneHost) -> envelope.Message:
    """The policy that the prober knows, as the manager signs it."""
    policy = objects(RULES, {}, {"web": f"{' '.join(VM_ADDRESSES)} {VM_MAC}"})
    header, json = message(DesiredState(), policy, Kind.SNAPSHOT)
    fields: dict[str, Any] = {
        name: getattr(header, name) for name in ("host", "epoch", "generation", "base", "kind", "digest")
    }
    return envelope.seal(host.daemon.key, json=json, **fields)


async def test_the_firewall_stands_whatever_becomes_of_its_unit(site: Site, manager: ManagersEnd) -> None:
    """Started by systemd, with a policy that came over AMQP: no packet too many or too few while the daemon
    is killed, hangs, is upgraded, reloaded and stopped. What it is doing stands in `systemctl status`, what
    happened in the journal."""
    machine = site.machine
    await asyncio.to_thread(machine.systemctl, "start", "vsfwd")
    assert site.status().startswith("generation 0 in force, vNICs attached: 1, ")
    await manager.reported(Hello)
    await manager.policy(snapshot(site.host))
    assert (await manager.reported(Applied)).generation == 1
    await asyncio.to_thread(withstand, site)
    await manager.reported(Hello)


async def test_the_agents_speak_through_vsfwd_as_its_user(site: Site, manager: ManagersEnd) -> None:
    """Without a right and without a network of their own: what the context agent says at its start comes out
    at the broker, and both run on."""
    for agent in AGENTS:
        await asyncio.to_thread(site.machine.systemctl, "start", "vsfwd", agent)
    await manager.reported(
        ComponentMessage, lambda said: (said.component, said.topic) == ("context-agent", "start")
    )
    for agent in AGENTS:
        assert site.machine.show(agent, "ActiveState") == "active"
        assert site.machine.show(agent, "NRestarts") == "0"


def test_the_manager_serves_as_a_user_of_its_own(site: Site) -> None:
    """On a state directory that root has made."""
    machine = site.machine
    machine.run("vsfw-manager", "init")
    machine.systemctl("start", "vsfwd-manager")
    curl = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "/var/lib/vsfw-manager/ca.crt")
    asked = (*curl, "https://127.0.0.1:8443/api/v1/node")
    wait_until(lambda: machine.run(*asked, check=False) == "401", "the manager answers", DEADLINE_S)
    status = machine.run("cat", f"/proc/{machine.pid('vsfwd-manager')}/status")
    assert "CapEff:\t0000000000000000" in status
    machine.systemctl("stop", "vsfwd-manager")
    assert machine.show("vsfwd-manager", "Result") == "success"


def test_vsfwd_has_the_rights_that_it_needs_and_no_other(site: Site) -> None:
    """A user of its own, three capabilities, none of them root's CAP_SYS_ADMIN, a filter of system calls;
    nothing it executes can have more. It is in force before there is a network."""
    machine = site.machine
    machine.systemctl("start", "vsfwd")
    status = machine.run("cat", f"/proc/{machine.pid('vsfwd')}/status")
    said = dict(line.split(":\t", 1) for line in status.splitlines())
    uid = machine.run("id", "-u", "vsfwd").strip()
    assert said["Uid"].split() == [uid] * 4
    bpf, perfmon, net_admin = 1 << 39, 1 << 38, 1 << 12  # linux/capability.h
    for set_ in ("CapBnd", "CapEff", "CapPrm", "CapAmb"):
        assert int(said[set_], 16) == bpf | perfmon | net_admin
    bounds = machine.show("vsfwd", "CapabilityBoundingSet").split()
    assert set(bounds) == {"cap_bpf", "cap_perfmon", "cap_net_admin"}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    assert "table bridge vsfwd" in machine.run("nft", "list", "tables")
    assert {"network-pre.target", "libvirtd.service"} <= set(machine.show("vsfwd", "Before").split())


def test_of_etc_vsfwd_writes_only_where_it_renews(site: Site) -> None:
    """Also where all of it was its own before: key and certificate are where they can be renewed, and nothing
    else can be changed, taken away or put in its place."""
    machine = site.machine
    machine.systemctl("start", "vsfwd")

    def may(*argv: str) -> bool:
        """As whoever has taken it over, where it sees the files."""
        there = ("nsenter", "-t", str(machine.pid("vsfwd")), "-m", "runuser", "-u", "vsfwd", "--")
        said = machine.run(*there, "sh", "-c", '"$@" && echo done', "sh", *argv, check=False)
        return said.endswith("done\n")

    etc = "/etc/vsfwd"
    assert machine.run("ls", etc, f"{etc}/host").split() == [
        *(f"{etc}:", "ca.pem", "host", "manager.toml", "vsfwd.toml"),
        *(f"{etc}/host:", "host.pem"),
    ]
    assert may("touch", f"{etc}/host/renewing.key")
    assert may("mv", f"{etc}/host/renewing.key", f"{etc}/host/host.pem.new")
    assert may("rm", f"{etc}/host/host.pem.new")
    assert may("cat", f"{etc}/vsfwd.toml", f"{etc}/ca.pem", f"{etc}/host/host.pem")
    for name in ("ca.pem", "manager.toml", "vsfwd.toml"):
        assert not may("truncate", "-s1", f"{etc}/{name}")
        assert not may("mv", f"{etc}/{name}", f"{etc}/host/{name}")
    assert not may("touch", f"{etc}/another")
    assert not may("mv", f"{etc}/host", f"{etc}/another")


def withstand(site: Site) -> None:
    machine, host = site.machine, site.host
    wait_until(
        lambda: site.status() == f"generation 1 in force, vNICs attached: 1, {site.broker.node.url}",
        "systemctl status says what is in force",
        DEADLINE_S,
    )
    assert 'Status: "generation 1 in force' in machine.systemctl("status", "vsfwd")
    with host.probed() as probers:
        for word, signal in (("killed", "KILL"), ("hangs", "STOP")):
            for prober in probers:
                prober.note(word)
            before = site.restarts()
            machine.run("kill", f"-{signal}", str(machine.pid("vsfwd")))
            site.runs_again(before)
        for prober in probers:
            prober.note("upgraded")
        upgrade(machine)
        compile_ahead(machine)
        machine.systemctl("restart", "vsfwd")
        assert "generation 1 in force, vNICs attached: 1" in site.status()
        for prober in probers:
            prober.note("reloaded")
        machine.systemctl("reload", "vsfwd")
        for prober in probers:
            prober.note("stopped")
        machine.systemctl("stop", "vsfwd")
        assert machine.show("vsfwd", "Result") == "success"
        for prober in probers:
            prober.flowing(20)
    assert [prober.violations() for prober in probers] == [[], []]
    journal = machine.journal()
    for said in (
        "Main process exited, code=killed, status=9/KILL",
        "Watchdog timeout",
        'event="the configuration is reloaded"',
        'event="stopped; the kernel goes on enforcing what it has"',
    ):
        assert said in journal
    machine.systemctl("start", "vsfwd")


def compile_ahead(machine: Machine) -> None:
    """As a package does it, and vsfwd/OPERATE.md says."""
    argv = ("--wait", "--pipe", "--uid=vsfwd", "--property=AmbientCapabilities=CAP_BPF", "vsfwd", "--compile")
    kept = "/var/cache/vsfwd"
    before = machine.run("ls", kept).split()
    machine.run("systemd-run", *argv)
    assert len(machine.run("ls", kept).split()) > len(before)


def upgrade(machine: Machine) -> None:
    """To a version whose programs have another text."""
    place = Path("/usr/lib/vsfwd/next")
    there = machine.root / place.relative_to("/")
    there.mkdir()
    other_version(there, "/* vNICs of one host */", "/* vNICs of a host */")
    program = machine.root / "usr/bin/vsfwd"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={place}:{PACKAGES} exec /usr/bin/python3 -m vsfwd "$@"\n')
