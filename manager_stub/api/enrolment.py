"""/api/v1/vsfw: enrolment tokens; and, for hosts that are not enrolled yet, the authority's certificate and
the enrolment itself. These two are open to everybody: a host has no credentials but its token."""

from typing import Annotated, Final

from fastapi import APIRouter, Response
from pydantic import Field

from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.broker import Unreachable
from manager_stub.enrolment.admission import Admission, Void
from manager_stub.enrolment.tokens import Token, Tokens
from manager_stub.guard import CA, ENROL, WRONG_CREDENTIALS
from manager_stub.model import HostId, Strict, Text, patterns
from manager_stub.pki import Authority
from manager_stub.register import Register

MAX_LIFETIME_S: Final = 7 * 86400
TOKENS: Final = f"{PREFIX}/enrolment-tokens"
VOID: Final = (
    "there is no such enrolment token, or it has expired, or another host has used it; make a new one by "
    "`vsfwctl tokens create`, with --host for a host that keeps its id"
)


class NewToken(Strict):
    display_name: Text = ""
    """Of the host. Left out, the host says it."""
    host: HostId | None = None
    """Enrol this host anew: it keeps its id, and no certificate of before is good any more."""
    lifetime_s: Annotated[int, Field(ge=60, le=MAX_LIFETIME_S)] = 3600


class Enrolment(Strict):
    token: Annotated[str, Field(pattern=patterns.ENROLMENT_TOKEN)]
    csr: Annotated[str, Field(max_length=16384)]
    """Certificate signing request in PEM. Its key is certified, its subject is ignored."""
    display_name: Text = ""


def router(
    register: Register,
    tokens: Tokens,
    admission: Admission,
    authority: Authority,
    manager_key: str,
    broker_urls: list[str],
) -> APIRouter:
    routes = APIRouter(tags=["Enrolment"])
    _add_tokens(routes, register, tokens, authority.key_hash)

    @routes.get(CA)
    async def read_authority() -> Json:
        """To be compared with the hash that came with the token, before anything else is believed."""
        return {"pem_encoded": authority.pem.decode()}

    @routes.post(ENROL)
    async def enrol(body: Enrolment) -> Json:
        """Give the host an id, a certificate, its queues and its rights on the broker. May be asked again
        with the same token and key, as long as the token lives."""
        token = tokens.find(body.token)
        if token is None:  # at once: of 256 random bits nobody guesses any, and who waits keeps a connection
            raise Problem(403, VOID, "token", WRONG_CREDENTIALS)
        try:
            given = await admission.enrol(token, body.csr, body.display_name)
        except Void:
            raise Problem(403, VOID, "token", WRONG_CREDENTIALS) from None
        except ValueError as error:
            raise Problem(400, str(error), "csr") from None
        except Unreachable as error:
            raise Problem(503, f"the broker cannot be set up, ask again: {error}") from None
        return {
            "id": given.host,
            "certificate": given.certificate,
            "ca": authority.pem.decode(),
            "manager_key": manager_key,
            "broker_urls": broker_urls,
        }

    return routes


def _add_tokens(routes: APIRouter, register: Register, tokens: Tokens, ca_hash: str) -> None:
    @routes.get(TOKENS)
    async def list_tokens(page: Page) -> Json:
        """Those that have not expired."""
        return listed(tokens.all, page, _shown)

    @routes.post(TOKENS, status_code=201)
    async def make(body: NewToken) -> Json:
        """The token is told this once, in `token`; `ca_hash` is what the host needs beside it."""
        if body.host is not None and body.host not in register.hosts:
            raise Problem(400, f"there is no host {body.host}", "host")
        if body.host is not None and body.display_name:
            raise Problem(400, "a host that is enrolled anew keeps its name", "display_name")
        token, text = tokens.add(body.display_name, body.host or "", body.lifetime_s)
        return {**_shown(token), "token": text, "ca_hash": ca_hash}

    @routes.delete(f"{TOKENS}/{{id}}")
    async def revoke(id: str) -> Response:
        for token in tokens.all:
            if token.id == id:
                tokens.revoke(token)
                return Response()
        raise Problem(404, f"there is no enrolment token {id}")


def _shown(token: Token) -> Json:
    return {
        "id": token.id,
        "display_name": token.display_name,
        "host": token.host or None,
        "used": token.is_used,
        "created": token.created_ms,
        "expires": token.expires_ms,
    }
