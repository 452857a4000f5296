"""What the web server serves: the REST interface while this manager leads, otherwise the word who does.

A manager that stands by knows nothing: it answers 503 to everything, so that a load balancer which asks for
`/api/v1/reverse-proxy/node/health` sends nobody here, and a person reads where to go.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from manager_stub.api.errors import answer


class Front:
    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        """The REST interface."""
        self.leader = ""
        """The address of whoever leads, as far as it is known."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)
            return
        who = f"https://{self.leader} leads" if self.leader else "nobody leads yet"
        away = answer(503, f"this manager stands by; {who}", {"Retry-After": "1"})
        await away(scope, receive, send)
