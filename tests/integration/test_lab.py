"""`./run lab` as a person or a script uses it: what it prints and returns, and that nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import lab as harness
from tests.harness.documents import by_shell, checkout, commands
from tests.harness.lab import World
from vagrant.lab import state
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

NAME = harness.name_of("cli")
COMMAND = (sys.executable, "-m", "vagrant.lab")
ENFORCED = """
enforced() { for _ in $(seq 600); do
  .venv/bin/vsfwctl hosts --json | grep -q '"in_sync": false' || return 0; sleep 0.1
done; }
"""
"""What a person at the shell is slow enough for: hosts are told a moment after the manager has answered."""


def lab(*arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(*arguments), capture_output=True, text=True, timeout=timeout_s)


def shared(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command on the lab that the end-to-end tests share."""
    return subprocess.run([*COMMAND, "--name", harness.NAME, *arguments], capture_output=True, text=True)


def argv(*arguments: str) -> list[str]:
    return [*COMMAND, "--name", NAME, *arguments]


def left() -> list[str]:
    """Whatever a lab of this name has on this machine."""
    namespaces = [str(path) for path in Path("/run/netns").glob(f"vsfw-{NAME}-*")]
    directory = Path(f"/run/vsfw-{NAME}")
    return namespaces + harness.root_devices(NAME) + ([str(directory)] if directory.exists() else [])


@pytest.fixture
def nothing() -> Iterator[None]:
    """Before and after the test."""
    lab("down")
    assert left() == []
    yield
    lab("down")
    assert left() == []


@pytest.fixture
def up(shared_world: World) -> dict[str, Any]:
    """What `status --json` says of the lab that the end-to-end tests share."""
    status: dict[str, Any] = json.loads(shared("status", "--json").stdout)
    return status


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--vm", "a@host9"], "no host 'host9'"),
        (["--vm", "a", "--vm", "a"], "VM 'a' already"),
        (["--segment", "blue=0"], "VNI"),
        (["--hosts", "0"], "--hosts 0"),
        (["--default", "maybe"], "maybe"),
    ],
)
def test_bad_input_is_named_and_starts_nothing(nothing: None, options: list[str], named: str) -> None:
    """One line on standard error, a status that is not 0."""
    done = lab("up", *options)
    assert done.returncode != 0
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert left() == []


