"""nsxctl, a command line for NSX's groups, tags and firewall, drives a running manager over TLS."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.manager import Served, served

pytestmark = pytest.mark.slow

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"
CHANGES = {
    "groups": [{"id": "web", "criteria": "tag:tier=web"}, {"id": "nets", "criteria": "ip:10.0.0.0/8"}],
    "rules": [
        {
            "id": "in",
            "policy": "shop",
            "source": ["nets"],
            "destination": ["web"],
            "services": ["HTTP"],
            "action": "ALLOW",
        }
    ],
}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a VM and a section without rules."""
    with served(tmp_path_factory.mktemp("manager")) as manager:
        vm = {"display_name": "shop1", "vnics": [{"id": VNIC, "mac": "02:00:00:00:00:01"}]}
        manager.rest.put(f"/api/v1/vsfw/vms/{VM}", json=vm).raise_for_status()
        section = "/policy/api/v1/infra/domains/default/security-policies/shop"
        manager.rest.put(section, json={"display_name": "shop"}).raise_for_status()
        yield manager


@pytest.fixture(scope="module")
def home(manager: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with its inventory of managers, and whatever else it keeps."""
    home = tmp_path_factory.mktemp("nsxctl")
    host, port = manager.url.removeprefix("https://").split(":")
    named = {"name": "lm", "role": "lm", "host": host, "port": int(port), "auth": "session"}
    trust = {"verify_ssl": True, "ca_bundle": manager.ca, "username_env": "USER_", "password_env": "PASS_"}
    (home / "inventory.json").write_text(json.dumps({"managers": [named | trust]}))
    (home / "changes.json").write_text(json.dumps(CHANGES))
    return home


@pytest.fixture(scope="module")
def nsxctl(manager: Served, home: Path) -> Run:
    """A command's output; it has to succeed."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_CA_BUNDLE")}
    env = kept | {"HOME": str(home), "USER_": manager.user, "PASS_": manager.password}

    def run(*words: str, writing: bool = False) -> str:
        argv = [sys.executable, "-m", "nsx_toolkit", "--non-interactive", "--no-color", "--store", "none"]
        argv += ["--inventory", str(home / "inventory.json"), *words]
        argv += ["--enable-writes", "--yes"] if writing else []
        done = subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_logs_in_and_finds_what_it_reads(nsxctl: Run) -> None:
    """With a session; groups, sections, VMs."""
    assert "All OK." in nsxctl("status")


@pytest.mark.parametrize(
    "words",
    [
        *("alarms", "cert list", "segment list", "edge list", "gw-policy list", "context-profile list"),
        *("projects", "compliance", "rule search --ip 10.0.0.1", "trace shop1 shop1 --static"),
        "terraform export",
    ],
)
def test_it_reads_what_is_there_and_what_is_not(nsxctl: Run, words: str) -> None:
    """Also lists of what an NSX would have: they are empty, and nothing is skipped."""
    assert "skipped" not in nsxctl(*words.split())


def test_it_makes_what_a_file_says(nsxctl: Run, manager: Served) -> None:
    """Groups and a rule; the same again changes nothing; and what differs from a snapshot of before."""
    nsxctl("snapshot", "save", "before")
    assert "matches the snapshot exactly" in nsxctl("drift")
    assert "3 applied, 0 failed" in nsxctl("apply", "changes.json", writing=True)
    rule = manager.rest.get("/policy/api/v1/infra/domains/default/security-policies/shop/rules/in").json()
    assert (rule["source_groups"], rule["services"]) == (
        ["/infra/domains/default/groups/nets"],
        ["/infra/services/HTTP"],
    )
    assert "nothing to do" in nsxctl("apply", "changes.json", writing=True).lower()
    assert "ADDED rule in" in nsxctl("drift")


def test_it_tags_vms_and_shows_the_groups_they_are_in(nsxctl: Run, home: Path) -> None:
    """By a file of tags; then the group of the VM, and the VM of the group."""
    nsxctl("group", "create", "db", "--criteria", "tag:tier=db", writing=True)
    (home / "tags.csv").write_text("vm_name,scope,tag,action\nshop1,tier,db,add\n")
    assert "+1" in nsxctl("tag", "apply", "tags.csv", writing=True)
    assert "groups/db" in nsxctl("vm", "groups", "shop1")
    assert "shop1" in nsxctl("group", "show", "db")
