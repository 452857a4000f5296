"""Bodies of requests: too large, too many at once, and JSON that says a thing twice, or that nobody could
write down again."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from manager_stub.api import bodies
from manager_stub.api.bodies import MAX_BODY, MAX_DEPTH, MAX_POLICY_BODY
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

pytestmark = pytest.mark.slow

GROUP = f"{DOMAIN}/groups/g"
JSON = {"Content-Type": "application/json"}


def padded(body: Any, size: int) -> bytes:
    return json.dumps(body).encode().ljust(size)


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", f"{VSFW}/tokens", MAX_BODY),
        ("POST", "/policy/api/v1/search/querypipeline", MAX_BODY),
        ("PUT", f"{INFRA}/tags/tag-operations/t", MAX_BODY),
        ("POST", "/no/such/call", None),
        ("PUT", GROUP, MAX_POLICY_BODY),
        ("PATCH", INFRA, MAX_POLICY_BODY),
        ("PATCH", f"{DOMAIN}/security-policies/s", MAX_POLICY_BODY),
        ("PUT", f"{INFRA}/drafts/d", MAX_POLICY_BODY),
        ("PUT", f"{VSFW}/policy", MAX_POLICY_BODY),
        ("POST", f"{VSFW}/policy/diff", MAX_POLICY_BODY),
        ("POST", f"{VSFW}/policy/import/diff", MAX_POLICY_BODY),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_of_its_call_is_refused_unread(
    manager: Manager, method: str, path: str, limit: int | None, announced: bool
) -> None:
    """413 with the limit, whether it says before how long it will be or goes on and on (and where no call is:
    404). Only where policy is written it may be long."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 65536
            yield b" " * 65536

    headers = JSON | ({"Content-Length": str((limit or MAX_BODY) + 1)} if announced else {})
    answer = await manager.rest.request(method, path, content=endless(), headers=headers)
    assert answer.status_code == (413 if limit or announced else 404)
    assert not limit or str(limit) in answer.json()["error_message"]
    assert read <= (0 if announced or not limit else limit + 65536)


async def test_who_may_not_write_policy_sends_no_long_body(manager: Manager) -> None:
    """An operator is refused before a byte is read; so is an auditor where the call reads."""
    await manager.call("PUT", f"{VSFW}/users/op", {"role": "security_op", "password": "a password of length"})

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    for method, status in (("PUT", 403), ("GET", 404)):
        answer = await manager.rest.request(
            method, GROUP, content=unread(), headers=JSON, auth=("op", "a password of length")
        )
        assert answer.status_code == status


@pytest.mark.parametrize(("role", "status"), [("security_engineer", 200), ("auditor", 413)])
async def test_what_may_be_written_may_be_compared(manager: Manager, role: str, status: int) -> None:
    """A long document, by who may write it; who may only read compares short ones."""
    document = await manager.call("GET", f"{VSFW}/policy")
    await manager.call("PUT", f"{VSFW}/users/eve", {"role": role, "password": "a password of length"})
    manager.rest.auth = ("eve", "a password of length")
    long = padded(document, 2 * MAX_BODY)
    answer = await manager.rest.post(f"{VSFW}/policy/diff", content=long, headers=JSON)
    assert answer.status_code == status
    assert (await manager.answer("POST", f"{VSFW}/policy/diff", document)).status_code == 200


