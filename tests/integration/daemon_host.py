"""One host in network namespaces: its vsfwd as a process of its own, one VM on a veth, a broker it can reach.

The VM is a namespace without a bridge: host and VM speak to each other over the vNIC itself.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.harness.datapath import BPFFS, PREFIX, inside, remove_leftovers
from tests.integration.private_broker import ManagersEnd, PrivateBroker
from tests.unit.policy_messages import HOST, WEB, WEB_VM, Manager, group, rule, vnic
from vagrant.lab.layout import CACHE
from vagrant.lab.network import wait_carrying
from vagrant.lab.rights import with_rights
from vagrant.lab.waiting import wait_until
from vsfwd.datapath.attach import Hooks
from vsfwd.protocol.messages import Applied, Bindings

HOST_NS: Final = f"{PREFIX}daemon-{os.getpid()}"
VM_NS: Final = f"{HOST_NS}-vm0"
UPLINK: Final = f"vsfwdt{os.getpid()}"
_LINK: Final = ip_address("198.19.0.0") + 4 * (os.getpid() % 2**14)
"""A subnet for each test run; labs have 198.18."""
BROKER_ADDRESS: Final = str(_LINK + 1)
HOST_ADDRESS: Final = "192.0.2.1"
VM_ADDRESS: Final = "192.0.2.10"
HOST_ADDRESS6: Final = "fd00:77::1"
VM_ADDRESS6: Final = "fd00:77::10"
VM_MAC: Final = "02:00:00:00:00:01"
DEVICE: Final = "veth-web"
QUOTA: Final = 1024
"""Places of the VM's flow table."""

PING = {"protocol": 1, "icmp_type": 8}
POLICY = {
    "rules": {
        "1": rule("ping", services=[PING], sources={"groups": ["clients"]}, logged=True),
        "2": rule(
            "no web", action="drop", order=[9, 0, 0, 1], services=[{"protocol": 6, "ports": [[80, 80]]}]
        ),
        "3": rule("rest", order=[9, 0, 0, 2]),
    },
    "groups": {"clients": group("192.0.2.0/24", name="clients")},
    "vnics": {WEB: vnic(VM_ADDRESS)},
}
NO_PING = {"1": rule("ping", action="drop", services=[PING])}

T = TypeVar("T")


def sh(command: str, check: bool = True) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


