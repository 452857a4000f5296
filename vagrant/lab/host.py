"""A host of the lab: enrolled at the manager, with a configuration and a vsfwd of its own."""

import json
import platform
import socket
import subprocess
import sys
from typing import cast

import httpx
from asyncvarlink import VarlinkErrorReply

from vagrant.lab import probe
from vagrant.lab.layout import CACHE, GUARD_PORTS, Host, Vm
from vagrant.lab.processes import Process, in_namespace, recall, spawn, tail
from vagrant.lab.rest import checked
from vagrant.lab.rights import with_rights
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until
from vsfwd.config import Config
from vsfwd.datapath.attach import Hooks
from vsfwd.enrolment import CONFIG
from vsfwd.ipc.client import Unreachable, ask
from vsfwd.ipc.interface import GuestInfo, HostStatus
from vsfwd.ipc.migration_interface import MigrationInterface


def enrol(rest: httpx.Client, host: Host, manager: str) -> str:
    """As an operator would: a token made at the manager, taken to the host on standard input, and `vsfwctl
    enroll` there. The id the manager gives it."""
    token = checked(rest.post("/api/v1/vsfw/enrolment-tokens", json={"display_name": host.name}))
    host.directory.mkdir(mode=0o700)
    settings = {
        "state_dir": host.directory / "state",
        "cache_dir": CACHE,
        "socket": host.socket,
        "pin_dir": host.pins,
        "control_plane_dir": host.directory / "control-plane",
        "guests_dir": host.guests,
    }
    lines = "".join(f'{name} = "{path}"\n' for name, path in settings.items())
    lines += f"guard_ports = {json.dumps(GUARD_PORTS)}\n"
    (host.directory / CONFIG).write_text(f"{lines}statistics_period_s = 1\n")
    argv = [sys.executable, "-m", "vsfwd.ctl", "enroll", "--manager", manager]
    argv += ["--ca-hash", token["ca_hash"], "--token-file", "-", "--directory", str(host.directory)]
    done = subprocess.run(
        in_namespace(host.namespace, argv), input=token["token"], capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"{host.name} is not enrolled: {done.stderr.strip()}")
    return Config.load(host.directory / CONFIG).host_id


def start(host: Host) -> Process:
    """Its vsfwd, in its namespace; `wait_ready` waits for it."""
    argv = with_rights([sys.executable, "-m", "vsfwd", "--config", str(host.directory / CONFIG)])
    return spawn(argv, pid_file=host.pid_file, log=host.log, namespace=host.namespace)


def wait_ready(host: Host, timeout_s: float = 60.0) -> None:
    """Until vsfwd answers on its socket."""
    process = recall(host.pid_file)

    def ready() -> bool:
        if process is None or not process.alive():
            raise LabError(f"vsfwd of {host.name} did not start, see {host.log}:\n{tail(host.log)}")
        return answers(host)

    wait_until(ready, f"vsfwd of {host.name} ready", timeout_s)


def answers(host: Host) -> bool:
    """Does vsfwd, on its socket?"""
    try:
        ask(host.socket, lambda vsfwd: vsfwd.Status())
    except Unreachable:
        return False
    return True


def guest(vm: Vm) -> GuestInfo:
    """As somebody who starts virtual machines would know it."""
    return GuestInfo(vm.name, platform.freedesktop_os_release()["PRETTY_NAME"], vm.name, "VM_RUNNING")


def announce(host: Host, vm: Vm, guest: GuestInfo) -> None:
    """Returns when the programs are on the VM's device: it may be plugged. The manager is told by the
    host."""
    try:
        ask(
            host.socket,
            lambda vsfwd: vsfwd.AnnounceVnic(
                vnic=vm.vnic, vm=vm.id, mac=vm.mac, device=vm.device, guest=guest, segment=vm.segment
            ),
        )
    except VarlinkErrorReply as error:
        raise LabError(f"vsfwd of {host.name} does not take VM {vm.name}: {error.paramstojson()}") from error
    except Unreachable as error:
        raise LabError(
            f"vsfwd of {host.name} does not take VM {vm.name}: {error}\n{tail(host.log)}"
        ) from error


def withdraw(host: Host, vm: Vm) -> None:
    """The VM is not there any more."""
    ask(host.socket, lambda vsfwd: vsfwd.WithdrawVnic(vnic=vm.vnic))


def take_off(host: Host, vm: Vm, namespace: str) -> None:
    """From a device that has left the host for this namespace: one that a hypervisor makes anew has nobody's
    programs on it."""
    with probe.inside(namespace), Hooks(host.pins) as hooks:
        hooks.detach(socket.if_nametoindex(vm.device))


def freeze(host: Host, vm: Vm) -> None:
    """The VM stops here: what it takes along is on its way when this returns."""
    try:
        ask(host.socket, lambda vsfwd: vsfwd.Freeze(vm=vm.id), MigrationInterface)
    except VarlinkErrorReply as error:
        raise LabError(f"{host.name} does not let VM {vm.name} go: {error.paramstojson()}") from error


def status(host: Host) -> HostStatus:
    return cast(HostStatus, ask(host.socket, lambda vsfwd: vsfwd.Status())["status"])


def are_open(host: Host, vnics: set[str]) -> bool:
    """Does vsfwd enforce a policy on each of these vNICs?"""
    return vnics <= {vnic.vnic for vnic in status(host).vnics if vnic.state == "open"}