async def test_large_bodies_together_are_bounded_and_small_ones_not_concerned(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 for the one that is too much, while the others are under way; and not afterwards, however they
    ended."""
    monkeypatch.setattr(bodies, "MAX_IN_FLIGHT", 3 * MAX_BODY)
    large = padded({}, 3 * MAX_BODY)
    half_come, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield large
        half_come.set()
        await go_on.wait()
        yield b" "

    under_way = asyncio.create_task(manager.rest.put(GROUP, content=slow(), headers=JSON))
    await half_come.wait()
    refused = await manager.rest.put(f"{GROUP}2", content=large, headers=JSON)
    assert (refused.status_code, refused.json()["httpStatus"]) == (503, "SERVICE_UNAVAILABLE")
    small = await manager.rest.put(f"{GROUP}2", content=padded({}, MAX_BODY), headers=JSON)
    assert small.status_code == 200
    go_on.set()
    assert (await under_way).status_code == 200
    for id in range(3):
        assert (await manager.rest.put(f"{GROUP}-{id}", content=large, headers=JSON)).status_code == 200


def draft(**fields: Any) -> dict[str, Any]:
    return {"user_area": {"display_name": "root"} | fields}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", f"{INFRA}/drafts/d", draft(display_name="\ud800"), "user_area.display_name"),
        ("PUT", f"{INFRA}/drafts/d", draft(tags=[{"tag": "a\udfff"}]), "user_area.tags.0.tag"),
        ("PUT", f"{INFRA}/drafts/d", draft(path={"\udc00": 1}), r"user_area.path.\udc00"),
        ("PUT", f"{INFRA}/drafts/d", draft(path=float("nan")), "user_area.path"),
        ("PUT", f"{INFRA}/drafts/d", draft(path=[float("inf")]), "user_area.path.0"),
        ("PUT", f"{INFRA}/drafts/d", draft(path=nested(MAX_DEPTH)), "user_area.path.0.0.0"),
        ("PATCH", INFRA, {"description": "\ud800"}, "description"),
        ("PATCH", INFRA, {"\ud800": 1}, r"\ud800"),
        ("PUT", GROUP, {"\ud800": 1}, r"\ud800"),
        ("PUT", GROUP, {"description": "\ud800"}, "description"),
        ("PATCH", GROUP, {"tags": [{"scope": "\ud800"}]}, "tags.0.scope"),
        ("PUT", f"{VSFW}/users/eve", {"role": "\ud800"}, "role"),
        ("POST", f"{VSFW}/tokens", {"display_name": "\ud800"}, "display_name"),
        ("POST", f"{VSFW}/configurations", {"display_name": "\ud800"}, "display_name"),
        ("PUT", f"{INFRA}/tags/tag-operations/t", {"display_name": "\ud800"}, "display_name"),
    ],
)
async def test_what_nobody_could_write_down_again_is_refused_by_its_field(
    manager: Manager, method: str, path: str, body: object, field: str
) -> None:
    """Half of a surrogate pair, in a text or as a field's name; NaN; infinity; nested too deep. Nothing is
    stored, and the audit log can be read."""
    before = manager.stored()
    answer = await manager.rest.request(method, path, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error_message"].startswith(field)
    assert manager.stored() == before
    assert (await manager.call("GET", f"{INFRA}/drafts"))["results"] == []
    await manager.call("GET", f"{VSFW}/audit-log")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", GROUP, b'{"description": "a", "description": "b"}', "description"),
        ("PATCH", GROUP, b'{"description": "a", "\\u0064escription": "a"}', "description"),
        ("PATCH", GROUP, b'{"tags": [{}, {"tag": "a", "scope": "s", "tag": "b"}]}', "tags.1.tag"),
        (
            "PATCH",
            INFRA,
            b'{"children": [{"resource_type": "ChildGroup", "Group": {}, "Group": {}}]}',
            "children.0",
        ),
        ("PUT", f"{VSFW}/policy", b'{"version": 1, "groups": [], "groups": []}', "groups"),
        ("POST", f"{VSFW}/policy/import/diff", b'{"children": [], "x": {"y": 1, "y": 2}}', "x.y"),
        (
            "PUT",
            f"{INFRA}/drafts/d",
            b'{"user_area": {"children": [], "children": []}}',
            "user_area.children",
        ),
        ("PUT", f"{VSFW}/users/eve", b'{"role": "auditor", "password": "x", "role": "admin"}', "role"),
    ],
)
async def test_a_name_that_an_object_has_twice_is_refused_by_its_place(
    manager: Manager, method: str, path: str, body: bytes, field: str
) -> None:
    """However it is spelt, and with the same value too: a reader of the body may have believed in the other.
    Nothing is stored."""
    before = manager.stored()
    answer = await manager.rest.request(method, path, content=body, headers=JSON)
    assert answer.status_code == 400
    said = answer.json()["error_message"]
    assert said.startswith(field)
    assert said.endswith(": is there twice")
    assert manager.stored() == before


async def test_numbers_too_large_and_other_encodings_are_refused_too(manager: Manager) -> None:
    """What is no NaN in the text, and a surrogate that is not escaped."""
    for body, field in (
        (b'{"user_area": {"path": 1e999}}', "path"),
        (b'{"user_area": {"path": "\xed\xa0\x80"}}', "path"),
    ):
        answer = await manager.rest.put(f"{INFRA}/drafts/d", content=body, headers=JSON)
        assert answer.status_code == 400
        assert answer.json()["error_message"].startswith(f"user_area.{field}")


async def test_a_whole_surrogate_pair_is_a_character(manager: Manager) -> None:
    """As JSON escapes what is beyond the first plane."""
    await manager.rest.put(GROUP, content=rb'{"description": "\ud83d\ude00"}', headers=JSON)
    assert (await manager.call("GET", GROUP))["description"] == "\U0001f600"
