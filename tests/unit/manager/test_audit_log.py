"""The audit log: who changed what, from what to what."""

from typing import Any

import pytest

from manager_stub import audit, register
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.protocol.messages import Binding, Bindings, Guest

GROUP = f"{DOMAIN}/groups/g"
PATH = "/infra/domains/default/groups/g"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"


async def log(manager: Manager, query: str = "") -> list[Any]:
    return (await manager.call("GET", f"{VSFW}/audit-log?{query}"))["results"]  # type: ignore[no-any-return]


async def test_each_change_is_there_with_what_was_before_and_after(manager: Manager) -> None:
    """Made, changed, deleted, the newest first; a write that changes nothing is no change."""
    await manager.call("PATCH", GROUP, {"description": "one"})
    await manager.call("PATCH", GROUP, {"description": "two"})
    await manager.call("PATCH", GROUP, {"description": "two"})
    await manager.call("DELETE", GROUP)
    entries = await log(manager, f"path={PATH}")
    one, two = {"description": "one"}, {"description": "two"}
    assert [(each["before"], each["after"]) for each in entries] == [(two, None), (one, two), (None, one)]
    assert {each["user"] for each in entries} == {"admin"}
    assert [each["id"] for each in entries] == sorted((each["id"] for each in entries), reverse=True)


async def test_what_was_refused_is_no_change(manager: Manager) -> None:
    """Neither the object nor a line about it is stored."""
    before = await log(manager)
    assert (await manager.answer("PATCH", GROUP, {"surprise": 1})).status_code == 400
    assert await log(manager) == before


async def test_users_tokens_tags_and_hosts_are_in_it_and_no_secret(manager: Manager) -> None:
    """What else can be changed; of a password and a token there is nothing to read."""
    user = {"role": "auditor", "password": "a password of length"}
    await manager.call("PUT", f"{VSFW}/users/eve", user)
    token = (await manager.call("POST", f"{VSFW}/tokens", {"display_name": "ci"}))["token"]
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "web"})
    tags = {"external_id": VM, "tags": [{"scope": "a", "tag": "b"}]}
    await manager.call("POST", "/api/v1/fabric/virtual-machines?action=add_tags", tags)
    manager.register.add_host(VM, "host")
    paths = [each["path"].rsplit("/tokens/", 1)[0] for each in await log(manager, "page_size=5")]
    assert paths == [
        f"/vsfw/hosts/{VM}", f"/vsfw/vms/{VM}", f"/vsfw/vms/{VM}", "/vsfw/users/admin", "/vsfw/users/eve"
    ]  # fmt: skip
    told = str(await log(manager))
    assert user["password"] not in told
    assert token not in told
    assert "argon2" not in told


async def test_it_is_read_by_user_and_in_pages(manager: Manager) -> None:
    """The cursor leads from page to page, also while more is added at the front."""
    for number in range(5):
        await manager.call("PATCH", GROUP, {"description": str(number)})
    assert await log(manager, "user=nobody") == []
    first = await manager.call("GET", f"{VSFW}/audit-log?page_size=3&user=admin")
    await manager.call("DELETE", GROUP)
    second = await manager.call("GET", f"{VSFW}/audit-log?page_size=3&user=admin&cursor={first['cursor']}")
    said = [each["after"]["description"] for each in first["results"] + second["results"]]
    assert said == ["4", "3", "2", "1", "0"]
    assert "cursor" not in second


@pytest.mark.parametrize("query", ["path=%00", "user=%00", "path=/infra/%00", "user=a%00%0A"])
async def test_a_nul_is_in_no_path_and_in_no_user(manager: Manager, query: str) -> None:
    """PostgreSQL takes none in a text: 400 with the parameter's name, on either database."""
    refused = await manager.answer("GET", f"{VSFW}/audit-log?{query}")
    assert (refused.status_code, query.partition("=")[0] in refused.text) == (400, True)


async def test_no_call_changes_it(manager: Manager) -> None:
    """Every other method is refused to the enterprise admin too."""
    before = await log(manager)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (f"{VSFW}/audit-log", f"{VSFW}/audit-log/1"):
            assert (await manager.answer(method, path, {})).status_code in (404, 405)
    assert await log(manager) == before


def named(manager: Manager, host: str, name: str) -> None:
    """The host says that its VM is called so."""
    vm, vnic, mac = (text[:-1] + host[-1] for text in (VM, VNIC, "02:00:00:00:00:01"))
    manager.vnics.bound(host, Bindings((Binding(vnic, vm, mac, "veth", Guest(name=name)),)))


async def test_a_host_that_says_something_else_every_moment_does_not_fill_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over its share of a day is left out, which is said, and how much it was when the day is over.
    The inventory follows all the same; another host's lines, and users', are all there."""
    now = audit.PERIOD_MS
    monkeypatch.setattr(register, "now_ms", lambda: now)
    for host in (HOST, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")
    named(manager, HOST, "web")
    size = len(str((await log(manager))[0]["after"]))
    monkeypatch.setattr(audit, "MAX_BYTES", 20 * size)
    for number in range(100):
        named(manager, HOST, f"web{number}")
    lines = await log(manager, f"user=host {HOST}")
    assert 5 < len(lines) < 20
    assert lines[0]["path"] == f"/vsfw/hosts/{HOST}/audit-log"
    assert lines[0]["after"] == {"left_out_until": now + audit.PERIOD_MS}
    assert (await manager.call("GET", f"{VSFW}/vms/{VM}"))["display_name"] == "web99"
    for number in range(3):
        named(manager, OTHER, f"db{number}")
        await manager.call("PATCH", GROUP, {"description": str(number)})
    assert len(await log(manager, f"user=host {OTHER}")) == len(await log(manager, f"path={PATH}")) == 3
    now += audit.PERIOD_MS
    named(manager, HOST, "web")
    newest, told = (await log(manager, f"user=host {HOST}"))[:2]
    assert newest["after"]["display_name"] == "web"
    assert told["after"] == {"left_out": 100 - (len(lines) - 2)}


async def test_who_told_of_a_vm_first_is_never_left_out(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager asks the log for it."""
    monkeypatch.setattr(audit, "MAX_BYTES", 0)
    manager.register.add_host(HOST, "host")
    named(manager, HOST, "web")
    assert manager.register.makers("/vsfw/vms") == {f"/vsfw/vms/{VM}": f"host {HOST}"}
