"""Bodies of requests: how large one may be, and all of them together; and that what JSON says is said once
and can be written down again. What it should say is the models' matter."""

import json
from collections import Counter
from math import isfinite
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manager_stub.access import takes_policy
from manager_stub.api.errors import Problem, answer

MAX_BODY: Final = 64 * 1024
MAX_POLICY_BODY: Final = 32 * 1024 * 1024
"""Where policy and inventory are written or compared, by who may write them; 65,537 rules are 20 MiB."""
MAX_IN_FLIGHT: Final = 64 * 1024 * 1024
"""Of all requests under way, what each has beyond MAX_BODY: nobody's small request waits for large ones."""
MAX_DEPTH: Final = 64


class Bodies:
    """ASGI middleware that bounds what requests under way hold in memory. How long one may take to come is
    the web server's matter. (FastAPI's `max_body_size` answers in plain text where the length was announced.)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        role = scope.get("role")  # who logs in has none yet
        long = role is not None and takes_policy(role, scope["method"], scope["path"])
        limit = MAX_POLICY_BODY if long else MAX_BODY
        too_large = f"the body is larger than {limit} bytes"
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            await answer(413, too_large)(scope, receive, send)
            return
        come = held = 0

        async def receive_counted() -> Message:
            nonlocal come, held
            message = await receive()
            come += len(message.get("body", b""))
            if come > limit:
                raise Problem(413, too_large)
            more = max(0, come - MAX_BODY) - held
            if self._held + more > MAX_IN_FLIGHT:
                raise Problem(503, "other large requests are under way, try again")
            held += more
            self._held += more
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._held -= held


async def check_json(request: Request) -> None:
    """The one place that refuses what Python's parser takes and nobody can store or answer with: lone
    surrogates, in texts and in names of fields, NaN, infinity, any depth; and a name that an object has
    twice, of which the parser keeps the last (RFC 8259, 4: what a reader makes of that is unpredictable). A
    dependency of every route that has a JSON body."""
    if request.method in ("GET", "HEAD"):
        return
    try:
        body = json.loads(await request.body(), object_pairs_hook=_object)
    except (ValueError, RecursionError):  # none, or no JSON: refused where a body is asked for
        return
    _check(body, "", 0)


class _Twice(dict[str, Any]):
    """An object with a name that is there twice."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Twice(found)
        found.name = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return found


def _check(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Problem(400, f"nested deeper than {MAX_DEPTH}", where)
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float) and not isfinite(value):
        raise Problem(400, f"{value} is not a number", where)
    elif isinstance(value, dict):
        if isinstance(value, _Twice):
            raise Problem(400, "is there twice", _below(where, value.name))
        for name, each in value.items():
            inner = _below(where, name)
            _check_text(name, inner)
            _check(each, inner, depth + 1)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _check(each, f"{where}.{index}" if where else str(index), depth + 1)


def _below(where: str, name: str) -> str:
    shown = name.encode("ascii", "backslashreplace").decode()
    return f"{where}.{shown}" if where else shown


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem(400, "is not Unicode: half of a surrogate pair", where) from None
