"""/api/v1/vsfw/audit-log: who changed what, the newest first. It can be read, and nothing else."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query

from manager_stub.api.aside import Aside
from manager_stub.api.inventory import PREFIX
from manager_stub.api.objects import MAX_PAGE, Json
from manager_stub.model import patterns
from manager_stub.store import Store

_END = 2**53


def router(store: Store, aside: Aside) -> APIRouter:
    routes = APIRouter(tags=["Audit log"])

    @routes.get(f"{PREFIX}/audit-log")
    async def read(
        user: Annotated[str | None, Query(max_length=64, pattern=patterns.NO_NUL)] = None,
        path: Annotated[str, Query(max_length=1024, pattern=patterns.NO_NUL)] = "",
        cursor: Annotated[int, Query(ge=1, le=_END)] = _END,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    ) -> Json:
        """Of a user, of an object and what is below it. `cursor`: changes older than that one."""
        rows = await aside.run(
            lambda _: store.changes(before=cursor, limit=page_size + 1, user=user, path=path)
        )
        found: Json = {"results": [_shown(row) for row in rows[:page_size]]}
        return found | {"cursor": str(rows[page_size - 1]["id"])} if len(rows) > page_size else found

    return routes


def _shown(row: dict[str, Any]) -> Json:
    return {
        "id": row["id"],
        "time": row["time_ms"],
        "user": row["user"],
        "path": row["path"],
        "before": row["before"] and json.loads(row["before"]),
        "after": row["after"] and json.loads(row["after"]),
    }
