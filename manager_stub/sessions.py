"""Sessions of the REST interface, as NSX has them: a cookie that says who, and a token that every request of
the session repeats in a header, which another site's page cannot do.

In memory: after a restart everybody logs in again. A session that nobody used for a while is over.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

IDLE_S: Final = 1800.0
"""NSX's default."""
MAX_SESSIONS: Final = 64
"""Of a user; the one unused for longest makes room. So nobody ends another's."""


@dataclass(frozen=True)
class Session:
    user: str
    xsrf: str
    used: float


class Sessions:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        """By id, the one unused for longest first."""

    def open(self, user: str) -> tuple[str, str]:
        """The id of a new session, and its token."""
        own = [id for id, session in self._open.items() if session.user == user]
        if len(own) >= MAX_SESSIONS:
            del self._open[own[0]]
        id, xsrf = secrets.token_hex(32), secrets.token_hex(16)
        self._open[id] = Session(user, xsrf, self._clock())
        return id, xsrf

    def user(self, id: str, xsrf: str) -> str | None:
        """Whose it is. None: there is no such session any more, or the token is not its own."""
        session = self._open.get(id)
        if session is None or not hmac.compare_digest(session.xsrf.encode(), xsrf.encode()):
            return None
        del self._open[id]
        if self._clock() - session.used > IDLE_S:
            return None
        self._open[id] = replace(session, used=self._clock())
        return session.user

    def close(self, id: str) -> None:
        self._open.pop(id, None)

    def close_all(self, user: str) -> None:
        """Those of a user who may no longer do what they could."""
        self._open = {id: each for id, each in self._open.items() if each.user != user}
