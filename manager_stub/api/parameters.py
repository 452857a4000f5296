"""What a URL may ask for: a parameter that a call does not know is refused, as an unknown field of a body is.
One that is mistyped would change more, or read more, than was meant."""

from typing import Final

from fastapi import Request
from fastapi.dependencies.models import Dependant

from manager_stub.api.errors import Problem

CHANGES_NOTHING: Final = {
    "GET": {
        "cursor",
        "page_size",
        "sort_by",
        "sort_ascending",
        "included_fields",
        "details",
        "enforcement_point_path",
        "include_mark_for_delete_objects",
    },
    "DELETE": {"fail_if_subtree_exists", "force"},
}
"""What NSX's clients say to every call of a kind, and here makes no difference: paging where all comes at
once, details, which are always there, the one enforcement point, objects between deleting and gone (there are
none), a delete that never takes more than it names."""


async def check_parameters(request: Request) -> None:
    """A dependency of every route."""
    known = _names(request.scope["route"].dependant) | CHANGES_NOTHING.get(request.method, set())
    for name in request.query_params:
        if name not in known:
            raise Problem(400, "unknown parameter", name)


def _names(call: Dependant) -> set[str]:
    own = {each.alias for each in call.query_params}
    return own.union(*map(_names, call.dependencies))
