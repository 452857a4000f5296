"""/api/session: log in and out, as NSX's clients do."""

from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from manager_stub.api.errors import Problem, answer
from manager_stub.auth import Passwords
from manager_stub.guard import COOKIE, LOGIN, WRONG, WRONG_CREDENTIALS, XSRF, address, session_id
from manager_stub.sessions import Sessions

_MAX_FORM: Final = 4096
_MAX_FIELDS: Final = 8


def router(passwords: Passwords, sessions: Sessions) -> APIRouter:
    routes = APIRouter(tags=["Session"])

    @routes.post(LOGIN)
    async def create(request: Request) -> Response:
        """A form of `j_username` and `j_password`; answers with the cookie and the token of a session."""
        form = await _form(request)
        name, password = (form.get(field, [""])[0] for field in ("j_username", "j_password"))
        if not await passwords.verify(name, password, address(request.scope)):
            return answer(403, WRONG, code=WRONG_CREDENTIALS)
        id, xsrf = sessions.open(name)
        done = Response(headers={XSRF: xsrf})
        done.set_cookie(COOKIE, id, secure=True, httponly=True, samesite="strict")
        return done

    @routes.post("/api/session/destroy")
    async def destroy(request: Request) -> Response:
        sessions.close(session_id(request.headers))
        return Response()

    return routes


async def _form(request: Request) -> dict[str, list[str]]:
    """The body, which comes from somebody who is not known yet: only so much of it."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM:
                raise Problem(400, f"more than {_MAX_FORM} bytes")
        return parse_qs(body.decode(), max_num_fields=_MAX_FIELDS)
    except ClientDisconnect:
        raise Problem(400, "the connection ended before it did") from None
    except UnicodeDecodeError:
        raise Problem(400, "not UTF-8") from None
    except ValueError:
        raise Problem(400, f"more than {_MAX_FIELDS} fields") from None
