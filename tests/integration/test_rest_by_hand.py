"""The requests that api/README.md and CONCEPTS.md of the manager show, as they stand there, by a shell."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.documents import by_shell, commands
from tests.harness.manager import Served, served

pytestmark = pytest.mark.slow

VM = "11111111-0000-4000-8000-000000000001"
VNIC = "22222222-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("manager")) as manager:
        card = {"id": VNIC, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1"]}
        vm = {"display_name": "web", "vnics": [card]}
        manager.rest.put(f"/api/v1/vsfw/vms/{VM}", json=vm).raise_for_status()
        yield manager


def filled(manager: Served, block: str) -> str:
    """With what stands for something of the installation put in."""
    saved = manager.rest.get("/api/v1/vsfw/configurations").json()["results"]
    values = {"HOST:PORT": manager.url.removeprefix("https://"), "DIR/ca.crt": manager.ca}
    values |= {"PASSWORD": manager.password, "EXTERNAL_ID": VM, "VNIC": VNIC}
    values |= {f"/ID{end}": f"/{saved[0]['id']}{end}" for end in "?/" if saved}
    for placeholder, value in values.items():
        block = block.replace(placeholder, value)
    return block


def test_every_command_does_what_it_says(manager: Served) -> None:
    """One after the other, each without an error; what they ask for is in the answer."""
    about, *examples = commands("manager_stub/api/README.md", "By hand")
    examples += commands("manager_stub/CONCEPTS.md", "Traceflow")
    said = []
    for block in examples:
        done = by_shell(filled(manager, about + block), {})
        assert (done.returncode, done.stderr) == (0, ""), block
        said.append((block, answers(done.stdout)))
    told = {
        word: answer
        for word in ("tiers", "drafts", "configurations", "audit-log", "exclude-list", "traceflows")
        for answer in reversed(said)
        if f"/{word}" in answer[0]
    }
    assert len(told) == 6
    section = told["tiers"][1][-1]
    assert [(rule["id"], rule["logged"]) for rule in section["rules"]] == [("in", True)]
    diff, dry_run = told["drafts"][1][-2:]
    assert [each["path"].rpartition("/")[2] for each in diff["results"]] == ["quarantine", "all"]
    assert (dry_run["changed"], dry_run["hosts"]) == (0, [])
    saved, undone = told["configurations"][1][-2:]
    assert (saved["results"][0]["display_name"], undone) == ("before the move", {"results": []})
    (changes,) = told["audit-log"][1]
    assert [(each["user"], each["after"].get("logged")) for each in changes["results"]] == [
        (manager.user, True),
        (manager.user, None),
    ]
    (found, list_) = told["exclude-list"][1]
    assert [each["external_id"] for each in found["results"]] == [VM]
    assert list_["members"] == []
    path = {"path": "/infra/settings/firewall/security/exclude-list"}
    changes = manager.rest.get("/api/v1/vsfw/audit-log", params=path).json()
    lists = [each["after"].get("members", []) for each in changes["results"]]
    assert lists[:2] == [[], [f"/vsfw/vms/{VM}"]]
    observed = told["traceflows"][1][-1]["results"]
    assert observed[0]["lport_id"] == VNIC
    quarantine = "/policy/api/v1/infra/domains/default/security-policies/quarantine"
    assert manager.rest.get(quarantine).is_success


def answers(text: str) -> list[Any]:
    """The JSON documents of an output, one behind the other."""
    found, decoder = [], json.JSONDecoder()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found
