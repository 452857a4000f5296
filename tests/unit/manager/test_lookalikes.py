"""Names that a reader takes for one another: refused where they are typed, found where hosts say them."""

from typing import Any

import pytest

from manager_stub.lint import Kind, lint
from manager_stub.lookalikes import lookalikes, unseen
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

CYRILLIC = "w\u0435b"
"""Looks like `web`."""
VMS = [f"bbbbbbbb-0000-4000-8000-00000000000{number}" for number in range(3)]


@pytest.mark.parametrize(
    "other",
    [CYRILLIC, "we\u200bb", "web\ufe0f", "\U0001d430eb", "we\u00adb"],
    ids=["Cyrillic", "zero width", "variation selector", "mathematical", "soft hyphen"],
)
def test_what_looks_like_ascii_is_found(other: str) -> None:
    """Both ways round, whatever makes the difference."""
    assert lookalikes(["web", other, "db"]) == {"web": [other], other: ["web"]}


def test_the_same_letters_composed_and_not_look_alike() -> None:
    """An accent of its own, and one with its letter; without the accent it is another name."""
    assert lookalikes(["caf\u00e9", "cafe\u0301"])
    assert not lookalikes(["caf\u00e9", "cafe"])


def test_ascii_alone_never_looks_alike() -> None:
    """1 and l, 0 and O, rn and m: Unicode's tables say so, and nobody wants to be refused `vm-1` for it."""
    assert not lookalikes(["vm-1", "vm-l", "vm-I", "O", "0", "modern", "modem"])
    found = lookalikes(["vm-1", "vm-l", "vm-\u0406"])
    assert found == {"vm-1": ["vm-\u0406"], "vm-l": ["vm-\u0406"], "vm-\u0406": ["vm-1", "vm-l"]}


def test_names_of_other_languages_are_names() -> None:
    """Nothing about them is wrong by itself."""
    names = ["сервер", "ウェブ", "Prüfstand", "🛡\ufe0f", "שרת"]
    assert not any(map(unseen, names))
    assert not lookalikes(names)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{DOMAIN}/groups/b", {}),
        (f"{INFRA}/services/b", {"service_entries": [{"resource_type": "NestedServiceServiceEntry"}]}),
        (f"{DOMAIN}/security-policies/b", {}),
        (f"{INFRA}/segments/b", {"vlan_ids": ["7"]}),
        (f"{VSFW}/clusters/b", {}),
    ],
)
async def test_a_typed_name_that_looks_like_another_is_refused(
    manager: Manager, path: str, body: dict[str, Any]
) -> None:
    """Of each kind, by field, with both names, the path of the other and the letter; nothing is stored. The
    same name again is no matter: there are paths to tell them apart."""
    if "service_entries" in body:
        entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["1"]}
        body = {"service_entries": [entry]}
    first = path.removesuffix("b") + "a"
    await manager.call("PUT", first, body | {"display_name": "web"})
    before = manager.stored()
    answer = await manager.answer("PUT", path, body | {"display_name": CYRILLIC})
    assert answer.status_code == 409
    said = answer.json()["error_message"]
    stored = first.removeprefix("/policy/api/v1").replace(VSFW, "/vsfw")
    assert said.startswith(f"display_name: '{CYRILLIC}' looks like 'web' of {stored}: U+0435 CYRILLIC SMALL")
    assert manager.stored() == before
    if "vlan_ids" not in body:
        await manager.call("PUT", path, body | {"display_name": "web"})


async def test_rules_are_compared_within_their_section(manager: Manager) -> None:
    """A new one with those that stay, and two new ones with each other; not with those of another section."""
    section = f"{DOMAIN}/security-policies/s"
    rules = [
        {"id": str(n), "display_name": name, "action": "ALLOW"} for n, name in enumerate(("web", CYRILLIC))
    ]
    answer = await manager.answer("PUT", section, {"rules": rules})
    assert answer.status_code == 409
    await manager.call("PUT", section, {"rules": rules[:1]})
    assert (await manager.answer("PUT", f"{section}/rules/1", rules[1])).status_code == 409
    await manager.call("PUT", f"{DOMAIN}/security-policies/other", {"rules": rules[1:]})


@pytest.mark.parametrize(
    ("letter", "said"),
    [
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\u202e", "U+202E RIGHT-TO-LEFT"),
        ("\u00a0", "U+00A0 NO-BREAK"),
    ],
)
async def test_a_letter_that_cannot_be_seen_is_refused_by_its_name(
    manager: Manager, letter: str, said: str
) -> None:
    """With nothing beside it to be taken for; of a typed VM too."""
    for path in (f"{DOMAIN}/groups/g", f"{VSFW}/vms/{VMS[0]}"):
        answer = await manager.answer("PUT", path, {"display_name": f"a{letter}b"})
        assert answer.status_code == 400
        assert answer.json()["error_message"].startswith(f"display_name: {said}")


async def test_vms_that_look_alike_are_found_by_lint(manager: Manager) -> None:
    """Their hosts say what they are called, so nobody is refused: the one beyond ASCII is told, with the
    other. It can be tagged all the same."""
    for vm, name in zip(VMS, ("web", CYRILLIC, "db"), strict=True):
        await manager.call("PUT", f"{VSFW}/vms/{vm}", {"display_name": name})
    (finding,) = [each for each in lint(manager.register.realised) if each.kind is Kind.LOOKALIKE]
    assert (finding.path, finding.others) == (f"/vsfw/vms/{VMS[1]}", (f"/vsfw/vms/{VMS[0]}",))
    assert "U+0435 CYRILLIC SMALL LETTER IE" in finding.why
    tags = {"external_id": VMS[1], "tags": [{"tag": "x"}]}
    await manager.call("POST", "/api/v1/fabric/virtual-machines?action=add_tags", tags)


async def test_tags_that_look_alike_are_found_by_lint(manager: Manager) -> None:
    """A VM's, and what a group asks for, also in a nested expression: the group has not the members that its
    reader thinks it has."""
    tagged = {"display_name": "vm", "tags": [{"scope": "tier", "tag": "web"}]}
    await manager.call("PUT", f"{VSFW}/vms/{VMS[0]}", tagged)
    condition = {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag"}
    asked = condition | {"operator": "EQUALS", "value": f"tier|{CYRILLIC}"}
    for id, item in (("g", asked), ("n", {"resource_type": "NestedExpression", "expressions": [asked]})):
        await manager.call("PUT", f"{DOMAIN}/groups/{id}", {"expression": [item]})
    found = [each for each in lint(manager.register.realised) if each.kind is Kind.LOOKALIKE]
    groups = [f"/infra/domains/default/groups/{id}" for id in ("g", "n")]
    assert [each.path for each in found] == groups
    assert {each.others for each in found} == {(f"/vsfw/vms/{VMS[0]}",)}
    assert found[0].why.startswith(f"its tag '{CYRILLIC}' looks like 'web': U+0435")


async def test_what_has_its_name_already_keeps_it(manager: Manager) -> None:
    """A change of something else is not refused for what an older manager took."""
    path = f"{DOMAIN}/groups/g"
    await manager.call("PUT", path, {"display_name": "web"})
    stored = manager.register.world.groups["/infra/domains/default/groups/g"]
    object.__setattr__(stored.body, "display_name", "we\u200bb")
    await manager.call("PATCH", path, {"description": "changed"})
