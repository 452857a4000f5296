"""The installation as the READMEs have it, command by command, in directories of this test: what `init` made,
the shown rabbitmq.conf, a manager on it, a token, a host. Packages and system services are not touched."""

import json
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.harness.broker import free_ports
from tests.integration.daemon_host import BROKER_ADDRESS, HOST_NS, DaemonHost
from vagrant.lab.broker import Broker, Tls
from vagrant.lab.processes import in_namespace
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


def shown(readme: str, heading: str) -> list[str]:
    """The commands of a section; those that begin with # change the machine."""
    section = (ROOT / readme).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    assert blocks
    return [block.replace("    ", "") for block in blocks if not block.startswith("    # ")]


class ShownBroker(Broker):
    """A node of its own directory, with the configuration of the README instead of the lab's."""

    def _write_files(self) -> None:
        super()._write_files()
        etc = self.directory.parent / "etc"
        (self.directory / "rabbitmq.conf").write_text((etc / "rabbitmq.conf").read_text())
        (self.directory / "plugins").write_text((etc / "enabled_plugins").read_text())


class Installation:
    """What stands in the READMEs for something of the installation, and what it is here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        rest, self.amqps, self.api, self.epmd, self.node = free_ports(5)
        self.state, self.etc = directory / "manager", directory / "etc"
        self.etc.mkdir()
        self.settings = {name: text for name, text in os.environ.items() if not name.startswith("VSFWCTL_")}
        self.url = f"https://{BROKER_ADDRESS}:{rest}"
        self._values = {
            "/var/lib/vsfw-manager": str(self.state),
            "/etc/rabbitmq": str(self.etc),
            "https://MANAGER:8443": self.url,
            "10.0.0.1:8443": f"{BROKER_ADDRESS}:{rest}",
            "10.0.0.1:5671": f"{BROKER_ADDRESS}:{self.amqps}",
            "15671": str(self.api),
            "10.0.0.1": BROKER_ADDRESS,
        }

    def filled(self, commands: str, **more: str) -> str:
        for placeholder, value in (self._values | more).items():
            commands = commands.replace(placeholder, value)
        return commands

    def run(self, commands: str, namespace: str | None = None, said: str = "") -> str:
        """By a shell in which our programs have their names; what they print."""
        programs = {"vsfw-manager": "manager_stub", "vsfwctl": "vsfwd.ctl"}
        named = [f'{name}() {{ {sys.executable} -m {module} "$@"; }}\n' for name, module in programs.items()]
        script = f"set -eu\nexport PYTHONPATH={ROOT}\n{''.join(named)}{commands}"
        argv = in_namespace(namespace, ["bash", "-c", script])
        done = subprocess.run(argv, input=said, env=self.settings, capture_output=True, text=True)
        assert done.returncode == 0, f"{commands}\n{done.stderr}"
        return done.stdout

    def broker(self) -> Broker:
        tls = Tls(self.state / "ca.crt", self.state / "broker.crt", self.state / "broker.key")
        password = (self.state / "broker-admin").read_text().strip()
        return ShownBroker(
            self.directory / "broker",
            BROKER_ADDRESS,
            tls,
            password,
            port=self.amqps,
            api_port=self.api,
            epmd_port=self.epmd,
            node_port=self.node,
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DaemonHost]:
    host = DaemonHost(tmp_path)
    host.up()
    yield host
    host.down()


@pytest.mark.timeout(240)
def test_the_shown_commands_make_an_installation(tmp_path: Path, host: DaemonHost) -> None:
    """RabbitMQ starts with the shown configuration, key and password for its owner only; the manager declares
    what it needs on it; a host enrols there and has its policy."""
    here = Installation(tmp_path)
    init, configure, serve = shown("manager_stub/README.md", "Installation")
    ask, enroll = shown("README.md", "A host more")
    made = json.loads(here.run(here.filled(init)))
    here.run(here.filled(configure))
    assert {(here.etc / name).stat().st_mode & 0o77 for name in ("broker.key", "rabbitmq.conf")} == {0}
    broker = here.broker()
    with ExitStack() as stack:
        stack.callback(broker.kill)
        broker.start()
        broker.wait_ready()
        program, *arguments = shlex.split(here.filled(serve))
        assert program == "vsfw-manager"
        manager = stack.enter_context(subprocess.Popen([sys.executable, "-m", "manager_stub", *arguments]))
        stack.callback(manager.kill)
        tls = ssl.create_default_context(cafile=made["ca"])
        auth = (made["user"], made["password"])
        rest = stack.enter_context(httpx.Client(base_url=here.url, auth=auth, verify=tls, trust_env=False))
        wait_until(lambda: answers(rest), "the manager answers", DEADLINE_S)
        here.settings["VSFWCTL_PASSWORD"] = made["password"]
        token = json.loads(here.run(here.filled(ask, **{"ca.crt": made["ca"], "--user": "--json --user"})))

        settings = {"state_dir": tmp_path / "vsfwd", "socket": host.socket, "pin_dir": host.pins}
        config = tmp_path / "etc-vsfwd" / "vsfwd.toml"
        config.parent.mkdir()
        config.write_text("".join(f'{name} = "{path}"\n' for name, path in settings.items()))
        command, daemon = enroll.splitlines()
        assert daemon == "vsfwd"
        directory = {
            "sha256:...": token["ca_hash"],
            "--token-file": f"--directory {config.parent} --token-file",
        }
        here.run(here.filled(command, **directory), HOST_NS, token["token"])
        stack.callback(host.kill)
        host.start(config)

        def has_policy() -> bool:
            (shown,) = rest.get("/api/v1/vsfw/hosts").raise_for_status().json()["results"]
            return shown["display_name"] == "node-7" and shown["connected"] is True and shown["in_sync"]

        wait_until(has_policy, "the host has its policy", DEADLINE_S)
        status = json.loads(here.run(f"vsfwctl --socket {host.socket} status --json"))
        assert status["generation"] >= 1, status


def answers(rest: httpx.Client) -> bool:
    try:
        return rest.get("/api/v1/node").is_success
    except httpx.TransportError:
        return False
