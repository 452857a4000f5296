"""What an NSX manager exported: taken as it means, all or nothing."""

import asyncio
import threading
from typing import Any

import pytest

from manager_stub.api import policy_file
from manager_stub.api.errors import Problem
from manager_stub.api.imports import imported as imported_in_time
from manager_stub.api.imports.report import Import
from tests.unit.manager.nsx_export import (
    DEFAULTS,
    GROUP,
    GROUPS,
    IMPORT,
    SECTION,
    below,
    export,
    faulty,
    imported,
    nsx,
    rule,
)
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager


async def test_what_has_a_counterpart_is_taken_and_nothing_is_left_out(manager: Manager) -> None:
    """Groups, services with entries below them, schedules, segments, sections, rules, what is predefined; the
    same export again changes nothing."""
    answer = await manager.call("POST", IMPORT, export())
    assert answer["left_out"] == []
    assert answer["metadata"]["unique_id"] == 13
    assert answer["metadata"]["profiles"] == 4
    assert answer["metadata"]["Service predefined here too"] == 1
    section = await manager.call("GET", f"{DOMAIN}/security-policies/web")
    assert [each["id"] for each in section["rules"]] == ["in", "out"]
    assert section["tcp_strict"] is False
    group = await manager.call("GET", f"{DOMAIN}/groups/web")
    assert len(group["expression"]) == 5
    service = await manager.call("GET", f"{INFRA}/services/alt")
    assert service["service_entries"][0]["destination_ports"] == ["8080"]
    default = await manager.call("GET", f"/policy/api/v1{DEFAULTS}/rules/default-layer3-rule")
    assert (default["action"], default["logged"]) == ("DROP", True)
    stored = manager.stored()
    assert (await manager.call("POST", IMPORT, export()))["results"] == []
    assert manager.stored() == stored


async def test_what_is_here_already_stays(manager: Manager) -> None:
    """Where the export does not have it."""
    await manager.call("PUT", f"{DOMAIN}/groups/mine", {})
    await manager.call("POST", IMPORT, export())
    await manager.call("GET", f"{DOMAIN}/groups/mine")


async def test_sections_and_rules_by_their_older_names_are_the_same(manager: Manager) -> None:
    """CommunicationMap with `precedence`, CommunicationEntry below it or in its list, as before NSX-T 2.4."""
    tree = export()
    domain = below(tree, "Domain:default")
    domain["children"] = [each for each in domain["children"] if "SecurityPolicy" not in each]
    entries = [rule(id, sequence_number=number)["Rule"] for id, number in (("in", 1), ("out", 2))]
    for entry in entries:
        entry["resource_type"] = "CommunicationEntry"
        for newer in ("profiles", "sources_excluded", "destinations_excluded", "ip_protocol", "rule_id"):
            del entry[newer]
    child = {"resource_type": "ChildCommunicationEntry", "CommunicationEntry": entries[1]}
    fields = {"category": "Emergency", "precedence": 7, "communication_entries": entries[:1]}
    domain["children"].append(nsx("CommunicationMap", "web", **fields, children=[child]))
    answer = await manager.call("POST", IMPORT, tree)
    assert answer["left_out"] == []
    section = await manager.call("GET", f"{DOMAIN}/security-policies/web")
    assert (section["category"], section["sequence_number"], section["tcp_strict"]) == ("Emergency", 7, False)
    assert [each["id"] for each in section["rules"]] == ["in", "out"]
    reference = {"resource_type": "ChildResourceReference", "target_type": "CommunicationMap", "id": "web"}
    changed = child | {"CommunicationEntry": entries[1] | {"action": "DROP"}}
    domain["children"] = [reference | {"children": [changed]}]
    answer = await manager.call("POST", IMPORT, tree)
    assert [each["path"] for each in answer["results"]] == [f"{SECTION}/rules/out"]