def test_a_name_is_no_path(nothing: None) -> None:
    """A lab's name becomes part of paths that are removed: only letters and digits are taken."""
    done = subprocess.run([*COMMAND, "--name", "../etc", "down"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "'../etc'" in done.stderr


def test_without_a_lab_commands_say_so(nothing: None) -> None:
    """And `down` is content."""
    for command in (["status"], ["exec", "web", "--", "true"], ["migrate", "web", "host1"]):
        done = lab(*command)
        assert done.returncode == 1
        assert "is not up" in done.stderr
    assert lab("down").returncode == 0


def test_status_names_everything_a_script_needs(up: dict[str, Any]) -> None:
    """The keys are a promise."""
    assert up["manager"].keys() >= {"url", "ca", "user", "password"}
    assert up["manager"]["running"] is up["broker"]["running"] is True
    assert up["broker"]["url"].startswith("amqps://")
    assert up["hosts"].keys() == {"host1", "host2"}
    for host in up["hosts"].values():
        assert {"id", "namespace", "pid", "socket", "pins"} <= host.keys()
        assert Path(host["socket"]).is_socket()
        assert Path(host["pins"]).is_dir()
        os.kill(host["pid"], 0)
        assert host["agents"].keys() == {"context-agent", "control-plane-agent"}
        assert Path(host["guests"]).is_dir()
    e = up["vms"]["e"]
    assert e.keys() >= {"id", "vnic", "namespace", "host", "device", "mac", "addresses"}
    assert (e["host"], e["segment"], e["tags"]) == ("host2", "blue", ["tier|web", "linux"])
    assert up["segments"]["blue"] == {"vni": 77}
    assert up["clusters"] == {"c": ["host1", "host2"]}


def test_status_is_a_table_for_people(up: dict[str, Any]) -> None:
    """Every host and VM is in it."""
    shown = shared("status")
    assert shown.returncode == 0
    for word in ("host1", "host2", "tier|web linux", "10.20.1.14", up["manager"]["url"]):
        assert word in shown.stdout


def test_the_device_carries_the_vnic_s_name(up: dict[str, Any]) -> None:
    """The host's end of the veth says whose it is: a vsfwd with no memory recognises it."""
    e = up["vms"]["e"]
    namespace = up["hosts"]["host2"]["namespace"]
    show = ["ip", "-n", namespace, "-json", "link", "show", e["device"]]
    link = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)[0]
    assert link["ifalias"] == f"vsfwd:{e['vnic']}"


def test_exec_runs_inside_and_passes_the_status_on(up: dict[str, Any]) -> None:
    """The VM's own address, the program's own exit status, its own options."""
    addresses = shared("exec", "e", "--", "ip", "-br", "addr", "show", "eth0").stdout
    assert all(address in addresses for address in up["vms"]["e"]["addresses"])
    assert shared("exec", "e", "--", "sh", "-c", "exit 7").returncode == 7
    assert shared("exec", "e", "ping", "-c1", up["vms"]["e"]["addresses"][0]).returncode == 0
    missing = shared("exec", "e", "--", "nosuch", "it's")
    assert (missing.returncode, "nosuch" in missing.stderr) == (127, True)
    unknown = shared("exec", "nobody", "--", "true")
    assert unknown.returncode == 1
    assert "no VM 'nobody'" in unknown.stderr


def test_a_killed_manager_is_shown_and_started_again(shared_world: World) -> None:
    """Both forms of `status` say it; `start manager` returns when it answers, and refuses one that runs."""
    try:
        shared_world.lab.manager.kill()
        assert json.loads(shared("status", "--json").stdout)["manager"]["running"] is False
        assert f"{shared_world.lab.access.url} (stopped)" in shared("status").stdout
    finally:
        again = shared("start", "manager")
    assert again.returncode == 0, again.stderr
    assert json.loads(shared("status", "--json").stdout)["manager"]["running"] is True
    assert "the manager is running, pid" in shared("start", "manager").stderr


def test_the_broker_is_stopped_and_started(shared_world: World) -> None:
    """As the manager and a host's vsfwd are; what is not running is not stopped."""
    try:
        stopped = shared("stop", "broker")
        assert stopped.returncode == 0, stopped.stderr
        assert json.loads(shared("status", "--json").stdout)["broker"]["running"] is False
        assert "the broker is not running" in shared("stop", "broker").stderr
    finally:
        again = shared("start", "broker")
    assert again.returncode == 0, again.stderr
    assert "the broker is running, pid" in shared("start", "broker").stderr
    shared_world.lab.wait_applied()
    assert "no host 'host9'" in shared("stop", "host9").stderr


def test_a_lab_that_is_up_is_not_made_again(up: dict[str, Any]) -> None:
    """Refused, and it stays as it is."""
    again = shared("up")
    assert again.returncode == 1
    assert "is up" in again.stderr
    assert json.loads(shared("status", "--json").stdout) == up


def test_a_move_that_cannot_be_is_named(up: dict[str, Any]) -> None:
    """Unknown names, and a VM that is there already; it stays where it is."""
    for vm, host, named in (("e", "host9", "no host 'host9'"), ("z", "host1", "no VM 'z'")):
        assert named in shared("migrate", vm, host).stderr
    there = shared("migrate", "e", "host2")
    assert (there.returncode, "VM e is on host2 already" in there.stderr) == (1, True)
    assert json.loads(shared("status", "--json").stdout) == up


def test_a_vm_is_moved_there_and_back(up: dict[str, Any]) -> None:
    """`status` says where it is, and nothing else is otherwise."""
    moved = shared("migrate", "e", "host1")
    assert moved.returncode == 0, moved.stderr
    assert json.loads(shared("status", "--json").stdout)["vms"]["e"] == {**up["vms"]["e"], "host": "host1"}
    assert shared("migrate", "e", "host2").returncode == 0
    assert json.loads(shared("status", "--json").stdout) == up


def test_a_killed_vsfwd_is_started_again(up: dict[str, Any]) -> None:
    """One that runs is not, and is named."""
    pid = up["hosts"]["host2"]["pid"]
    assert f"pid {pid}" in shared("start", "host2").stderr
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: vsfwd_of("host2") is None, "vsfwd of host2 is gone")
    assert shared("start", "host2").returncode == 0
    assert vsfwd_of("host2") not in (None, pid)


def test_a_killed_agent_is_shown_and_started_again(up: dict[str, Any]) -> None:
    """By itself, while vsfwd and the other one run on."""
    before = up["hosts"]["host2"]["agents"]
    os.kill(before["context-agent"], signal.SIGKILL)
    wait_until(lambda: agents_of("host2")["context-agent"] is None, "the agent is gone")
    assert "no context-agent" in shared("status").stdout
    assert shared("start", "host2").returncode == 0
    again = agents_of("host2")
    assert again["context-agent"] not in (None, before["context-agent"])
    assert again["control-plane-agent"] == before["control-plane-agent"]
    assert vsfwd_of("host2") == up["hosts"]["host2"]["pid"]


