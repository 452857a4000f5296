"""What `vagrant up` does in the guest, under a systemd that has booted: broker, manager, host, and VMs behind
the firewall. The software is there already, as a package would lay it."""

import os
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from tests.harness.booted import SOURCE, Machine, booted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

ADDRESS: Final = "198.18.250.1"
SETTINGS: Final = "/root/.config/vsfwctl/manager.toml"
PASSWORD: Final = "of-this-test-and-long-enough"
WEB, DATABASE = "10.20.0.10", "10.20.0.12"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    namespace = f"vsfw-provision-{os.getpid()}"
    ip(f"netns add {namespace}")
    try:
        for line in ("link set lo up", "link add eth1 up type bridge", f"addr add {ADDRESS}/24 dev eth1"):
            ip(f"-n {namespace} {line}")
        with booted(tmp_path_factory.mktemp("provision"), namespace) as machine:
            machine.run("hostname", "host1")
            (machine.root / "etc/hosts").write_text("127.0.0.1 localhost host1\n")
            machine.run("systemd-sysusers")
            machine.run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/vsfwd.conf")
            interrupted(machine)
            provision(machine)
            yield machine
    finally:
        ip(f"netns delete {namespace}")


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def provision(machine: Machine) -> None:
    scripts = SOURCE / "vagrant" / "machine"
    machine.run("env", f"VSFW_PASSWORD={PASSWORD}", str(scripts / "manager.sh"), ADDRESS)
    machine.run(str(scripts / "host.sh"), "host1")
    machine.run(str(scripts / "tiers.sh"), f"host1={ADDRESS}")


def interrupted(machine: Machine) -> None:
    """As an earlier run leaves it that ended within `vsfw-manager init`, or one within `vsfwctl enroll`."""
    state = "/var/lib/vsfw-manager"
    machine.run("install", "-d", "-o", "vsfw-manager", "-m", "700", state)
    machine.run("touch", f"{state}/ca.key", f"{state}/manager.db", "/etc/vsfwd/host/host.pem")


def ping(machine: Machine, target: str) -> str:
    client = ["ip", "netns", "exec", "vsfw-tiers-vm-client"]
    return machine.run(*client, "ping", "-c1", "-w5", target, check=False)


def enforced(machine: Machine) -> bool:
    return "1 received" in ping(machine, WEB) and "Packet filtered" in ping(machine, DATABASE)


def secret_files(machine: Machine) -> dict[str, str]:
    """What a second run must not make anew: the host's identity, the manager's authority, the password."""
    paths = ("/etc/vsfwd/host/host.pem", "/var/lib/vsfw-manager/ca.crt", SETTINGS)
    return {path: machine.run("cat", path) for path in paths}


def test_the_three_tier_policy_is_enforced(machine: Machine) -> None:
    """The client reaches the web server; it is told that it may not reach the database."""
    assert enforced(machine)


def test_root_asks_the_manager_without_saying_where_it_is(machine: Machine) -> None:
    """Its settings for vsfwctl are there, with the password that was wished; nobody else reads it in them."""
    assert "host1" in machine.run("vsfwctl", "hosts")
    assert PASSWORD in machine.run("cat", SETTINGS)
    assert machine.run("stat", "-c", "%a", SETTINGS).strip() == "600"


def test_whoever_takes_the_daemon_over_changes_nothing_that_root_believes(machine: Machine) -> None:
    """All that is in /etc/vsfwd is root's, the directory too, but for the host's own key and certificate: the
    manager's configuration, its authority for root's vsfwctl, the environment of a unit."""
    assert {"manager.toml", "manager-ca.crt", "tiers"} <= set(machine.run("ls", "/etc/vsfwd").split())
    own = machine.run("find", "/etc/vsfwd", "!", "-user", "root").split()
    assert sorted(own) == ["/etc/vsfwd/host", "/etc/vsfwd/host/host.pem"]
    assert machine.run("find", "/etc/vsfwd", "-perm", "/022", "!", "-type", "l") == ""


def test_everything_comes_back_after_a_boot(machine: Machine) -> None:
    """Each unit is started by its target, and the VMs are made anew."""
    units = ("rabbitmq-server", "vsfwd-manager", "vsfwd", "vsfw-tiers")
    assert machine.systemctl("is-enabled", *units).split() == ["enabled"] * len(units)
    machine.systemctl("restart", "vsfw-tiers")
    assert enforced(machine)


def test_provisioning_again_changes_nothing(machine: Machine) -> None:
    """Same host, same authority, same password; the broker is not started anew, and the policy holds."""
    secrets, broker = secret_files(machine), machine.pid("rabbitmq-server")
    provision(machine)
    assert secret_files(machine) == secrets
    assert machine.pid("rabbitmq-server") == broker
    assert enforced(machine)


@pytest.mark.deep
def test_a_lost_password_is_made_anew(machine: Machine) -> None:
    """Without root's settings, as after a first run that was interrupted."""
    machine.run("rm", SETTINGS)
    provision(machine)
    assert "host1" in machine.run("vsfwctl", "hosts")
    assert PASSWORD in machine.run("cat", SETTINGS)


@pytest.mark.deep
def test_another_machine_gets_its_settings_from_the_manager(machine: Machine) -> None:
    """It says where the manager is, and the password: that is enough for vsfwctl."""
    before = machine.run("cat", SETTINGS)
    machine.run("rm", SETTINGS)
    script = str(SOURCE / "vagrant/machine/settings.sh")
    machine.run("env", f"VSFW_PASSWORD={PASSWORD}", script, ADDRESS)
    assert machine.run("cat", SETTINGS) == before
    assert "host1" in machine.run("vsfwctl", "hosts")
