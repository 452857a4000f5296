"""What a role may do: the table, and which of its lines a call is. Pure.

Roles are NSX's. A call that no line names can be read by every role, and changed by the enterprise admin
only: what somebody forgets to enter here is closed.
"""

import re
from enum import StrEnum, auto
from typing import Final


class Role(StrEnum):
    AUDITOR = "auditor"
    OPERATOR = "security_op"
    SECURITY_ADMIN = "security_engineer"
    """NSX's id for what its console calls Security Admin."""
    ENTERPRISE_ADMIN = "enterprise_admin"


class Need(StrEnum):
    """What a call asks for."""

    SELF = auto()
    """Matters of whoever asks: own session, password, tokens."""
    READ = auto()
    AUDIT = auto()
    """Read who may do what, and who did what."""
    OPERATE = auto()
    """Day to day: tags of VMs, addresses that wait for approval, hosts that claim one vNIC, a host that is
    to be sent everything anew, VMs that change their host, traceflows, dry runs."""
    POLICY = auto()
    """Policy and inventory: change, publish, roll back."""
    SYSTEM = auto()
    """Users, hosts, and who may become one."""


GRANTS: Final[dict[Role, frozenset[Need]]] = {
    Role.AUDITOR: frozenset({Need.SELF, Need.READ, Need.AUDIT}),
    Role.OPERATOR: frozenset({Need.SELF, Need.READ, Need.OPERATE}),
    Role.SECURITY_ADMIN: frozenset({Need.SELF, Need.READ, Need.OPERATE, Need.POLICY}),
    Role.ENTERPRISE_ADMIN: frozenset(Need),
}

_READS: Final = ("GET", "HEAD")
_WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
_REALIZED: Final = "/policy/api/v1/infra/realized-state"

_TABLE: Final[tuple[tuple[tuple[str, ...], str, Need], ...]] = (
    (_READS + _WRITES, "/api/session", Need.SELF),
    (_READS + _WRITES, "/api/v1/vsfw/tokens", Need.SELF),
    (("POST",), "/api/v1/vsfw/own-password", Need.SELF),
    (_READS, "/api/v1/aaa/user-info", Need.SELF),
    (_READS, "/api/v1/vsfw/users", Need.AUDIT),
    (_READS, "/api/v1/vsfw/audit-log", Need.AUDIT),
    (_READS, "/api/v1/vsfw/enrolment-tokens", Need.AUDIT),
    (("POST",), "/api/v1/search", Need.READ),
    (("POST",), "/policy/api/v1/search", Need.READ),
    (("POST",), "/api/v1/vsfw/policy/diff", Need.READ),
    (("POST",), "/api/v1/vsfw/policy/import/diff", Need.READ),
    (("POST",), "/api/v1/fabric/virtual-machines", Need.OPERATE),
    (("POST",), "/policy/api/v1/fabric/virtual-machines", Need.OPERATE),
    (("POST",), f"{_REALIZED}/virtual-machines", Need.OPERATE),
    (("POST",), f"{_REALIZED}/enforcement-points/default/virtual-machines", Need.OPERATE),
    (("PUT",), "/policy/api/v1/infra/tags/tag-operations", Need.OPERATE),
    (("POST",), f"{_REALIZED}/realized-entity", Need.OPERATE),
    (("POST",), "/api/v1/alarms", Need.OPERATE),
    (("POST",), "/policy/api/v1/alarms", Need.OPERATE),
    (("POST",), "/api/v1/vsfw/addresses", Need.OPERATE),
    (("POST",), "/api/v1/vsfw/disputes", Need.OPERATE),
    (("POST",), "/api/v1/vsfw/hosts", Need.OPERATE),
    (_WRITES, "/api/v1/vsfw/migrations", Need.OPERATE),
    (_WRITES, "/policy/api/v1/infra/traceflows", Need.OPERATE),
    (_WRITES, "/api/v1/traceflows", Need.OPERATE),
    (_WRITES, "/policy/api/v1/infra", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/vms", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/clusters", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/datacenters", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/configurations", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/publish", Need.POLICY),
    (_WRITES, "/api/v1/vsfw/policy", Need.POLICY),
    (_READS, "/", Need.READ),
)
"""Methods, the path or what it is below, the need. The first line that fits counts."""


_DRY_RUN: Final = re.compile(
    "(/policy/api/v1/infra/drafts|/api/v1/vsfw/configurations)/[^/]+/dry-run", re.DOTALL
)
"""Changes nothing, but asks hosts and keeps others from one meanwhile."""


def need(method: str, path: str) -> Need:
    if method in _READS and _DRY_RUN.fullmatch(path):
        return Need.OPERATE
    for methods, prefix, found in _TABLE:
        if method in methods and _is_below(path, (prefix,)):
            return found
    return Need.SYSTEM


_READS_OF_POLICY: Final = ("/api/v1/vsfw/policy/diff", "/api/v1/vsfw/policy/import/diff")


def takes_policy(role: Role, method: str, path: str) -> bool:
    """Whether a call may have a whole policy in its body: of who may write one, to be written or compared."""
    return Need.POLICY in GRANTS[role] and (need(method, path) is Need.POLICY or path in _READS_OF_POLICY)


def _is_below(path: str, prefixes: tuple[str, ...]) -> bool:
    """Is one of them, or below one."""
    return any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def may(role: Role, method: str, path: str) -> bool:
    return need(method, path) in GRANTS[role]


_CREDENTIALS: Final = tuple(
    f"/api/v1/vsfw/{each}" for each in ("tokens", "own-password", "users", "enrolment-tokens")
)
"""An enrolment token becomes a host's certificate."""


def makes_credentials(method: str, path: str) -> bool:
    """Whether a call asks for a password or a session: with a token alone, one that was stolen could outlive
    being revoked."""
    return method in ("POST", "PUT") and _is_below(path, _CREDENTIALS)
