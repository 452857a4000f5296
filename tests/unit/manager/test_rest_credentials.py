"""Who gives no password, or a wrong one: nothing is told, and nothing done."""

import base64

import pytest

from manager_stub.guard import OPEN
from tests.unit.manager.rest import DOMAIN, Manager

GROUP = f"{DOMAIN}/groups/new"


@pytest.mark.parametrize("path", [GROUP, "/openapi.json", "/no/such/thing"])
@pytest.mark.parametrize("credentials", [None, "!", "admin:guess", "nobody:guess", "admin"])
async def test_without_the_password_nothing_is_told(
    manager: Manager, path: str, credentials: str | None
) -> None:
    """No credentials, garbage: 401; a wrong password, a wrong name: 403 as in NSX. No more, whatever is asked
    for."""
    manager.rest.auth = None
    encoded = (
        base64.b64encode(credentials.encode()).decode() if credentials and ":" in credentials else credentials
    )
    headers = {} if encoded is None else {"Authorization": f"Basic {encoded}"}
    answer = await manager.rest.get(path, headers=headers)
    guessed = ":" in (credentials or "")
    assert answer.status_code == (403 if guessed else 401)
    assert guessed or answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", [b"Basic \xe9", b"Basic \x01", b"Basic /////w==", b"Basic YQ=", b"Basic"])
async def test_credentials_that_are_none_are_wrong(manager: Manager, header: bytes) -> None:
    """Bytes that are no ASCII, no base64, no UTF-8: 401, as for a wrong password."""
    manager.rest.auth = None
    answer = await manager.rest.get(GROUP, headers={b"Authorization": header})
    assert answer.status_code == 401


async def test_every_verb_of_every_path_wants_the_password(manager: Manager) -> None:
    """CVE-2024-53916, CVE-2026-49299: nobody unknown may do anything, to tags or whatever else. But for the
    calls by which one gets known: to log in, and with a token to enrol a host."""
    paths = (await manager.call("GET", "/openapi.json"))["paths"]
    manager.rest.auth = None
    asked = [(verb, path) for path, verbs in paths.items() for verb in verbs]
    assert len(asked) > 30
    for verb, path in asked:
        answer = await manager.rest.request(verb.upper(), path, json={})
        assert (answer.status_code == 401) == (path not in OPEN), (verb, path)
    assert OPEN == ("/api/session/create", "/api/v1/vsfw/ca", "/api/v1/vsfw/enrol")
