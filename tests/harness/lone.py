"""A vsfwd as it runs, a process of its own, with its policy on disk and nobody to talk to.

    daemon = LoneDaemon(directory, namespace, pins)
    daemon.keep(objects(rules, groups, vnics))
    daemon.start()

What a restart, a kill or an upgrade is about needs no broker: the policy on disk is what is enforced."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.datapath import BPFFS, PREFIX, remove_leftovers
from tests.harness.policies import HOST, Objects, after, message, objects, vnic_id
from tests.harness.prober import RULES, Prober
from tests.harness.programs import CHAINS, take_all_off
from vagrant.lab.layout import CACHE
from vagrant.lab.network import wait_carrying
from vagrant.lab.probe import inside
from vagrant.lab.processes import in_namespace
from vagrant.lab.rights import with_rights
from vsfwd.datapath import bpf
from vsfwd.datapath.inner import INNER
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import Kind
from vsfwd.statefile import StateFile

READY_S: Final = 90.0
"""It may have to compile, on a busy machine."""
CHECKOUT: Final = Path(__file__).parents[2]
DEVICE: Final = "veth-web"
VM_MAC: Final = "02:00:00:00:00:01"
VM_ADDRESSES: Final = ("10.0.0.1", "fd00::1")
NEIGHBOUR_ADDRESSES: Final = ("10.0.0.2", "fd00::2")


class LoneDaemon:
    """`directory` has configuration, state, socket and log; its device has the vNIC's alias."""

    def __init__(self, directory: Path, namespace: str, pins: Path, **settings: object) -> None:
        self.directory = directory
        self.log = directory / "vsfwd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """Beside this process's, from the next start on."""
        self.program = with_rights([sys.executable, "-m", "vsfwd"])
        self._namespace = namespace
        self.key = Ed25519PrivateKey.generate()
        self._config = directory / "vsfwd.toml"
        public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()
        nobody = directory / "nobody.pem"
        lines = {
            "host_id": HOST,
            "broker_urls": ["amqps://127.0.0.1:1"],
            **dict.fromkeys(("ca", "certificate", "key"), str(nobody)),
            "manager_key": public,
            "state_dir": str(directory / "state"),
            "socket": str(directory / "vsfwd.sock"),
            "cache_dir": str(CACHE),
            "pin_dir": str(pins),
            **settings,
        }
        self.settings = lines
        self._config.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in lines.items()))

    def keep(self, objects: Objects) -> None:
        """The policy that the next start finds on disk."""
        state = after(DesiredState(), objects, Kind.SNAPSHOT)
        header, json = message(DesiredState(), objects, Kind.SNAPSHOT)
        fields = {
            name: getattr(header, name) for name in ("host", "epoch", "generation", "base", "kind", "digest")
        }
        sealed = envelope.seal(self.key, json=json, **fields)
        statefile = StateFile(self.directory / "state")
        statefile.save_policy(sealed.header, sealed.signature, state)
        statefile.close()

    def start(self, checkout: Path = CHECKOUT) -> float:
        """Seconds until it says that it enforces what is on disk. `checkout`: whose vsfwd it is."""
        where = self.directory / "notify"
        where.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(where))
            begun = time.monotonic()
            self.launch(checkout, NOTIFY_SOCKET=str(where))
            notified.settimeout(0.5)
            while True:
                try:
                    if notified.recv(64) == b"READY=1":
                        return time.monotonic() - begun
                except TimeoutError:
                    assert self.process is not None
                    assert self.process.poll() is None, self.log.read_text()
                    assert time.monotonic() - begun < READY_S, self.log.read_text()

    def guard(self) -> None:
        """What a host does before anything else when it boots."""
        self._once("--guard").check_returncode()

    def compile_ahead(self) -> None:
        """What a host does before an upgrade is started."""
        self._once("--compile").check_returncode()

    def detach(self) -> "subprocess.CompletedProcess[str]":
        """What an operator does by whom this host is to be filtered no more."""
        return self._once("--detach")

    def _once(self, option: str) -> "subprocess.CompletedProcess[str]":
        argv = in_namespace(self._namespace, [*self.program, option, "--config", str(self._config)])
        return subprocess.run(argv, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=False)

    def launch(self, checkout: Path = CHECKOUT, **environment: str) -> "subprocess.Popen[bytes]":
        argv = in_namespace(self._namespace, [*self.program, "--config", str(self._config)])
        path = [str(checkout), *self.environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, **self.environment, **environment, "PYTHONPATH": os.pathsep.join(path)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=checkout, env=environment, stdout=log, stderr=log)
        return self.process

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Status of a daemon that gets this signal."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.process = None
        return status