class DaemonHost:
    """`directory` has configuration, state and log; pins are in a directory of this test alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manager = Manager()
        self.socket = directory / "run" / "vsfwd.sock"
        self.log = directory / "vsfwd.log"
        self.pins = BPFFS / HOST_NS / HOST
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """Beside this process's, from the next start on."""

    def up(self) -> None:
        """Namespaces, and the link to the broker."""
        remove_leftovers()
        self.down()
        for namespace in (HOST_NS, VM_NS):
            sh(f"ip netns add {namespace}")
        sh(f"ip link add {UPLINK} type veth peer name up0 netns {HOST_NS}")
        sh(f"ip address add {BROKER_ADDRESS}/30 dev {UPLINK}")
        sh(f"ip link set {UPLINK} up")
        sh(f"ip -n {HOST_NS} address add {_LINK + 2}/30 dev up0")
        for device in ("lo", "up0"):
            sh(f"ip -n {HOST_NS} link set {device} up")

    def clear(self) -> None:
        """No daemon, no vNIC, no pins; namespaces and uplink stay."""
        self.kill()
        sh(f"ip -n {HOST_NS} link delete {DEVICE}", check=False)
        for pin in sorted(self.pins.parent.rglob("*"), reverse=True):
            pin.rmdir() if pin.is_dir() else pin.unlink()
        if self.pins.parent.exists():
            self.pins.parent.rmdir()

    def down(self) -> None:
        """Nothing of this is left."""
        self.clear()
        for namespace in (HOST_NS, VM_NS):
            sh(f"ip netns delete {namespace}", check=False)
        sh(f"ip link delete {UPLINK}", check=False)

    def configure(self, broker: PrivateBroker) -> Path:
        certificate, key = broker.host_certificate
        public = base64.b64encode(self.manager.key.public_key().public_bytes_raw()).decode()
        path = self.directory / "vsfwd.toml"
        path.write_text(
            f'host_id = "{HOST}"\n'
            f'broker_urls = ["{broker.node.url}"]\n'
            f'ca = "{broker.authority.ca}"\n'
            f'certificate = "{certificate}"\n'
            f'key = "{key}"\n'
            f'manager_key = "{public}"\n'
            f'state_dir = "{self.directory / "state"}"\n'
            f'cache_dir = "{CACHE}"\n'
            f'socket = "{self.socket}"\n'
            f'pin_dir = "{self.pins}"\n'
            f"flows_per_vnic = {QUOTA}\n"
        )
        return path

    def start(self, config: Path) -> None:
        """Returns when the daemon says it is ready."""
        before = self.log.read_text().count("event=ready") if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = with_rights([sys.executable, "-m", "vsfwd", "--config", str(config)])
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{HOST_NS}", *command],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return self.log.read_text().count("event=ready") > before

        wait_until(ready, "vsfwd ready", timeout_s=90)  # it compiles: on a busy machine that takes long

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile the daemon is stopped where it is: SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), "the daemon stopped")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=20)
        self.process = None
        return status

    def plug(self) -> None:
        """A veth between host and VM, with addresses on both ends."""
        sh(f"ip -n {HOST_NS} link add {DEVICE} type veth peer name eth0 netns {VM_NS}")
        sh(f"ip -n {VM_NS} link set eth0 address {VM_MAC} up")
        sh(f"ip -n {VM_NS} address add {VM_ADDRESS}/24 dev eth0")
        sh(f"ip -n {HOST_NS} address add {HOST_ADDRESS}/24 dev {DEVICE}")
        sh(f"ip -n {HOST_NS} address add {HOST_ADDRESS6}/64 dev {DEVICE} nodad")
        sh(f"ip -n {VM_NS} address add {VM_ADDRESS6}/64 dev eth0 nodad")
        sh(f"ip -n {HOST_NS} link set {DEVICE} up")
        wait_carrying(HOST_NS, VM_NS)

    def device_mac(self) -> str:
        """Of the host's end."""
        (device,) = json.loads(sh(f"ip -n {HOST_NS} -json link show {DEVICE}"))
        return str(device["address"])

    def unplug(self) -> None:
        sh(f"ip -n {HOST_NS} link delete {DEVICE}")

    def hooked(self) -> bool:
        """Whether both programs are on the device."""
        return self._on_hooks(Hooks.attached)

    def take_off(self) -> None:
        """The programs, behind the daemon's back."""
        self._on_hooks(Hooks.detach)

    def _on_hooks(self, do: Callable[[Hooks, int], T]) -> T:
        def inside_host() -> T:
            with inside(HOST_NS), Hooks(self.pins) as hooks:
                return do(hooks, socket.if_nametoindex(DEVICE))

        # pyroute2 runs an event loop, which it cannot on the thread of the test's own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(inside_host).result()

    def ping(self) -> bool:
        """Whether the VM answers the host, within three seconds: an ARP request may be asked again. One echo,
        unless it is not answered for a second: tests count what passes."""
        command = ["nsenter", f"--net=/run/netns/{HOST_NS}", "ping", "-c1", "-w3", VM_ADDRESS]
        return subprocess.run(command, capture_output=True).returncode == 0

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vsfwd.ctl", "--socket", str(self.socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=90)

    def ask(self, *arguments: str) -> Any:
        done = self.ctl(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def announce(self, vnic: str = WEB, vm: str = WEB_VM, mac: str = VM_MAC, device: str = DEVICE) -> Any:
        """By hand, as a hook in another language would: NUL-ended JSON."""
        parameters = {"vnic": vnic, "vm": vm, "mac": mac, "device": device}
        return self.call("AnnounceVnic", parameters)

    def call(self, method: str, parameters: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.socket))
            client.sendall(
                json.dumps({"method": f"io.vsfwd.Host.{method}", "parameters": parameters}).encode() + b"\0"
            )
            answer = b""
            while not answer.endswith(b"\0"):
                received = client.recv(65536)
                assert received, "the daemon closed the connection"
                answer += received
        return json.loads(answer[:-1])


class Setting:
    """A host with a daemon, its VM, and the manager's end of the line."""

    def __init__(self, host: DaemonHost, broker: PrivateBroker, manager: ManagersEnd, config: Path) -> None:
        self.host = host
        self.broker = broker
        self.manager = manager
        self.config = config

    async def plugged(self) -> None:
        assert self.host.announce() == {}
        self.host.plug()
        wait_until(self.host.hooked, "the programs on the new device")
        await self.manager.reported(Bindings, lambda event: len(event.vnics) == 1)

    async def with_policy(self) -> None:
        await self.plugged()
        await self.manager.policy(self.host.manager.snapshot(**POLICY))
        await self.manager.reported(Applied)
