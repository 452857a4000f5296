"""The door of the REST interface: who is it that asks? Checked before a byte of the body is read.

HTTP basic authentication, or the cookie of a session with its token in X-XSRF-TOKEN. Basic goes first, so
that a client that sends both needs no session.
"""

import base64
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from manager_stub.api.errors import answer
from manager_stub.auth import Passwords
from manager_stub.sessions import Sessions

LOGIN: Final = "/api/session/create"
"""The one path that is open: who asks there says who they are in the body."""
COOKIE: Final = "JSESSIONID"
XSRF: Final = "X-XSRF-TOKEN"

WRONG_CREDENTIALS: Final = 403
BAD_XSRF: Final = 98
"""NSX's codes beside HTTP 403. Its clients log in anew on either."""
WRONG: Final = "The credentials were incorrect or the account specified has been locked."


class Denied(Exception):
    def __init__(self, status: int, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


class Guard:
    """ASGI middleware: nobody unknown gets past it."""

    def __init__(self, app: ASGIApp, passwords: Passwords, sessions: Sessions) -> None:
        self._app = app
        self._passwords = passwords
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != LOGIN:
            try:
                await self._user(Headers(scope=scope), address(scope))
            except Denied as denied:
                headers = {"WWW-Authenticate": 'Basic realm="vsfwd"'} if denied.status == 401 else {}
                await answer(denied.status, str(denied), headers, denied.code)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _user(self, headers: Headers, address: str) -> str:
        """Who asks. Raises Denied."""
        if "authorization" in headers:
            name, password = _basic(headers["authorization"])
            if await self._passwords.verify(name, password, address):
                return name
            raise Denied(403, WRONG, WRONG_CREDENTIALS)
        id = session_id(headers)
        if not id:
            raise Denied(401, "missing credentials")
        user = self._sessions.user(id, headers.get(XSRF, ""))
        if user is None:
            raise Denied(403, f"there is no such session, or {XSRF} is not its own", BAD_XSRF)
        return user


def address(scope: Scope) -> str:
    """Where a request comes from, as the kernel says."""
    host: str = (scope.get("client") or ("", 0))[0]
    return host


def session_id(headers: Headers) -> str:
    """Empty where there is none."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _basic(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # no ASCII, no base64, no UTF-8
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise Denied(401, "the header Authorization cannot be read")
    return name, password
