"""What the rule analysis can find, and how it says so."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

MAX_NAMED: Final = 5
"""In one sentence; `Finding.others` has all."""


class Kind(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name

    SHADOWED = auto()
    """Decides nothing: a rule above, or several together, match all that it matches, and do otherwise."""
    REDUNDANT = auto()
    """Another rule does the same to all that it matches, or several above do."""
    TOO_WIDE = auto()
    """Allows everything, or every port of a protocol."""
    NO_NEIGHBOURS = auto()
    """Denies what an IPv6 address is found by, to VMs that may reach each other."""
    MATCHES_NOTHING = auto()
    """All groups of its source, or of its destination, are empty."""
    APPLIED_TO_NOTHING = auto()
    NEVER_HIT = auto()
    """No host that has it has met a packet for it, for some time; and nothing above says why."""
    UNREPORTED_HOST = auto()
    """A host that does not say what its rules count."""
    EMPTY_GROUP = auto()
    UNUSED_GROUP = auto()
    UNUSED_SERVICE = auto()
    LOOKALIKE = auto()
    """Its name is taken for another's."""


@dataclass(frozen=True)
class Finding:
    """`others`: paths of the objects that make it so. `name`: of a host, which is no object."""

    kind: Kind
    path: str
    why: str
    next_step: str
    others: tuple[str, ...] = ()
    name: str = ""
