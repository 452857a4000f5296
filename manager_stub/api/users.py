"""/api/v1/vsfw/users, tokens and own-password: who may speak to the manager, and as what."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from manager_stub import audit
from manager_stub.access import Role
from manager_stub.api.errors import Problem
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import Json, Page, listed
from manager_stub.auth import Passwords
from manager_stub.guard import WRONG_CREDENTIALS, address
from manager_stub.model import Strict, Text, Uuid, patterns
from manager_stub.users import Token, User, Users

MAX_LIFETIME_S = 366 * 86400

Name = Annotated[str, Field(pattern=patterns.USER)]
Password = Annotated[str, Field(min_length=12, max_length=128)]
"""As short as NSX lets it be."""


class NewUser(Strict):
    role: Annotated[Role, Field(strict=False)]
    password: Password | None = None
    """Left out, a user who exists keeps theirs."""


class NewPassword(Strict):
    old_password: Annotated[str, Field(max_length=128)]
    password: Password


class NewToken(Strict):
    display_name: Annotated[Text, Field(min_length=1)]
    lifetime_s: Annotated[int, Field(ge=60, le=MAX_LIFETIME_S)] = 90 * 86400


def router(users: Users, passwords: Passwords) -> APIRouter:
    routes = APIRouter(tags=["User"])
    _add_users(routes, users)
    _add_tokens(routes, users)

    @routes.get("/api/v1/aaa/user-info")
    async def user_info() -> Json:
        """Who asks, in NSX's shape."""
        user = users.all[audit.actor.get()]
        return {"user_name": user.name, "roles": [{"role": user.role}]}

    @routes.post(f"{PREFIX}/own-password", status_code=204)
    async def own_password(body: NewPassword, request: Request) -> None:
        """Sessions and tokens of the user end."""
        name = audit.actor.get()
        if not await passwords.verify(name, body.old_password, address(request.scope)):
            raise Problem(403, "is wrong", "old_password", WRONG_CREDENTIALS)
        users.put(name, users.all[name].role, body.password)

    return routes


def _add_users(routes: APIRouter, users: Users) -> None:
    @routes.get(f"{PREFIX}/users")
    async def list_users(page: Page) -> Json:
        return listed(users.all.values(), page, _user)

    @routes.get(f"{PREFIX}/users/{{name}}")
    async def read(name: Name) -> Json:
        return _user(_existing(users, name))

    @routes.put(f"{PREFIX}/users/{{name}}")
    async def put(name: Name, body: NewUser) -> Json:
        """Sessions of the user end; with a new password, tokens too."""
        users.put(name, body.role, body.password)
        return _user(users.all[name])

    @routes.delete(f"{PREFIX}/users/{{name}}")
    async def delete(name: Name) -> Response:
        users.delete(_existing(users, name).name)
        return Response()

    @routes.get(f"{PREFIX}/users/{{name}}/tokens")
    async def list_tokens_of(name: Name, page: Page) -> Json:
        return listed(users.tokens_of(_existing(users, name).name), page, _token)

    @routes.delete(f"{PREFIX}/users/{{name}}/tokens/{{id}}")
    async def revoke_token_of(name: Name, id: Uuid) -> Response:
        return _revoked(users, _existing(users, name).name, id)


def _add_tokens(routes: APIRouter, users: Users) -> None:
    @routes.get(f"{PREFIX}/tokens")
    async def list_tokens(page: Page) -> Json:
        """One's own."""
        return listed(users.tokens_of(audit.actor.get()), page, _token)

    @routes.post(f"{PREFIX}/tokens", status_code=201)
    async def make(body: NewToken) -> Json:
        """A token with the role of its user. It is told this once, in `token`."""
        token, secret = users.add_token(audit.actor.get(), body.display_name, body.lifetime_s)
        return {**_token(token), "token": secret}

    @routes.delete(f"{PREFIX}/tokens/{{id}}")
    async def revoke(id: Uuid) -> Response:
        return _revoked(users, audit.actor.get(), id)


def _revoked(users: Users, name: str, id: str) -> Response:
    for token in users.tokens_of(name):
        if token.id == id:
            users.revoke(token)
            return Response()
    raise Problem(404, f"{name} has no token {id}")


def _existing(users: Users, name: str) -> User:
    user = users.all.get(name)
    if user is None:
        raise Problem(404, f"there is no user {name}")
    return user


def _user(user: User) -> Json:
    return {"name": user.name, "role": user.role}


def _token(token: Token) -> Json:
    return {
        "id": token.id,
        "display_name": token.display_name,
        "created": token.created_ms,
        "expires": token.expires_ms,
    }
