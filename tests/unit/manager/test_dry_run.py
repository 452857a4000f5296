"""Dry runs: which flows that hosts saw would end otherwise, and which hosts did not tell."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from manager_stub.api import dry_run
from manager_stub.api.dry_run import DryRun
from manager_stub.api.hierarchy import planned
from manager_stub.inquiry import Inquiry
from manager_stub.publish import Change
from manager_stub.register import Register
from tests.harness.waiting import eventually
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.protocol.messages import Binding, Bindings, Reply, Request, SeenFlow

DRAFT = f"{INFRA}/drafts/d"
HOSTS = ["33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"]
WEB, DB = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
NAMES = {WEB: "web", DB: "db"}
ADDRESSES = {WEB: "10.0.0.1", DB: "10.0.0.2"}
SECTION = "/infra/domains/default/security-policies/s"
DEFAULT = "/infra/domains/default/security-policies/default-layer3-section/rules/default-layer3-rule"
QUERY = SeenFlow("out", 6, "10.0.0.1", "10.0.0.2", 5432, 40000, None, None, 7, 3)
"""From web to db, as web's vNIC saw it."""

Answer = Callable[[str, Request], Reply | str | None]
"""What a host says when it is asked: an answer, why it cannot be read, or nothing."""


@pytest.fixture
async def furnished(manager: Manager) -> Manager:
    """web is on the first host, db on the second."""
    for host, vnic in zip(HOSTS, (WEB, DB), strict=True):
        manager.register.add_host(host, f"host of {NAMES[vnic]}")
        mac = f"02:00:00:00:00:{vnic[-2:]}"
        card = {"id": vnic, "mac": mac, "addresses": [ADDRESSES[vnic]]}
        await manager.call("PUT", f"{VSFW}/vms/{_vm(vnic)}", {"display_name": NAMES[vnic], "vnics": [card]})
        manager.vnics.bound(host, Bindings((Binding(vnic, _vm(vnic), mac, "veth0"),)))
    return manager


def _vm(vnic: str) -> str:
    return vnic.replace("2222", "1111")


def answering(manager: Manager, answer: Answer) -> list[tuple[str, Request]]:
    """From now on hosts answer so; what they were asked."""
    asked: list[tuple[str, Request]] = []

    def wake() -> None:
        for host, request in manager.register.requests.take(1000):
            asked.append((host, request))
            said = answer(host, request)
            if isinstance(said, str):
                manager.register.unreadable(host, said)
            elif said is not None:
                manager.register.replied(host, said)

    manager.register.wake = lambda: asyncio.get_running_loop().call_soon(wake) and None
    return asked


def saw(vnic: str, *flows: SeenFlow) -> Answer:
    """The host of that vNIC saw this; the others nothing."""
    mine = HOSTS[(WEB, DB).index(vnic)]
    return lambda host, request: Reply(request.id, flows={vnic: flows} if host == mine else {})


async def draft(
    manager: Manager, *rules: dict[str, Any], scope: str = "ANY", category: str = "Application"
) -> None:
    """One section of these rules."""
    children = [{"resource_type": "ChildRule", "Rule": rule} for rule in rules]
    section = {"id": "s", "category": category, "scope": [scope], "children": children}
    domain = {"resource_type": "ChildResourceReference", "target_type": "Domain", "id": "default"}
    tree = [domain | {"children": [{"resource_type": "ChildSecurityPolicy", "SecurityPolicy": section}]}]
    await manager.call("PUT", DRAFT, {"user_area": {"children": tree}})


def drop(id: str, source: str, destination: str) -> dict[str, Any]:
    return {"id": id, "action": "DROP", "source_groups": [source], "destination_groups": [destination]}


async def run(manager: Manager, minutes: int = 15) -> Any:
    return await manager.call("GET", f"{DRAFT}/dry-run?minutes={minutes}")


async def test_a_flow_that_the_draft_would_drop_is_named_with_both_verdicts(furnished: Manager) -> None:
    """Who speaks to whom, and what decides at which vNIC, before and after; nothing is published."""
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))
    stored = furnished.stored()
    asked = answering(
        furnished, saw(WEB, QUERY, SeenFlow("out", 6, "10.0.0.1", "10.9.9.9", 443, 1, None, None, 1, 9))
    )
    found = await run(furnished, 5)
    assert [(host, request.method, request.minutes) for host, request in asked] == [
        (host, "flows", 5) for host in HOSTS
    ]
    assert (found["changed"], found["unchanged"], found["unjudged"], found["malformed"]) == (1, 1, 0, 0)
    (flow,) = found["results"]
    assert (flow["protocol"], flow["source"], flow["destination"], flow["destination_port"]) == (
        "TCP",
        "10.0.0.1",
        "10.0.0.2",
        5432,
    )
    assert (flow["source_vm"]["display_name"], flow["destination_vm"]["display_name"]) == ("web", "db")
    assert (flow["packets"], flow["seconds_ago"]) == (7, 3)
    allowed = {"action": "ALLOW", "rule_path": DEFAULT, "reason": ""}
    assert flow["before"] == {
        "action": "ALLOW",
        "decided_by": [
            {"vnic": WEB, "direction": "OUT"} | allowed,
            {"vnic": DB, "direction": "IN"} | allowed,
        ],
    }
    dropped = {"action": "DROP", "rule_path": f"{SECTION}/rules/r", "reason": ""}
    assert flow["after"] == {
        "action": "DROP",
        "decided_by": [{"vnic": WEB, "direction": "OUT"} | dropped],
    }
    assert furnished.stored() == stored
    assert [host.level.outgoing for host in furnished.register.hosts.values()] == [None, None]


