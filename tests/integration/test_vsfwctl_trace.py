"""vsfwctl trace with a running manager over TLS."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.manager import Served, served, vsfwctl

pytestmark = pytest.mark.slow

INFRA = "/policy/api/v1/infra"
GROUPS = "/infra/domains/default/groups"
WEB, DB, TWIN = (f"22222222-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
"""vNICs."""
Trace = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    """web may ask db for tcp/5432, and is told so if it asks for anything else; db has two names of VMs
    beside it that are the same."""
    with served(tmp_path_factory.mktemp("manager")) as manager:
        _fill(manager)

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            done = vsfwctl(manager, tmp_path_factory.getbasetemp(), "trace", *arguments)
            assert manager.rest.get("/api/v1/traceflows").json()["result_count"] == 0
            return done

        yield run


def _fill(manager: Served) -> None:
    def put(path: str, body: Any) -> None:
        manager.rest.put(path, json=body).raise_for_status()

    put(f"{INFRA}/segments/blue", {"overlay_id": 7, "display_name": "Blue"})
    vms = (("web", WEB, 1), ("db", DB, 2), ("twin", TWIN, 3), ("twin", TWIN.replace("3", "4"), 4))
    for name, vnic, number in vms:
        card: dict[str, Any] = {"id": vnic, "mac": f"02:00:00:00:00:0{number}"}
        card |= {"segment_path": "/infra/segments/blue"}
        card["addresses"] = [f"10.0.0.{number}", f"fd00::{number}"]
        vm = {"display_name": name, "vnics": [card]}
        put(f"/api/v1/vsfw/vms/11111111-0000-4000-8000-00000000000{number}", vm)
    condition = {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Name"}
    for name in ("web", "db"):
        expression = [condition | {"operator": "EQUALS", "value": name}]
        put(f"{INFRA}/domains/default/groups/{name}", {"expression": expression})
    ends = {"source_groups": [f"{GROUPS}/web"], "destination_groups": [f"{GROUPS}/db"]}
    rules = [
        {"id": "yes", "display_name": "[red]web to db", "action": "ALLOW", **ends},
        {"id": "no", "display_name": "nothing else", "action": "REJECT", **ends},
    ]
    rules[0]["services"] = ["/infra/services/PostgreSQL"]
    put(f"{INFRA}/domains/default/security-policies/tiers", {"display_name": "Tiers", "rules": rules})


def lines(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The table's cells, by two spaces and more between them."""
    return [[cell for cell in map(str.strip, line.split("  ")) if cell] for line in done.stdout.splitlines()]


def test_the_way_of_a_packet_is_a_table(trace: Trace) -> None:
    """Each vNIC with the rule that decides there and why it matches; what was asked above it, and what has to
    be known below. What others wrote is no markup."""
    done = trace("web", "db", "--port", "5432")
    assert (done.returncode, done.stderr) == (0, "")
    told = lines(done)
    assert told[0] == ["delivered", "web to db"]
    out, forwarded, into, delivered = told[2:6]
    assert out[:2] == ["web out", "allowed"]
    assert "'[red]web to db' of 'Tiers'" in out[2]
    assert out[3] == (
        "source web (VirtualMachine Name EQUALS 'web'); destination db (VirtualMachine Name EQUALS 'db')"
    )
    assert forwarded == ["Blue", "forwarded"]
    assert into[0] == "db in"
    assert delivered == ["Blue", "delivered"]
    assert any("no packet was sent" in cell for cell in told[6])


@pytest.mark.parametrize(
    ("arguments", "status", "outcome"),
    [
        (("web", "db", "--port", "80"), 6, "rejected"),
        (("web", "db"), 6, "rejected"),
        (("web", "db", "--port", "5432", "-6"), 0, "delivered"),
        (("web", "db", "--port", "5432", "--proto", "udp"), 6, "rejected"),
        (("web", "db", "--port", "5432", "--midstream"), 6, "dropped"),
        (("10.0.0.1", "10.0.0.2", "--port", "5432"), 0, "delivered"),
        (("fd00::1", "db", "--port", "5432"), 0, "delivered"),
        ((WEB, DB, "--port", "5432"), 0, "delivered"),
        (("web", "198.51.100.1", "--proto", "47"), 0, "leaves"),
        (("web", "db", "--port", "5432", "--from", "10.0.0.9"), 0, "delivered"),
    ],
)
def test_the_exit_status_says_whether_it_gets_there(
    trace: Trace, arguments: tuple[str, ...], status: int, outcome: str
) -> None:
    """In both families, by name, id and address; JSON has what the manager said."""
    done = trace(*arguments, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["outcome"]) == (status, outcome), said
    assert said["traceflow"]["lport_id"] == WEB
    assert said["observations"][0]["lport_id"] == WEB


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nobody", "db"), 1, "nobody: no VM is called so\n"),
        (("Wbe", "db"), 1, "Wbe: no VM is called so; did you mean web?"),
        (("web", "twni"), 1, "twni: no VM is called so; did you mean twin?"),
        (("twin", "db"), 1, f"twin: several vNICs, say which: {TWIN}, "),
        (("192.0.2.1", "db"), 1, "192.0.2.1: no vNIC has it"),
        (("web", "db", "--proto", "tcp"), 2, "--port: tcp and udp have one"),
        (("web", "db", "--proto", "gre"), 2, "neither tcp, udp nor icmp"),
        (("web", "db", "--from", "x"), 2, "--from: x is no address"),
        (("web", "db", "--midstream"), 2, "--midstream is about tcp"),
        (("web", "10.0.0.2", "--from", "fd00::1"), 1, "packet.ip_header.src_ip"),
    ],
)
def test_what_cannot_be_asked_is_said_by_name(
    trace: Trace, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """Nothing of that name, several, or a packet that cannot be."""
    done = trace(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