def agents_of(host: str) -> dict[str, int | None]:
    found: dict[str, int | None]
    found = json.loads(shared("status", "--json").stdout)["hosts"][host]["agents"]
    return found


def vsfwd_of(host: str) -> int | None:
    found: int | None = json.loads(shared("status", "--json").stdout)["hosts"][host]["pid"]
    return found


def test_secrets_are_for_root_alone(up: dict[str, Any]) -> None:
    """The directory lets nobody else in; no password stands in a process list."""
    assert Path(f"/run/vsfw-{harness.NAME}").stat().st_mode & 0o777 == 0o700
    secret = up["manager"]["password"].encode()
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    assert lines
    assert not [line for line in lines if secret in line]


def test_no_secret_stands_in_a_log(up: dict[str, Any]) -> None:
    """CVE-2026-41184, GHSA-fcmh-qfxc-w685: no password, no private key in what manager, broker and hosts
    write."""
    directory = Path(f"/run/vsfw-{harness.NAME}")
    secrets = {up["manager"]["password"].encode()}
    for path in directory.rglob("*"):
        if path.name == "broker-admin":
            secrets.add(path.read_bytes().strip())
        elif path.suffix == ".key" and path.is_file():
            secrets |= {line for line in path.read_bytes().split() if len(line) > 40}
    logs = list(directory.rglob("*.log"))
    assert len(secrets) > 6
    assert len(logs) > 3
    assert not [path for path in logs if any(secret in path.read_bytes() for secret in secrets)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["network", "broker", "vsfwd", "VMs"])
def test_what_a_killed_run_leaves_is_removed(nothing: None, moment: str) -> None:
    """SIGKILL while `up` is at work, at four moments: `down` finds and removes all of it, pins too."""
    kill_up_at(moment)
    assert left() != []
    pins = pinned()
    assert pins or moment != "VMs"
    done = lab("down")
    assert done.returncode == 0, done.stderr
    assert left() == []
    assert not any(path.exists() for path in pins)


@pytest.mark.slow
def test_the_tour_goes_as_it_is_told(nothing: None, tmp_path: Path) -> None:
    """Every command of the tour, in one shell; it begins by removing what a killed run left. What fails are
    the pings that are told to: before there is a rule, while there is another, to a VM that has none."""
    kill_up_at("vsfwd")
    script = "".join(commands("vagrant/README.md", "A tour"))
    for shown, here in {
        "./run lab ": f"./run lab --name {NAME} ",
        "/run/vsfw-lab/": f"/run/vsfw-{NAME}/",
        "/tmp/policy.yaml": f"{tmp_path}/policy.yaml",
        "vsfwctl apply ": "vsfwctl apply --yes ",
        "ping -c1 -W1 ": "ping -c1 -w5 ",
    }.items():
        assert shown in script
        script = script.replace(shown, here)
    there = tmp_path / "checkout"
    there.mkdir()
    script = re.sub("^(?=.* ping )", "enforced; ", script, flags=re.MULTILINE)
    told = f"set +e -E\ntrap 'echo \"$BASH_COMMAND\" >> {tmp_path}/failed' ERR\n{ENFORCED}{script}"
    done = by_shell(told, {}, cwd=checkout(there), env={**os.environ, "PYTHONPATH": str(there)})
    ping = f"./run lab --name {NAME} exec client -- ping -c1 -w5 10.20.0.1"
    assert (tmp_path / "failed").read_text().splitlines() == [f"{ping}{last}" for last in "001"], done.stderr
    assert "left behind" in done.stderr
    for words in ("ping-web", "1 changed", "undone", "alice", "controllers", "host2"):
        assert words in done.stdout
    assert left() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_cleans_up_after_itself(nothing: None, number: signal.Signals) -> None:
    """Ctrl-C, or asked to end: nothing is left for anybody to remove."""
    process = up_until("broker")
    process.send_signal(number)
    assert process.wait(timeout=60) != 0
    assert left() == []


def kill_up_at(moment: str) -> None:
    process = up_until(moment)
    process.kill()
    process.wait(timeout=10)


def up_until(moment: str) -> "subprocess.Popen[str]":
    """`up`, as soon as it says that it begins with the step of this name."""
    process = subprocess.Popen(argv("up", "--hosts", "1", "--vm", "a"), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    watchdog = threading.Timer(150, process.kill)
    watchdog.start()
    said = ""
    while f"==> {moment}" not in said:
        character = process.stderr.read(1)
        assert character, f"up ended before {moment!r}: {said}"
        said += character
    watchdog.cancel()
    return process


def pinned() -> list[Path]:
    """Where the hosts of the lab pin."""
    known = state.load(NAME)
    return [host.pins for host in known.layout.hosts if host.pins.exists()] if known else []
