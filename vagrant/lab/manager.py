"""The lab's manager: makes its state, and runs it in the management namespace."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from vagrant.lab.broker import Tls
from vagrant.lab.layout import Layout
from vagrant.lab.processes import Process, recall, spawn, tail
from vagrant.lab.state import Access, LabError
from vagrant.lab.waiting import wait_until

PORT = 8443
BROKER_PORT = 5671
BROKER_API_PORT = 15671


@dataclass(frozen=True)
class Manager:
    """`directory` is the manager's own; the lab only reads the paths `init` names."""

    layout: Layout

    @property
    def directory(self) -> Path:
        return self.layout.directory / "manager"

    @property
    def config(self) -> Path:
        return self.layout.directory / "manager.toml"

    @property
    def log(self) -> Path:
        return self.layout.directory / "manager.log"

    @property
    def pid_file(self) -> Path:
        return self.layout.directory / "manager.pid"

    def init(self) -> Access:
        """CA, certificates, keys, database, first user."""
        address = self.layout.mgmt_address
        self.config.touch(0o600)
        self.config.write_text(
            f'state_dir = "{self.directory}"\n'
            f'listen = "{address}:{PORT}"\n'
            f'brokers = ["{address}:{BROKER_PORT}"]\n'
            f'broker_apis = ["https://{address}:{BROKER_API_PORT}"]\n'
        )
        done = subprocess.run(self._command("init"), capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"vsfw-manager init: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        ca = Path(said["ca"])
        return Access(
            url=f"https://{address}:{PORT}",
            ca=ca,
            user=said["user"],
            password=said["password"],
            broker_tls=Tls(ca, Path(said["broker_certificate"]), Path(said["broker_key"])),
            broker_password=Path(said["broker_admin"]).read_text().strip(),
        )

    def start(self) -> None:
        spawn(self._command("serve"), pid_file=self.pid_file, log=self.log, namespace=self.layout.mgmt)

    def _command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "manager_stub", "--config", str(self.config), name]

    def process(self) -> Process | None:
        """If it lives."""
        process = recall(self.pid_file)
        return process if process is not None and process.alive() else None

    def kill(self) -> None:
        """SIGKILL, as if it had crashed."""
        process = recall(self.pid_file)
        if process is not None:
            process.kill()

    def wait_ready(self, rest: httpx.Client, timeout_s: float = 60.0) -> None:
        """Until it answers requests."""
        process = recall(self.pid_file)

        def ready() -> bool:
            if process is None or not process.alive():
                raise LabError(f"the manager did not start, see {self.log}:\n{tail(self.log)}")
            try:
                return rest.get("/api/v1/vsfw/hosts").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        wait_until(ready, "manager ready", timeout_s)
