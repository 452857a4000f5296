"""The door of the REST interface: who is it that asks, and may they? Checked before a byte of the body is
read.

HTTP basic authentication, an API token as bearer, or the cookie of a session with its token in
X-XSRF-TOKEN. The header Authorization goes first, so that a client that sends all needs no session.
"""

import base64
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from manager_stub import audit
from manager_stub.access import Role, makes_credentials, may
from manager_stub.api.errors import answer
from manager_stub.auth import Passwords
from manager_stub.locks import is_enterprise_admin
from manager_stub.sessions import Sessions
from manager_stub.users import User, Users

LOGIN: Final = "/api/session/create"
CA: Final = "/api/v1/vsfw/ca"
ENROL: Final = "/api/v1/vsfw/enrol"
OPEN: Final = (LOGIN, CA, ENROL)
"""The paths that are open: what is read there is for everybody, or who asks says who they are in the body."""
COOKIE: Final = "JSESSIONID"
XSRF: Final = "X-XSRF-TOKEN"

WRONG_CREDENTIALS: Final = 403
BAD_XSRF: Final = 98
"""NSX's codes beside HTTP 403. Its clients log in anew on either."""
UNAUTHORIZED: Final = 401
WRONG: Final = "The credentials were incorrect or the account specified has been locked."


class Denied(Exception):
    def __init__(self, status: int, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


class Guard:
    """ASGI middleware: nobody unknown gets past it, and nobody with what their role may not."""

    def __init__(self, app: ASGIApp, users: Users, passwords: Passwords, sessions: Sessions) -> None:
        self._app = app
        self._users = users
        self._passwords = passwords
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            user = await self._user(Headers(scope=scope), scope)
            _check(user, scope["method"], scope["path"])
        except Denied as denied:
            headers = {"WWW-Authenticate": 'Basic realm="vsfwd"'} if denied.status == 401 else {}
            await answer(denied.status, str(denied), headers, denied.code)(scope, receive, send)
            return
        before = audit.actor.set(user.name)
        unlocked = is_enterprise_admin.set(user.role is Role.ENTERPRISE_ADMIN)
        try:
            await self._app({**scope, "role": user.role}, receive, send)
        finally:
            audit.actor.reset(before)
            is_enterprise_admin.reset(unlocked)

    async def _user(self, headers: Headers, scope: Scope) -> User:
        """Who asks. Raises Denied."""
        name = await self._name(headers, scope)
        user = self._users.all.get(name)
        if user is None:  # deleted since
            raise Denied(403, WRONG, WRONG_CREDENTIALS)
        return user

    async def _name(self, headers: Headers, scope: Scope) -> str:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            name = self._users.of_token(value.strip())
            if name is None:
                raise Denied(403, "there is no such token, or it has expired", WRONG_CREDENTIALS)
            if makes_credentials(scope["method"], scope["path"]):
                raise Denied(403, "this takes a password or a session, not a token", UNAUTHORIZED)
            return name
        if scheme:
            name, password = _basic(scheme, value)
            if await self._passwords.verify(name, password, address(scope)):
                return name
            raise Denied(403, WRONG, WRONG_CREDENTIALS)
        return self._of_session(headers)

    def _of_session(self, headers: Headers) -> str:
        id = session_id(headers)
        if not id:
            raise Denied(401, "missing credentials")
        name = self._sessions.user(id, headers.get(XSRF, ""))
        if name is None:
            raise Denied(403, f"there is no such session, or {XSRF} is not its own", BAD_XSRF)
        return name


def _check(user: User, method: str, path: str) -> None:
    if not may(user.role, method, path):
        what = f"{user.name} with the role {user.role} may not {method} {path}"
        raise Denied(403, f"User is not authorized to perform this operation: {what}", UNAUTHORIZED)


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


def _basic(scheme: str, value: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # no ASCII, no base64, no UTF-8
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise Denied(401, "the header Authorization cannot be read")
    return name, password