async def test_an_import_can_wait_to_be_confirmed(manager: Manager) -> None:
    """With confirm_within it is undone like any publish; one that changes nothing waits for nobody."""
    before = await manager.call("GET", f"{VSFW}/policy")
    assert (await manager.call("POST", f"{IMPORT}?confirm_within=600", export()))["results"]
    assert (await manager.call("GET", f"{VSFW}/publish"))["waiting"]
    await manager.call("POST", f"{VSFW}/publish?action=roll_back")
    assert await manager.call("GET", f"{VSFW}/policy") == before
    await manager.call("POST", IMPORT, export())
    await manager.call("POST", f"{IMPORT}?confirm_within=600", export())
    assert not (await manager.call("GET", f"{VSFW}/publish"))["waiting"]


async def test_an_export_of_a_part_goes_by_references(manager: Manager) -> None:
    """As with a filter for rules only: the section is here already."""
    await manager.call("PUT", f"{DOMAIN}/security-policies/web", {})
    section = {"resource_type": "ChildResourceReference", "target_type": "SecurityPolicy", "id": "web"}
    only = rule("in", destination_groups=["ANY"])
    domain = {
        "resource_type": "ChildResourceReference",
        "target_type": "Domain",
        "id": "default",
        "children": [section | {"children": [only]}],
    }
    answer = await manager.call("POST", IMPORT, {"resource_type": "Infra", "children": [domain]})
    assert answer["left_out"] == []
    assert [each["path"] for each in answer["results"]] == [f"{SECTION}/rules/in"]
    domain["children"] = [section | {"id": "none", "children": [only]}]
    answer = await manager.call("POST", IMPORT, {"resource_type": "Infra", "children": [domain]})
    assert "belongs to" in answer["left_out"][0]["why"]


async def test_an_import_takes_no_longer_than_it_is_large(manager: Manager) -> None:
    """A chain of groups whose last one is not there: the steps grow with the export, not with its square, and
    before each it is asked whether there is time for it."""
    steps = 0

    def check() -> None:
        nonlocal steps
        steps += 1

    size = 3000
    tree = export()
    chain = [f"{GROUPS}/g{i}" for i in range(size + 1)]
    below(tree, "Domain:default")["children"] += [
        nsx("Group", f"g{i}", expression=[{"resource_type": "PathExpression", "paths": [chain[i + 1]]}])
        for i in range(size)
    ]
    taken = len(imported(manager.register.world, export()).put)
    found = imported_in_time(manager.register.world, tree, check)
    assert {line.path for line in found.left_out} == set(chain[:-1])
    assert len(found.left_out) == size
    assert len(found.put) == taken
    assert size < steps < 4 * size


async def test_what_changes_while_an_export_is_read_is_not_overwritten(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read beside the thread that publishes, which goes on meanwhile: 412, and the other's change
    stays."""
    begun, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def slow(*arguments: Any) -> Import:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)
        return imported_in_time(*arguments)

    monkeypatch.setattr(policy_file, "imported", slow)
    reading = asyncio.create_task(manager.answer("POST", IMPORT, export()))
    await begun.wait()
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"description": "meanwhile"})
    go_on.set()
    assert (await reading).status_code == 412
    assert (await manager.call("GET", f"{DOMAIN}/groups/web"))["description"] == "meanwhile"


async def test_what_is_no_export_or_cannot_be_changes_nothing(manager: Manager) -> None:
    """Refused whole, with the reason; and so is what is not any more what was shown."""
    before = manager.stored()
    cycle = export()
    paths = {"resource_type": "PathExpression", "paths": [f"{GROUPS}/web"]}
    below(cycle, GROUP)["expression"] = [paths]
    for tree, query, status, said in (
        ({"results": []}, "", 400, "no hierarchical export"),
        (cycle, "", 400, "members of each other"),
        (export(), f"?digest={'0' * 64}", 412, "is not what it was"),
    ):
        answer = await manager.answer("POST", f"{IMPORT}{query}", tree)
        assert answer.status_code == status
        assert said in answer.json()["error_message"]
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(Problem):
        imported(manager.register.world, faulty(GROUP, {"tags": deep}))
    assert manager.stored() == before
