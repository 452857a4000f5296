"""Errors as NSX's API words them: one body for all of them, the field named in the message."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from manager_stub.checks import Conflict, InUse, Refused
from manager_stub.lead import Lost
from manager_stub.model import SAYS_NOTHING
from manager_stub.model.patterns import EXPECTED
from manager_stub.store import TooMuch

log = structlog.get_logger("manager.rest")

_CODES: Final = {401: 403, 404: 600, 409: 500105, 412: 604}
"""NSX's error codes by status; 400 and the rest are 220, "invalid request"."""
_IN_USE: Final = 500030
_NO_OBJECT: Final = ("model_attributes_type", "model_type", "dict_type")
"""What pydantic calls a value that is no object."""
_MOST: Final = 10
"""Errors of one body that are told in its message."""
_MOST_RELATED: Final = 100
"""And beside it, each by itself."""


def answer(
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    code: int | None = None,
    related: Sequence[str] = (),
) -> JSONResponse:
    """NSX's `ApiError`. `related`: each error by itself, where `message` is of several."""

    def error(message: str) -> dict[str, Any]:
        number = code or _CODES.get(status, 220)
        return {"error_code": number, "module_name": "policy", "error_message": message}

    body = {"httpStatus": HTTPStatus(status).name, **error(message)}
    if len(related) > 1:
        body["related_errors"] = [error(each) for each in related]
    return JSONResponse(body, status, headers)


class Problem(HTTPException):
    """Ends a request with this status. `field`: where in the body, empty: the whole."""

    def __init__(self, status: int, reason: str, field: str = "", code: int | None = None) -> None:
        super().__init__(status, f"{field}: {reason}" if field else reason)
        self.code = code
        self.related: Sequence[str] = ()


class Problems(Problem):
    """Several errors of one body, each of which says where it is; the first ones are told."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__(400, _together(errors))
        more = len(errors) - _MOST_RELATED
        self.related = [*errors[:_MOST_RELATED], *([f"and {more} more"] if more > 0 else [])]


def install(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Problem):
            return answer(error.status_code, str(error.detail), error.headers, error.code, error.related)
        return answer(error.status_code, _no_call(request, error), error.headers)

    @app.exception_handler(Lost)
    async def lost(_: Request, error: Lost) -> JSONResponse:
        return answer(503, str(error), {"Retry-After": "1"})

    @app.exception_handler(TooMuch)
    async def too_much(_: Request, error: TooMuch) -> JSONResponse:
        return answer(503, str(error))

    @app.exception_handler(OperationalError)
    async def not_stored(_: Request, error: OperationalError) -> JSONResponse:
        """Of SQLite, whose disk is full; no other manager could. Nothing has changed, here or there."""
        log.error("the database fails", reason=str(error.orig))
        return answer(503, f"the database: {error.orig}")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        """Ours. The log has it, with where it happened."""
        return answer(500, f"internal error: {type(error).__name__}")

    @app.exception_handler(RequestValidationError)
    async def request(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        return answer(400, _no_body(request, errors[-1]) or describe(errors))

    @app.exception_handler(ValidationError)
    async def model(_: Request, error: ValidationError) -> JSONResponse:
        return answer(400, describe(error.errors()))

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        if isinstance(error, InUse):
            return answer(400, str(error), code=_IN_USE)
        return answer(409 if isinstance(error, Conflict) else 400, str(error))


def _no_call(request: Request, error: HTTPException) -> str:
    """What the framework refuses by itself: a path that nobody has, a method that the path has not."""
    if error.status_code == 404:
        return f"there is nothing at {request.url.path}; /openapi.json has all paths"
    if error.status_code == 405:
        there = (error.headers or {}).get("Allow", "other methods")
        return f"there is no {request.method} of {request.url.path}, but {there}"
    return str(error.detail)


def describe(errors: Sequence[Mapping[str, Any]]) -> str:
    """ "field.path: what is wrong" of each error."""
    return _together([": ".join(filter(None, place_and_reason(error))) for error in errors])


def _together(told: Sequence[str]) -> str:
    more = [f"and {len(told) - _MOST} more"] if len(told) > _MOST else []
    return "; ".join([*told[:_MOST], *more])


def _no_body(request: Request, error: Mapping[str, Any]) -> str:
    """What is wrong where the body as a whole is not one; empty: that is not it."""
    call = f"{request.method} {request.url.path}"
    if error["type"] == "json_invalid":
        return f"body: not JSON: {error['ctx']['error']}, at character {error['loc'][-1]}"
    if error["loc"] != ("body",):
        return ""
    if error["type"] in _NO_OBJECT:
        return f"body: not a JSON object with Content-Type: application/json, which {call} takes"
    if error["type"] != "missing":
        return ""
    fields = [name for name, field in _fields(request).items() if field.is_required()]
    least = f"with {', '.join(fields)}" if fields else "{} at least"
    return f"body: missing; {call} takes a JSON object, {least}: /openapi.json has its fields"


def _fields(request: Request) -> Mapping[str, FieldInfo]:
    (body,) = request.scope["route"].dependant.body_params
    return getattr(body.field_info.annotation, "model_fields", {})


def place_and_reason(error: Mapping[str, Any]) -> tuple[str, str]:
    first, *rest = error["loc"] or ("body",)
    where = [str(part) for part in (rest if first in ("body", "path", "query") else (first, *rest))]
    # pydantic puts the chosen member of a union into the location; a caller's body has no such level.
    where = [
        part for part in where if not part.endswith(("Expression", "Condition", "Operator", "ServiceEntry"))
    ]
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        reason = f"is not {EXPECTED[error['ctx']['pattern']]}"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        where.append("resource_type")
    if error["type"] == "extra_forbidden":
        field = where[-1] if where else ""
        reason = (
            f"has no counterpart here; only {SAYS_NOTHING[field]!r} is taken"
            if field in SAYS_NOTHING
            else "unknown field"
        )
    return ".".join(where), reason