async def test_two_new_rules_are_told_apart(furnished: Manager) -> None:
    """Neither has a number yet; each has its own in the dry run."""
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"), drop("other", "10.5.0.0/16", "ANY"))
    answering(furnished, saw(WEB, QUERY))
    (flow,) = (await run(furnished))["results"]
    assert flow["after"]["decided_by"][-1]["rule_path"] == f"{SECTION}/rules/r"


async def test_a_flow_that_both_ends_saw_is_one(furnished: Manager) -> None:
    """It left one vNIC and came in at the other; judged once, at both."""
    await draft(furnished, {**drop("r", "ANY", "10.0.0.2"), "direction": "IN"})
    came = SeenFlow("in", 6, "10.0.0.1", "10.0.0.2", 5432, 40000, None, None, 6, 2)
    answering(
        furnished,
        lambda host, request: Reply(request.id, flows={WEB: (QUERY,)} if host == HOSTS[0] else {DB: (came,)}),
    )
    found = await run(furnished)
    assert (found["changed"], found["unchanged"]) == (1, 0)
    decided = found["results"][0]["after"]["decided_by"]
    assert [(step["direction"], step["action"]) for step in decided] == [("OUT", "ALLOW"), ("IN", "DROP")]


async def test_a_flow_that_is_routed_comes_from_no_vnics_mac_address(furnished: Manager) -> None:
    """web and db are on segments of their own: an Ethernet rule against frames from web is not about what
    comes to db, and of web's vNIC it is."""
    for vnic, segment in ((WEB, "blue"), (DB, "red")):
        await furnished.call("PUT", f"{INFRA}/segments/{segment}", {})
        vm = await furnished.call("GET", f"{VSFW}/vms/{_vm(vnic)}")
        (card,) = vm["vnics"]
        vm["vnics"] = [{**card, "segment_path": f"/infra/segments/{segment}"}]
        await furnished.call("PUT", f"{VSFW}/vms/{_vm(vnic)}", vm)
    members = {"expression": [{"resource_type": "PathExpression", "paths": [f"/vsfw/vms/{_vm(WEB)}"]}]}
    await furnished.call("PUT", f"{DOMAIN}/groups/web", members)
    answering(furnished, saw(WEB, QUERY))
    for direction, changed in (("IN", 0), ("OUT", 1)):
        rule = drop("r", "/infra/domains/default/groups/web", "ANY") | {"direction": direction}
        await draft(furnished, rule, category="Ethernet")
        assert (await run(furnished))["changed"] == changed


async def test_only_hosts_whose_policy_changes_are_asked(furnished: Manager) -> None:
    """A section that is applied to db concerns db's host; the other end is judged all the same."""
    await furnished.call(
        "PUT",
        f"{DOMAIN}/groups/db",
        {"expression": [{"resource_type": "PathExpression", "paths": [f"/vsfw/vms/{_vm(DB)}"]}]},
    )
    await draft(furnished, drop("r", "ANY", "ANY"), scope="/infra/domains/default/groups/db")
    came = SeenFlow("in", 6, "10.0.0.1", "10.0.0.2", 5432, 40000, None, None, 6, 2)
    asked = answering(furnished, saw(DB, came))
    found = await run(furnished)
    assert [host for host, _ in asked] == [HOSTS[1]]
    assert [step["vnic"] for step in found["results"][0]["after"]["decided_by"]] == [WEB, DB]


async def test_a_saved_configuration_has_a_dry_run_too(furnished: Manager) -> None:
    """Rolling back to it would let through again what is dropped now."""
    saved = await furnished.call("POST", f"{VSFW}/configurations", {"display_name": "open"})
    await furnished.call(
        "PUT", f"{DOMAIN}/security-policies/s", {"rules": [drop("r", "10.0.0.1", "10.0.0.2")]}
    )
    answering(furnished, saw(WEB, QUERY))
    found = await furnished.call("GET", f"{VSFW}/configurations/{saved['id']}/dry-run")
    assert [flow["after"]["action"] for flow in found["results"]] == ["ALLOW"]


