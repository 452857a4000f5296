"""Which user of this host may be which component, and what that one may speak of: configuration, by the uid
that the kernel vouches for."""

import os
import pwd
from collections.abc import Mapping
from typing import Final

import structlog

from vsfwd.config import Component

log = structlog.get_logger(log="vsfwd.ipc")

ROOT: Final = 0


class NotAllowed(Exception):
    """The text says what is missing in the configuration."""


class Rights:
    def __init__(self, components: Mapping[str, Component]) -> None:
        self.grant(components)

    def grant(self, components: Mapping[str, Component]) -> None:
        """From now on these, and no others. Root, and the user that vsfwd runs as, may be any. Users are
        looked up here, once: one that is not there closes no other's door."""
        self._topics = {name: component.topics for name, component in components.items()}
        always = {ROOT, os.geteuid()}
        self._uids = {name: _uids(name, component) | always for name, component in components.items()}

    def check(self, uid: int, component: str, *topics: str) -> None:
        """Raises NotAllowed."""
        if component not in self._topics:
            known = ", ".join(sorted(self._topics)) or "none"
            raise NotAllowed(f"component {component[:64]!r} is not in vsfwd's configuration; there: {known}")
        if uid not in self._uids[component]:
            raise NotAllowed(f"uid {uid} is none of the users of component {component!r}")
        for topic in topics:
            if not any(_covers(allowed, topic) for allowed in self._topics[component]):
                raise NotAllowed(f"topic {topic[:64]!r} is none of those of component {component!r}")


def _covers(allowed: str, topic: str) -> bool:
    return topic == allowed or (allowed.endswith(".*") and topic.startswith(allowed[:-1]))


def _uids(name: str, component: Component) -> set[int]:
    found = set()
    for user in component.users:
        try:
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
        except KeyError:
            log.error("a component has a user that is not there", component=name, user=user)
    return found
