"""Capacity grows by adding hosts: one that comes enforces the policy there is within seconds; and what nobody
may read stands nowhere while all this goes on."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.lab import name_of
from vagrant.lab.lab import Lab
from vagrant.lab.probe import Attempt, Protocol, Seen, Servers, probe_all
from vagrant.lab.processes import in_namespace, recall
from vagrant.lab.rest import put
from vagrant.lab.spec import parse
from vagrant.lab.waiting import wait_until

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0
"""Of a machine with other work; alone it is a tenth of that."""
PRIVATE = re.compile(rb"-----BEGIN[A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
GROUPS = "/infra/domains/default/groups"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One host with one VM, and a policy that allows web to be reached on port 80 only."""
    with Lab.up(parse(hosts=1, vms=["client@host1"]), name_of("grow")) as lab:
        condition = {
            "resource_type": "Condition",
            "member_type": "VirtualMachine",
            "key": "Tag",
            "operator": "EQUALS",
            "value": "role|web",
        }
        put(lab.rest, "domains/default/groups/web", {"expression": [condition]})
        http = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["80"]}
        rule = {
            "id": "web",
            "action": "ALLOW",
            "destination_groups": [f"{GROUPS}/web"],
            "service_entries": [http],
        }
        section = {"category": "Application", "rules": [rule]}
        lab.publish({"domains/default/security-policies/web": section})
        yield lab


@pytest.mark.timeout(240)
def test_a_new_host_enforces_its_policy_within_seconds(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Enrolled with a token, vsfwd started with what that left on disk, and a VM plugged: what the policy
    allows passes and the rest does not, over both families, with no further step on any side. How long it
    took is printed."""
    begun = time.monotonic()
    host = lab.add_host("web#role|web")
    web, client = lab.vm("web"), lab.vm("client")
    assert web.host == host.name == "host2"
    with Servers(web.namespace, (80, 81), ()):
        attempts = [
            Attempt(client.namespace, Protocol.TCP, address, port)
            for port in (80, 81)
            for address in (web.v4, web.v6)
        ]
        seen = probe_all(attempts)
    took_s = time.monotonic() - begun
    assert seen == [Seen.ALLOWED, Seen.ALLOWED, Seen.DROPPED, Seen.DROPPED]
    with capsys.disabled():
        print(f"\nfrom token to enforced policy on a new host: {took_s:.1f} s")
    names = {each["display_name"]: each for each in lab.rest.get("/api/v1/vsfw/hosts").json()["results"]}
    assert names["host2"]["id"] == host.id
    assert names["host2"]["in_sync"]


def secrets_of(lab: Lab) -> set[bytes]:
    """Passwords, the broker's cookie, and every line of a private key of manager, broker and hosts."""
    found = {lab.access.password.encode(), lab.access.broker_password.encode()}
    for path in lab.layout.directory.rglob("*"):
        if path.suffix in (".key", ".pem") and path.is_file():
            for key in re.findall(
                rb"-----BEGIN[A-Z ]*PRIVATE KEY-----(.*?)-----END", path.read_bytes(), re.S
            ):
                found |= {line for line in key.split() if len(line) > 20}
    found.add((lab.layout.directory / "broker" / ".erlang.cookie").read_bytes().strip())
    return found


def test_a_host_that_is_enrolled_anew_goes_on(lab: Lab) -> None:
    """Its vsfwd runs on: it loses its session when its login ends, begins the next one with what enrolment
    has left on disk, is the same host, and takes the next change."""
    host, pid = lab.host("host1"), lab.vsfwd("host1")
    assert pid is not None
    token = lab.rest.post("/api/v1/vsfw/enrolment-tokens", json={"host": host.id}).raise_for_status().json()
    argv = [sys.executable, "-m", "vsfwd.ctl", "enroll", "--again", "--manager", lab.access.url]
    argv += ["--ca-hash", token["ca_hash"], "--token-file", "-", "--directory", str(host.directory)]
    done = subprocess.run(
        in_namespace(host.namespace, argv), input=token["token"], capture_output=True, text=True, check=True
    )
    assert f"enrolled as host {host.id}" in done.stdout

    def connected() -> bool:
        shown = lab.rest.get(f"/api/v1/vsfw/hosts/{host.id}").raise_for_status().json()
        return shown["certificate"]["subject"] == f"{host.id}.2" and shown["connected"] is True

    wait_until(connected, "the host with its new login", DEADLINE_S)
    lab.set_tags("client", "role|web")
    assert lab.vsfwd("host1") == pid


def test_a_crash_leaves_no_keys_behind(lab: Lab) -> None:
    """Neither manager nor vsfwd writes a core file, wherever the machine would have put it."""
    pids = [recall(lab.manager.pid_file), *(recall(host.pid_file) for host in lab.layout.hosts)]
    for process in pids:
        assert process is not None
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)


def test_no_secret_stands_where_others_read_it(lab: Lab) -> None:
    """After a whole run: in no log, and of no process of the lab in its command line or its environment. What
    has secrets on disk is for root alone."""
    secrets = secrets_of(lab)
    assert len(secrets) > 12
    logs = [*lab.layout.directory.rglob("*.log")]
    assert len(logs) >= 4
    places = {path: path.read_bytes() for path in logs}
    for file in ("cmdline", "environ"):
        for path in Path("/proc").glob(f"[0-9]*/{file}"):
            try:
                places[path] = path.read_bytes()
            except OSError:  # gone meanwhile
                continue
    told = {path for path, text in places.items() if any(secret in text for secret in secrets)}
    assert told == set()
    directory = lab.layout.directory
    assert directory.stat().st_mode & 0o077 == 0
    for path in directory.rglob("*"):
        if path.suffix == ".key" or path.name in ("host.pem", "broker-admin", "manager.toml"):
            assert path.stat().st_mode & 0o077 == 0, path
