"""A host of the lab: enrolled at the manager, with a configuration and a vsfwd of its own."""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import httpx
from asyncvarlink import VarlinkErrorReply
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vagrant.lab.layout import PINS, Host, Vm
from vagrant.lab.processes import Process, recall, spawn, tail
from vagrant.lab.rest import checked
from vagrant.lab.state import LabError
from vagrant.lab.waiting import wait_until
from vsfwd.ipc.client import Unreachable, ask
from vsfwd.ipc.interface import GuestInfo


def enrol(rest: httpx.Client, host: Host) -> str:
    """The id the manager gives it. The key never leaves the host's directory; configuration is written
    there."""
    host.directory.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host.name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    given = _enrolled(rest, {"display_name": host.name, "csr": pem})
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(host.directory / "key.pem", key_pem)
    _write(host.directory / "certificate.pem", given["certificate"].encode())
    _write(host.directory / "ca.pem", given["ca"].encode())
    config = {
        "host_id": given["id"],
        "broker_urls": given["broker_urls"],
        "ca": str(host.directory / "ca.pem"),
        "certificate": str(host.directory / "certificate.pem"),
        "key": str(host.directory / "key.pem"),
        "manager_key": given["manager_key"],
        "state_dir": str(host.directory / "state"),
        "socket": str(host.socket),
        "pin_dir": str(PINS / given["id"]),
        "statistics_period_s": 1,
    }
    # Strings, numbers and lists of strings are written the same in TOML and in JSON.
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    _write(host.directory / "vsfwd.toml", lines.encode())
    return str(given["id"])


def _enrolled(rest: httpx.Client, body: dict[str, str]) -> Any:
    """Asks again while the manager, just started, has not met the broker yet: it answers 503 until then."""
    answers = []

    def done() -> bool:
        answers.append(rest.post("/api/v1/vsfw/hosts", json=body))
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    wait_until(done, "manager and broker ready to enrol hosts", every_s=0.2)
    return checked(answers[-1])


def start(host: Host) -> Process:
    """Its vsfwd, in its namespace; `wait_ready` waits for it."""
    argv = [sys.executable, "-m", "vsfwd", "--config", str(host.directory / "vsfwd.toml")]
    return spawn(argv, pid_file=host.pid_file, log=host.log, namespace=host.namespace)


def wait_ready(host: Host, timeout_s: float = 60.0) -> None:
    """Until vsfwd answers on its socket."""
    process = recall(host.pid_file)

    def ready() -> bool:
        if process is None or not process.alive():
            raise LabError(f"vsfwd of {host.name} did not start, see {host.log}:\n{tail(host.log)}")
        try:
            ask(host.socket, lambda vsfwd: vsfwd.Status())
        except Unreachable:
            return False
        return True

    wait_until(ready, f"vsfwd of {host.name} ready", timeout_s)


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


def are_open(host: Host, vnics: set[str]) -> bool:
    """Does vsfwd enforce a policy on each of these vNICs?"""
    status = ask(host.socket, lambda vsfwd: vsfwd.Status())["status"]
    return vnics <= {vnic.vnic for vnic in status.vnics if vnic.state == "open"}


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
