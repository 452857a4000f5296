"""What an error says: which field or path is wrong, and what is expected there, with an example."""

from collections.abc import Iterator
from typing import Any

import pytest

from manager_stub.model.patterns import EXPECTED
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager

SECTION = f"{DOMAIN}/security-policies/s"
JSON = {"Content-Type": "application/json"}


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"id": "r", "action": "ALLOW", **fields}]}


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        (
            "PUT",
            f"{VSFW}/controllers",
            {"controllers": [{"id": "c", "address": "10.0.0.1", "thumbprint": "AB:CD"}]},
            "controllers.0.thumbprint: is not the SHA-256 of a certificate, as 3f0a...: 64 of 0-9 and a-f",
        ),
        (
            "PATCH",
            SECTION,
            rule(source_groups=["web"]),
            "source_groups: 'web' is neither an address, nor a path as /infra/domains/default/groups/web",
        ),
        (
            "PATCH",
            SECTION,
            rule(scope=["web"]),
            "scope: 'web' is neither a path as /infra/domains/default/groups/web, nor ANY",
        ),
        (
            "PATCH",
            SECTION,
            rule(services=["HTTP"]),
            "services: 'HTTP' is neither a path as /infra/services/HTTP, nor ANY",
        ),
        ("PATCH", SECTION, {"scheduler_path": "x"}, "scheduler_path: is not a path, as /infra/"),
        ("POST", f"{VSFW}/enrol", {"token": "s3cret", "csr": ""}, "token: is not an enrolment token: 12 of"),
        (
            "POST",
            f"{VSFW}/enrolment-tokens",
            {"host": "host1"},
            "host: 'host1' is not the id of a host: `vsfwctl hosts`",
        ),
        (
            "PUT",
            f"{VSFW}/clusters/c",
            {"hosts": ["host1"]},
            "hosts.0: 'host1' is not the id of a host: `vsfwctl hosts`",
        ),
        ("GET", f"{VSFW}/hosts/host1", None, "`vsfwctl hosts` shows ids and names"),
        ("GET", f"{INFRA}?filter=Group", None, "filter: is not Type- and names of types, as Type-Group|"),
    ],
)
async def test_what_is_expected_is_said_with_an_example(
    manager: Manager, method: str, path: str, body: Any, said: str
) -> None:
    """No regular expression; and never a token that is wrong."""
    answer = await manager.answer(method, path, body)
    assert answer.status_code == 400
    told = answer.json()["error_message"]
    assert said in told
    assert "pattern" not in told
    assert "s3cret" not in told


async def test_an_address_that_is_none_is_no_name_of_a_group(manager: Manager) -> None:
    """Who mistypes an address is told so, and not of paths."""
    answer = await manager.answer("PATCH", SECTION, rule(source_groups=["10.0.0.300"]))
    told = answer.json()["error_message"]
    assert "'10.0.0.300' is not an address, prefix or range" in told
    assert "/infra" not in told


async def test_every_pattern_has_its_words(manager: Manager) -> None:
    """Those of all calls, but that of ids (UUIDs), which is checked in words by itself."""
    document = (await manager.rest.get("/openapi.json")).json()
    there = {each for each in patterns(document) if not each.startswith("^[0-9a-f]{8}(-")}
    assert there == EXPECTED.keys()


def patterns(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(found := document.get("pattern"), str):
            yield found
        for each in document.values():
            yield from patterns(each)
    elif isinstance(document, list):
        for each in document:
            yield from patterns(each)


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", f"{VSFW}/hostz", 404, f"there is nothing at {VSFW}/hostz"),
        ("GET", f"{INFRA}/domains/other/groups", 404, f"there is nothing at {INFRA}/domains/other/groups"),
        ("DELETE", f"{VSFW}/hosts", 405, f"there is no DELETE of {VSFW}/hosts, but GET"),
    ],
)
async def test_a_path_that_is_none_is_named(
    manager: Manager, method: str, path: str, status: int, said: str
) -> None:
    """And so is a method that the path has not."""
    answer = await manager.answer(method, path)
    assert (answer.status_code, said in answer.json()["error_message"]) == (status, True)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            f"{VSFW}/controllers",
            f"body: missing; PUT {VSFW}/controllers takes a JSON object, with controllers",
        ),
        (f"{DOMAIN}/groups/g", f"body: missing; PUT {DOMAIN}/groups/g takes a JSON object, {{}} at least"),
    ],
)
async def test_an_empty_body_is_said_to_be_missing(manager: Manager, path: str, said: str) -> None:
    """With the call, and the fields that it cannot do without."""
    answer = await manager.answer("PUT", path)
    assert (answer.status_code, said in answer.json()["error_message"]) == (400, True)


@pytest.mark.parametrize(
    ("content", "headers", "said"),
    [
        (b'{"expression": ', JSON, "body: not JSON: Expecting value, at character 15"),
        (b"[]", JSON, "body: not a JSON object"),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, "with Content-Type: application/json"),
    ],
    ids=["cut off", "a list", "as a form"],
)
async def test_a_body_that_is_no_object_is_said_to_be_none(
    manager: Manager, content: bytes, headers: dict[str, str], said: str
) -> None:
    """Also where it is one and curl was not told to say that it is JSON."""
    answer = await manager.rest.put(f"{DOMAIN}/groups/g", content=content, headers=headers)
    assert (answer.status_code, said in answer.json()["error_message"]) == (400, True)