def other_version(directory: Path, old: str, new: str, file: str = "types.h") -> Path:
    """A checkout that differs in a file of bpf/."""
    for name in ("vsfwd", "bpf"):
        shutil.copytree(CHECKOUT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "vagrant"):
        (directory / name).symlink_to(CHECKOUT / name)
    changed = directory / "bpf" / file
    text = changed.read_text()
    assert text.count(old) == 1
    changed.write_text(text.replace(old, new))
    return directory


def refused_version(directory: Path) -> Path:
    """A checkout of which a program reads past its stack, so that the verifier refuses it."""
    return other_version(directory, "&now, sizeof(now), 0)", "&now, 4096, 0)", "dfw.c")


def _id(path: Path) -> int:
    fd = bpf.pinned(path)
    try:
        return bpf.object_id(fd)
    finally:
        os.close(fd)


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int) else repr(value)


@dataclass(frozen=True)
class LoneHost:
    """A VM behind a vNIC with `daemon`'s programs, and a neighbour without, on one bridge."""

    daemon: LoneDaemon
    namespace: str
    pins: Path
    vm: str
    neighbour: str

    @contextmanager
    def probed(self) -> Iterator[tuple[Prober, Prober]]:
        """Probing traffic meanwhile, to the VM and from it."""
        with (
            Prober(self.neighbour, self.vm, VM_ADDRESSES, rate=100) as towards,
            Prober(self.vm, self.neighbour, NEIGHBOUR_ADDRESSES, rate=100) as away,
        ):
            yield towards, away

    def pinned(self) -> dict[str, int]:
        """Everything that is pinned, with its id; and of what is in maps of maps, how many."""
        pins = [path for path in self.pins.rglob("*") if not path.is_dir()]
        inner = [path for path in pins if path.parent.name == INNER]
        ids = {str(path.relative_to(self.pins)): _id(path) for path in pins if path not in inner}
        return {**ids, INNER: len(inner)}

    def forget(self) -> None:
        """All that a kernel does not have after a boot: pins, programs, the port guard. No daemon runs."""
        shutil.rmtree(self.pins)
        self.pins.mkdir()
        with inside(self.namespace):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            take_all_off(socket.if_nametoindex(DEVICE))

    def attached(self) -> list[int]:
        """Ids of the programs on the device."""
        with inside(self.namespace):
            device = socket.if_nametoindex(DEVICE)
            return [id_ for chain in CHAINS for id_ in bpf.attached_programs(device, chain)]


@contextmanager
def lone_host(directory: Path, **settings: object) -> Iterator[LoneHost]:
    """Plugged, with `RULES` on disk; the daemon is not started."""
    remove_leftovers()
    namespace = f"{PREFIX}lone-{os.getpid()}"
    ends = vm, neighbour = f"{namespace}-vm0", f"{namespace}-vm1"
    pins = BPFFS / namespace
    daemon = LoneDaemon(directory, namespace, pins, **settings)
    daemon.keep(objects(RULES, {}, {"web": f"{' '.join(VM_ADDRESSES)} {VM_MAC}"}))
    try:
        for name in (namespace, *ends):
            _ip("netns", "add", name)
        _ip("-n", namespace, "link", "add", "bridge", "up", "type", "bridge")
        for end, device, addresses in (
            (vm, DEVICE, VM_ADDRESSES),
            (neighbour, "neighbour", NEIGHBOUR_ADDRESSES),
        ):
            _ip("-n", namespace, "link", "add", device, "type", "veth", "peer", "eth0", "netns", end)
            _ip("-n", namespace, "link", "set", device, "addrgenmode", "none", "master", "bridge", "up")
            if end == vm:
                _ip("-n", vm, "link", "set", "eth0", "address", VM_MAC)
                _ip("-n", namespace, "link", "set", DEVICE, "alias", f"vsfwd:{vnic_id('web')}")
            for address in addresses:
                length, flags = ("/64", ["nodad"]) if ":" in address else ("/24", [])
                _ip("-n", end, "address", "add", address + length, "dev", "eth0", *flags)
            _ip("-n", end, "link", "set", "eth0", "up")
        wait_carrying(namespace, *ends)
        yield LoneHost(daemon, namespace, pins, vm, neighbour)
    finally:
        if daemon.process is not None:
            daemon.kill()
        for name in (*ends, namespace):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        shutil.rmtree(pins, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
