"""An operator who does what the documents say, command by command: the installation, a host more, another
version, certificates, passwords, settings. Manager, broker and host are on one machine, which systemd has
booted. The tests follow each other, as an operator's days do."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.harness.booted import SOURCE, Machine, booted
from tests.harness.documents import commands, session
from vagrant.lab.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

ADDRESS: Final = "10.0.0.1"
"""As in the documents."""
STATE: Final = "/var/lib/vsfw-manager"
DEADLINE_S: Final = 60.0


@dataclass
class Operator:
    """Root, who has just logged in: only the documents say where one is, and what is in PATH."""

    machine: Machine
    knows: dict[str, str] = field(default_factory=dict)
    """What is in the environment."""

    def says(self, script: str, where: str = "/root") -> str:
        (self.machine.root / "root/said").write_text(f"cd {where}\n{script}\n")
        known = [f"{name}={text}" for name, text in self.knows.items()]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return self.machine.run("env", path, *known, "bash", "-eu", "-o", "pipefail", "/root/said")

    def follows(self, page: str, heading: str) -> list[str]:
        return [self.says(script) for script in commands(page, heading)]

    def succeeds(self, command: str) -> None:
        def done() -> bool:
            return self.says(f"{command} >/dev/null 2>&1 && echo yes || true").strip() == "yes"

        wait_until(done, command, DEADLINE_S)

    def hosts(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.says("vsfwctl hosts --json"))
        return found


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    namespace = f"vsfw-installation-{os.getpid()}"
    ip(f"netns add {namespace}")
    try:
        for line in ("link set lo up", "link add eth1 up type bridge", f"addr add {ADDRESS}/24 dev eth1"):
            ip(f"-n {namespace} {line}")
        with booted(tmp_path_factory.mktemp("installation"), namespace, by_hand=True) as machine:
            machine.run("hostname", "host1")
            (machine.root / "etc/hosts").write_text("127.0.0.1 localhost host1\n")
            yield Operator(machine)
    finally:
        ip(f"netns delete {namespace}")


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def test_the_shown_commands_make_a_manager_with_its_broker(operator: Operator) -> None:
    """From the checkout to its unit, which serves. RabbitMQ, which Debian's package has started, takes the
    shown configuration; key and password are for their owner only."""
    (checkout,) = commands("README.md", "A real installation")
    operator.says(checkout.replace("URL", f"file://{SOURCE}"))
    packages, init, configure, restart, unit = commands("manager_stub/INSTALL.md", "Installation")
    operator.says(packages)
    operator.machine.systemctl("start", "rabbitmq-server")
    made = json.loads(operator.says(init))
    operator.knows |= {"VSFWCTL_MANAGER": f"https://{ADDRESS}:8443", "VSFWCTL_CA": made["ca"]}
    operator.knows |= {"VSFWCTL_USER": "admin", "VSFWCTL_PASSWORD": made["password"]}
    operator.says(configure)
    modes = operator.says("stat -c %a /etc/rabbitmq/broker.key /etc/rabbitmq/rabbitmq.conf")
    assert modes.split() == ["600", "600"]
    operator.says(restart)
    operator.says(unit)
    operator.succeeds("vsfwctl hosts")
    assert operator.hosts() == []


def test_the_shown_commands_make_a_host_more(operator: Operator) -> None:
    """Its packages and units, a token, enrolment. It has its policy."""
    operator.follows("vsfwd/INSTALL.md", "Installation")
    operator.follows("vsfwd/INSTALL.md", "Under systemd")
    ask, enroll = commands("README.md", "A host more")
    token = json.loads(operator.says(f"{ask.strip()} --json".replace("MANAGER", ADDRESS), where=STATE))
    enroll = enroll.replace("MANAGER", ADDRESS).replace("sha256:...", token["ca_hash"])
    operator.says(f"echo {token['token']} | {enroll}")

    def has_its_policy() -> bool:
        return [(host["display_name"], host["in_sync"]) for host in operator.hosts()] == [("node-7", True)]

    wait_until(has_its_policy, "the host has its policy", DEADLINE_S)


def test_settings_are_checked_and_taken_as_shown(operator: Operator) -> None:
    """Mistakes are told with their lines; what can be taken is taken at once."""
    (check, mistakes), (reload, taken) = session("vsfwd/OPERATE.md", "Configuration")
    configuration = "/etc/vsfwd/vsfwd.toml"
    operator.says(f"cp -p {configuration} /root/before")
    operator.says(f"printf 'log_rat = 50\\nlog_burst = \"many\"\\n' >> {configuration}")
    told = operator.says(f"{check} || test $? = 2").splitlines()
    assert [re.sub(r":\d+:", ":", line) for line in told] == [
        re.sub(r":\d+:", ":", line) for line in mistakes
    ]
    operator.says(f"cp -p /root/before {configuration}")
    operator.says(f"printf 'log_rate = 50\\nflows_per_vnic = 2048\\n' >> {configuration}")
    assert operator.says(reload).splitlines() == taken
    operator.says(f"cp -p /root/before {configuration}; vsfwctl reload")


def test_the_port_guard_is_looked_at_and_closed_as_shown(operator: Operator) -> None:
    """Its table is there; `vsfwctl status` says so."""
    shown, closed = operator.follows("vsfwd/OPERATE.md", "Port guard")
    assert "table bridge vsfwd" in shown
    assert "port_guard  on" in shown
    assert closed == ""


def test_the_host_goes_to_another_version_as_shown(operator: Operator) -> None:
    """Compiled first, then restarted; it says that it runs."""
    (upgrade,) = commands("vsfwd/OPERATE.md", "Another version")
    assert "generation" in operator.says(upgrade.replace("VERSION", "HEAD"))
    assert operator.machine.show("vsfwd", "ActiveState") == "active"


def test_the_manager_is_backed_up_and_goes_to_another_version_as_shown(operator: Operator) -> None:
    """Passphrase, directory and file of the backup, from which it is made anew; then it serves again, and the
    host is there."""
    backup, restore = commands("manager_stub/OPERATE.md", "Backup and restore")
    operator.says(backup)
    operator.says(restore.replace("DAY", "$(date +%F)"))
    operator.succeeds("vsfwctl hosts show node-7")
    wait_until(lambda: [host["in_sync"] for host in operator.hosts()] == [True], "the host", DEADLINE_S)
    (upgrade,) = commands("manager_stub/OPERATE.md", "Another version")
    operator.says(upgrade.replace("VERSION", "HEAD"))
    operator.succeeds("vsfwctl hosts show node-7")
    assert operator.says("stat -c %a /var/backups/vsfw/before-*").strip() == "600"


def test_certificates_are_renewed_as_shown(operator: Operator) -> None:
    """The manager answers with the new one; RabbitMQ has its own."""
    before = operator.says(f"cat {STATE}/broker.crt")
    operator.follows("manager_stub/OPERATE.md", "Certificates")
    assert operator.says("cat /etc/rabbitmq/broker.crt") != before
    operator.succeeds("vsfwctl hosts")


def test_a_lost_password_is_made_anew_as_shown(operator: Operator) -> None:
    """It is printed, and opens the manager; the one before does not."""
    (printed,) = operator.follows("manager_stub/OPERATE.md", "A lost password")
    lost, operator.knows["VSFWCTL_PASSWORD"] = operator.knows["VSFWCTL_PASSWORD"], printed.strip()
    assert lost != printed.strip()
    operator.succeeds("vsfwctl hosts")


def test_the_firewall_is_taken_off_as_shown(operator: Operator) -> None:
    """The daemon has ended, and its port guard is gone."""
    operator.follows("vsfwd/OPERATE.md", "No firewall any more")
    assert operator.machine.show("vsfwd", "ActiveState") == "inactive"
    assert "table bridge vsfwd" not in operator.says("nft list tables")
