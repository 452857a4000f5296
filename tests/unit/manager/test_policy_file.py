"""The policy as one document: what is read can be written, and writing it is all or nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager_stub.api.declared import change
from manager_stub.api.errors import Problem
from manager_stub.state_dir import StateDir
from tests.harness.manager import alone
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.ctl import policyfile

POLICY = f"{VSFW}/policy"
GROUPS = "/infra/domains/default/groups"
SECTION = f"{DOMAIN}/security-policies/s"


EMPTY: dict[str, Any] = {
    "version": 1,
    "services": [],
    "firewall-schedulers": [],
    "firewall-session-timer-profiles": [],
    "groups": [],
    "security-policies": [],
    "exclude-list": {},
}


def named(document: Any, kind: str, id: str) -> Any:
    return next(each for each in document[kind] if each["id"] == id)


def web() -> dict[str, Any]:
    """A document with one of each kind."""
    return {
        "version": 1,
        "services": [
            {
                "id": "alt",
                "service_entries": [
                    {
                        "resource_type": "L4PortSetServiceEntry",
                        "l4_protocol": "TCP",
                        "destination_ports": ["8080"],
                    }
                ],
            }
        ],
        "firewall-schedulers": [{"id": "week", "days": ["MONDAY"]}],
        "firewall-session-timer-profiles": [{"id": "short", "tcp_closed": 10}],
        "groups": [
            {
                "id": "web",
                "expression": [{"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.1"]}],
                "firewall-session-timer-profile-binding-maps": [
                    {
                        "id": "b",
                        "firewall_session_timer_profile_path": "/infra/firewall-session-timer-profiles/short",
                    }
                ],
            }
        ],
        "security-policies": [
            {
                "id": "s",
                "scheduler_path": "/infra/firewall-schedulers/week",
                "rules": [
                    {"id": "in", "action": "ALLOW", "destination_groups": [f"{GROUPS}/web"]},
                    {"id": "rest", "action": "DROP", "services": ["/infra/services/alt"]},
                ],
            }
        ],
        "exclude-list": {"members": [f"{GROUPS}/web"]},
    }


async def put(manager: Manager, document: Any, query: str = "") -> list[str]:
    """Paths that changed."""
    answer = await manager.call("PUT", f"{POLICY}{query}", document)
    return [each["path"] for each in answer["results"]]


async def refused(manager: Manager, document: Any, query: str = "") -> tuple[int, str]:
    """Status and message; nothing may have changed."""
    before = manager.stored()
    answer = await manager.answer("PUT", f"{POLICY}{query}", document)
    assert manager.stored() == before
    return answer.status_code, answer.json()["error_message"]


async def test_one_of_each_kind_comes_and_goes_by_a_document(manager: Manager) -> None:
    """All at once, references included; the document before makes the manager what it was."""
    before = await manager.call("GET", POLICY)
    assert len(await put(manager, web())) == 9
    assert (await manager.call("GET", SECTION))["rules"][1]["sequence_number"] == 1
    assert len(await put(manager, before)) == 9
    assert await manager.call("GET", POLICY) == before
    assert (await manager.answer("GET", SECTION)).status_code == 404


async def test_what_was_read_changes_nothing_when_it_is_written(manager: Manager) -> None:
    """No revision, no saved configuration, no line in the audit log; also where rules have no number or the
    same one, a section is locked, what is predefined lost its name, and an entry was added by itself."""
    await put(manager, web())
    await manager.call("PUT", f"{SECTION}/rules/alone", {"action": "DROP"})
    await manager.call("PUT", f"{SECTION}/rules/another", {"action": "REJECT"})
    await manager.call("PATCH", SECTION, {"locked": True, "comments": "mine"})
    await manager.call(
        "PATCH",
        f"{INFRA}/services/alt/service-entries/more",
        {"resource_type": "IGMPTypeServiceEntry", "display_name": "more"},
    )
    nameless = {"action": "DROP", "services": ["ANY"], "sequence_number": 2147483647, "_revision": 0}
    default = f"{DOMAIN}/security-policies/default-layer3-section/rules/default-layer3-rule"
    await manager.call("PUT", default, nameless)
    document = await manager.call("GET", POLICY)
    stored, saved = manager.stored(), await manager.call("GET", f"{VSFW}/configurations")
    log = await manager.call("GET", f"{VSFW}/audit-log")
    assert await put(manager, document, "?confirm_within=60") == []
    assert manager.stored() == stored
    assert await manager.call("GET", f"{VSFW}/configurations") == saved
    assert await manager.call("GET", f"{VSFW}/audit-log") == log
    assert await manager.call("GET", f"{VSFW}/publish") == {"waiting": False}
    ids = [rule["id"] for rule in named(document, "security-policies", "s")["rules"]]
    assert ids == ["in", "alone", "another", "rest"]


async def test_a_difference_is_shown_and_nothing_happens(manager: Manager) -> None:
    """What is new, changed and gone, by path; and the reason, where it is not possible."""
    await put(manager, web())
    document = await manager.call("GET", POLICY)
    named(document, "security-policies", "s")["rules"][0]["action"] = "REJECT"
    document["groups"].append({"id": "new"})
    stored = manager.stored()
    found = await manager.call("POST", f"{POLICY}/diff", document)
    assert [(each["path"], each["before"] is None) for each in found["results"]] == [
        (f"{GROUPS}/new", True),
        ("/infra/domains/default/security-policies/s/rules/in", False),
    ]
    assert "refused" not in found
    document["groups"] = []
    assert (
        f"there is no '{GROUPS}/web'" in (await manager.call("POST", f"{POLICY}/diff", document))["refused"]
    )
    assert manager.stored() == stored


async def test_what_was_shown_is_what_is_done(manager: Manager) -> None:
    """With the digest of the differences: when somebody changed the policy meanwhile, nothing happens."""
    digest = (await manager.call("POST", f"{POLICY}/diff", web()))["digest"]
    await manager.call("PUT", f"{DOMAIN}/groups/other", {})
    status, message = await refused(manager, web(), f"?digest={digest}")
    assert (status, "is not what it was" in message) == (412, True)
    digest = (await manager.call("POST", f"{POLICY}/diff", web()))["digest"]
    assert f"{GROUPS}/other" in await put(manager, web(), f"?digest={digest}")


async def test_a_document_can_undo_itself(manager: Manager) -> None:
    """With confirm_within, unless it is confirmed."""
    await put(manager, web(), "?confirm_within=60")
    assert (await manager.call("GET", f"{VSFW}/publish"))["waiting"]
    await manager.call("POST", f"{VSFW}/publish?action=roll_back")
    assert (await manager.answer("GET", SECTION)).status_code == 404


async def test_what_is_predefined_stays_where_it_is_not_named(manager: Manager) -> None:
    """And what is named is as shipped but for what is said."""
    await manager.call("PATCH", f"{DOMAIN}/security-policies/default-layer3-section", {"tcp_strict": False})
    assert await put(manager, EMPTY) == []
    rule = {"id": "default-layer3-rule", "action": "DROP"}
    section = {"id": "default-layer3-section", "rules": [rule]}
    changed = await put(manager, EMPTY | {"security-policies": [section]})
    assert [path.rsplit("/", 1)[1] for path in changed] == ["default-layer3-section", "default-layer3-rule"]
    after = await manager.call("GET", f"{DOMAIN}/security-policies/default-layer3-section")
    assert after["tcp_strict"] is True
    assert {each["id"]: each["action"] for each in after["rules"]} == {
        "default-layer3-rule": "DROP",
        "default-dhcp": "ALLOW",
        "default-ndp": "ALLOW",
    }


async def test_rules_stand_in_the_order_of_the_list(manager: Manager) -> None:
    """Without numbers; a number that would make it another order is refused and named."""
    await put(manager, web())
    document = web()
    section = document["security-policies"][0]
    section["rules"].reverse()
    await put(manager, document)
    assert [rule["id"] for rule in (await manager.call("GET", SECTION))["rules"]] == ["rest", "in"]
    for rule in section["rules"]:
        rule["sequence_number"] = 5
    status, message = await refused(manager, document)
    assert status == 400
    assert "rules/in: sequence_number: that of" in message


FAULTS: list[tuple[Any, str]] = [
    ({"version": 2}, "version: 2; this manager reads version 1"),
    ({"version": None}, "version: None"),
    ({"tier0s": []}, "tier0s: unknown kind; there are services,"),
    ({"groups": {}}, "/groups: not a list"),
    ({"groups": ["web"]}, "/groups: 0: no object with an id"),
    ({"groups": [{"id": "a/b"}]}, "/groups/a/b: id"),
    ({"groups": [{"id": "g", "colour": 1}]}, "/groups/g: colour: unknown field"),
    ({"groups": [{"id": "g"}, {"id": "g"}]}, "/groups/g: is there twice"),
    ({"groups": [{"id": "g", "_revision": 7}]}, "_revision"),
    ({"exclude-list": []}, "exclude-list: Input should be"),
    ({"exclude-list": {"members": [f"{GROUPS}/none"]}}, f"there is no '{GROUPS}/none'"),
    ({"services": [{"id": "SSH", "service_entries": []}]}, "/infra/services/SSH: service_entries"),
    ({"security-policies": [{"id": "s", "rules": [{"id": "r"}]}]}, "/s/rules/r: action: Field required"),
    (
        {"groups": [{"id": "g", "x": 1}], "services": [{"id": "t"}]},
        "/infra/services/t: service_entries: Field required; /infra/domains/default/groups/g: x",
    ),
]


async def test_a_document_with_a_fault_changes_nothing(manager: Manager) -> None:
    """The object and the field are named; of several objects each."""
    await put(manager, web())
    for wrong, said in FAULTS:
        status, message = await refused(manager, web() | wrong)
        assert status in (400, 412)
        assert said in message


async def test_each_object_that_cannot_be_read_is_told_by_itself(manager: Manager) -> None:
    """As NSX's `related_errors`, a hundred at most and how many more; the message has the first ten. One
    alone is the message."""
    wrong = [{"id": f"g{number}", "colour": "red"} for number in range(103)]
    for count, told in ((1, 0), (3, 3), (103, 101)):
        answer = await manager.answer("POST", f"{POLICY}/diff", web() | {"groups": wrong[:count]})
        body = answer.json()
        related = [each["error_message"] for each in body.get("related_errors", ())]
        lines = [f"{GROUPS}/g{number}: colour: unknown field" for number in range(count)]
        assert (answer.status_code, len(related)) == (400, told)
        assert related[:100] == (lines[:100] if told else [])
        more = [f"and {count - 10} more"] if count > 10 else []
        assert body["error_message"] == "; ".join([*lines[:10], *more])
    assert related[-1] == "and 3 more"


async def test_what_a_document_does_not_name_is_not_taken_for_empty(manager: Manager) -> None:
    """Nothing is removed by a list that is not there; what is missing is named. So a file that was cut off
    anywhere is refused."""
    await put(manager, web())
    for key in EMPTY.keys() - {"version"}:
        document = {kind: value for kind, value in web().items() if kind != key}
        status, message = await refused(manager, document)
        assert (status, message.startswith(f"{key}: missing;")) == (400, True)
    _, message = await refused(manager, {"version": 1})
    assert message.startswith("services, firewall-schedulers, firewall-session-timer-profiles, groups, sec")
    text = policyfile.write(await manager.call("GET", POLICY), as_json=False)
    for cut in range(text.index("\nexclude-list")):
        with pytest.raises((Problem, policyfile.Unreadable)):
            change(manager.register.world, policyfile.read("cut.yaml", text[:cut]))


ids = st.sampled_from(["a", "b", "c"])
paths = ids.map(lambda id: f"{GROUPS}/{id}")
peers = st.just(["ANY"]) | st.lists(
    paths | st.sampled_from(["10.0.0.0/8", "fd00::1"]), min_size=1, max_size=3
)
numbers = st.integers(0, 3)
rules = st.fixed_dictionaries(
    {"id": ids, "action": st.sampled_from(["ALLOW", "DROP", "REJECT"])},
    optional={
        "source_groups": peers,
        "destination_groups": peers,
        "services": st.sampled_from([["ANY"], ["/infra/services/SSH"], []]),
        "scope": st.just(["ANY"]) | st.lists(paths, min_size=1, max_size=2),
        "sequence_number": numbers,
        "logged": st.booleans(),
        "disabled": st.booleans(),
        "direction": st.sampled_from(["IN", "OUT"]),
        "notes": st.text(st.characters(codec="utf-8", categories=("L", "Zs")), max_size=5),
        "tags": st.just([{"scope": "s", "tag": "t"}]),
    },
)
sections = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "category": st.sampled_from(["Emergency", "Environment", "Application"]),
        "sequence_number": numbers,
        "tcp_strict": st.booleans(),
        "existing_flows": st.sampled_from(["KEEP", "CUT"]),
        "locked": st.booleans(),
        "description": st.just("on"),
        "rules": st.lists(rules, max_size=3, unique_by=lambda rule: rule["id"]),
    },
)
policies = st.lists(sections, max_size=3, unique_by=lambda section: section["id"])


@pytest.mark.slow
def test_applying_what_was_exported_is_the_identity(
    initialised: tuple[StateDir, str], tmp_path: Path
) -> None:
    """Whatever the policy and by whatever calls it came: nothing is stored, no host has a new generation; and
    on a manager with none of it the same document makes the same policy."""
    template, password = initialised
    homes = []
    for name in ("one", "other"):
        home = tmp_path / name
        home.mkdir()
        for file in template.path.iterdir():
            (home / file.name).write_bytes(file.read_bytes())
        homes.append(StateDir(alone(home)))

    async def check(manager: Manager, other: Manager, policy: Any) -> None:
        for one in (manager, other):
            await put(one, EMPTY)
        for id in ("a", "b", "c"):
            await manager.call("PUT", f"{DOMAIN}/groups/{id}", {"description": id})
        for section in policy:
            path = f"{DOMAIN}/security-policies/{section['id']}"
            first, alone = section.get("rules", [])[:1], section.get("rules", [])[1:]
            await manager.call("PUT", path, section | {"rules": first})
            for rule in alone:
                await manager.call("PUT", f"{path}/rules/{rule['id']}", rule)
        document = await manager.call("GET", POLICY)
        stored = manager.stored()
        assert await put(manager, document) == []
        assert manager.stored() == stored
        await put(other, document)
        assert await other.call("GET", POLICY) == document

    with asyncio.Runner() as runner:
        managers = [Manager(home, password) for home in homes]

        @settings(max_examples=25, deadline=None)
        @given(policies)
        def every(policy: Any) -> None:
            runner.run(check(*managers, policy))

        every()
        for manager in managers:
            runner.run(manager.close())
