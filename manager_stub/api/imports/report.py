"""What an import takes, and what it leaves out: filled in by the other modules here, read by the REST
interface."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Final

from manager_stub.api.declared import means_the_same
from manager_stub.api.objects import Json
from manager_stub.catalogue import DEFAULT_RULE
from manager_stub.model import Entity, Rule
from manager_stub.publish import Change
from manager_stub.world import World

NO_COUNTERPART: Final = "has no counterpart here"
_MOST: Final = 10
"""Objects that a refusal names."""


@dataclass(frozen=True)
class LeftOut:
    path: str
    what: str
    why: str


@dataclass
class Import:
    """`put` has the objects that are taken. `metadata`: how often which field was of no account."""

    world: World
    put: dict[str, Entity] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    metadata: Counter[str] = field(default_factory=Counter)
    lost: set[str] = field(default_factory=set)
    guards: list[str] = field(default_factory=list)
    """What keeps something out."""
    wants_drop: list[str] = field(default_factory=list)
    """What asks for a default rule that drops, without being one."""

    def change(self) -> Change:
        """What is not here yet as it is there."""
        put = {
            path: body
            for path, body in self.put.items()
            if not (stored := self.world.get(path)) or not means_the_same(stored.body, body)
        }
        return Change(put, [])

    def report(self) -> Json:
        return {"left_out": [asdict(each) for each in self.left_out], "metadata": dict(self.metadata)}

    def opening(self) -> str:
        """Why the rest is not to be taken by itself; empty where it may be."""
        lost = [path for path in self.guards if path in self.lost]
        lost += [] if self._default_drops() else self.wants_drop
        if not lost:
            return ""
        more = f" and {left} more" if (left := len(lost) - _MOST) > 0 else ""
        return (
            f"{', '.join(lost[:_MOST])}{more}: cannot be taken, and what stands below would decide in the "
            "place of what keeps something out; the rest is taken if you say partly (vsfwctl: --partly)"
        )

    def _default_drops(self) -> bool:
        stored = self.world.rules[DEFAULT_RULE]
        body = self.put.get(DEFAULT_RULE, stored.body)
        return isinstance(body, Rule) and body.action != "ALLOW"

    def leave(self, path: str, what: str, why: str) -> None:
        self.left_out.append(LeftOut(path, what, why))

    def lose(self, path: str, what: str, why: str) -> None:
        self.leave(path, what, why)
        self.put.pop(path, None)
        self.lost.add(path)