async def test_a_host_that_does_not_answer_is_named(
    furnished: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, unable, or not to be read: each with its reason, and the flows of the other are there. What was
    not sent is not sent later."""
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))
    for said, reason in (
        (lambda id: None, "no answer within"),
        (lambda id: Reply(id, "method: 'flows' is unknown"), "unknown"),
        (lambda id: Reply("another question"), "no answer within"),
        (lambda id: "reply: 2000000 bytes are over the limit", "over the limit"),
    ):
        answering(
            furnished,
            lambda host, request, said=said: (
                Reply(request.id, flows={WEB: (QUERY,)}) if host == HOSTS[0] else said(request.id)
            ),
        )
        found = await DryRun(furnished.register, Inquiry(furnished.register, 0.1))(change(furnished), 15)
        first, second = found["hosts"]
        assert (first["answered"], first["flows"]) == (True, 1)
        assert (second["display_name"], second["answered"]) == ("host of db", False)
        assert reason in second["reason"]
        assert found["changed"] == 1
    furnished.register.wake = lambda: None
    found = await DryRun(furnished.register, Inquiry(furnished.register, 0.1))(change(furnished), 15)
    assert [host["answered"] for host in found["hosts"]] == [False, False]
    assert not furnished.register.requests


def change(manager: Manager) -> Callable[[Register], Change]:
    tree = manager.parts.publishing.drafts["d"]["tree"]
    return lambda register: planned(register, tree)


async def test_no_host_answers_for_another(furnished: Manager) -> None:
    """It says that the other saw nothing, before that one can say what it saw: not heard."""
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))

    def answer(host: str, request: Request) -> Reply:
        other = next(each for each in HOSTS if each != host)
        furnished.register.replied(other, Reply(request.id))
        return Reply(request.id, flows={WEB: (QUERY,)} if host == HOSTS[0] else {})

    answering(furnished, answer)
    assert (await run(furnished))["changed"] == 1


async def test_what_a_host_says_beyond_its_own_or_beyond_sense_is_counted(furnished: Manager) -> None:
    """Flows of a vNIC that is not plugged there, families that do not fit, an address that is none: not
    judged, and told; the good one beside them is. So is what the host had to leave out."""
    nonsense = [
        SeenFlow("out", 6, "10.0.0.1", "fd00::1", 80, 1, None, None, 1, 1),
        SeenFlow("out", 6, "10.0.0.1", "nowhere", 80, 1, None, None, 1, 1),
        SeenFlow("out", 58, "10.0.0.1", "10.0.0.2", 0, 0, 128, None, 1, 1),
    ]
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))
    answering(
        furnished,
        lambda host, request: Reply(
            request.id, flows={WEB: (QUERY, *nonsense), "no vNIC": (QUERY,)}, left_out=4, unread=1
        ),
    )
    found = await run(furnished)
    assert (found["changed"], found["malformed"]) == (1, 3)
    assert [(host["flows"], host["foreign"]) for host in found["hosts"]] == [(4, 1), (0, 5)]
    assert [(host["left_out"], host["unread_vnics"]) for host in found["hosts"]] == [(4, 1)] * 2


async def test_the_time_to_judge_has_an_end(furnished: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was no time for is counted."""
    monkeypatch.setattr(dry_run, "JUDGE_S", 0.0)
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))
    answering(furnished, saw(WEB, QUERY))
    found = await run(furnished)
    assert (found["changed"], found["unchanged"], found["unjudged"]) == (0, 0, 1)


async def test_bad_questions_are_refused(furnished: Manager) -> None:
    """No such draft, a time out of range, a draft that cannot be published: said, and nobody is asked."""
    asked = answering(furnished, lambda host, request: None)
    assert (await furnished.answer("GET", f"{DRAFT}/dry-run")).status_code == 404
    assert (await furnished.answer("GET", f"{VSFW}/configurations/999/dry-run")).status_code == 404
    await draft(furnished, drop("r", "/infra/domains/default/groups/none", "ANY"))
    for minutes in ("0", "-1", "1441", "x", ""):
        refused = await furnished.answer("GET", f"{DRAFT}/dry-run?minutes={minutes}")
        assert refused.status_code == 400
        assert "minutes" in refused.json()["error_message"]
    refused = await furnished.answer("GET", f"{DRAFT}/dry-run")
    assert refused.status_code == 400
    assert "groups/none" in refused.json()["error_message"]
    assert asked == []


async def test_one_dry_run_at_a_time(furnished: Manager) -> None:
    """Another one is refused meanwhile, and may come afterwards."""
    await draft(furnished, drop("r", "10.0.0.1", "10.0.0.2"))
    held: list[tuple[str, Request]] = answering(furnished, lambda host, request: None)
    first = asyncio.create_task(run(furnished))
    await eventually(lambda: len(held) == 2, "both hosts asked", 10)
    assert (await furnished.answer("GET", f"{DRAFT}/dry-run")).status_code == 409
    for host, request in held:
        furnished.register.replied(host, Reply(request.id))
    assert (await first)["changed"] == 0
    answering(furnished, saw(WEB, QUERY))
    assert (await run(furnished))["changed"] == 1
