"""Where each host stands: what it should have, what it was sent, what it said it has. Pure: a Level and
what happened give the next Level.

At most one message is under way to a host. What changes meanwhile waits and travels as one delta once the
host has said that it applied the message, so a slow or absent host costs one message, and no message
depends on two others that might be lost. A delta's base is what the host was last sent; a snapshot needs
none, and is sent when the host reports a state that fits nothing it was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub.classes import classes
from manager_stub.span import Objects
from vsfwd.policy.model import MAX_CLASSES, MAX_RULES, Rule
from vsfwd.protocol.envelope import Kind, Message, seal
from vsfwd.protocol.messages import DELETE, KINDS, Changes, Raw, digest_text, object_digest
from vsfwd.protocol.topology import MAX_BODY, MAX_DECODED


@dataclass(frozen=True)
class State:
    objects: Objects
    digest: int

    @property
    def text(self) -> str:
        return digest_text(self.digest)


EMPTY: Final = State({kind: {} for kind in KINDS}, 0)


@dataclass(frozen=True)
class Position:
    """A state by its name."""

    epoch: int
    generation: int
    digest: str


@dataclass(frozen=True)
class Outgoing:
    """A message the host has not said it applied. `position` is the state it leads to."""

    position: Position
    kind: Kind
    base: Position
    message: Message
    refused: bool = False
    """The host will not have it, and sending it again would change nothing."""


@dataclass(frozen=True)
class Level:
    """`sent` is None when only the name of what was sent is known: after the manager restarted between two
    messages. A host that was never sent anything stands at generation 0 and waits for its first hello."""

    host: str
    epoch: int
    generation: int
    wanted: State
    sent_generation: int
    sent_digest: str
    sent: State | None
    applied: Position
    outgoing: Outgoing | None = None

    @property
    def wanted_position(self) -> Position:
        return Position(self.epoch, self.generation, self.wanted.text)

    @property
    def in_sync(self) -> bool:
        """The host has said that it has what it should have."""
        return self.applied == self.wanted_position

    @property
    def sent_position(self) -> Position:
        return Position(self.epoch, self.sent_generation, self.sent_digest)


class TooMuch(Exception):
    """A host cannot hold what it would need; the text says what and how much."""


def state(objects: Objects, before: State = EMPTY) -> State:
    """`objects` with their digest, reckoned from that of a state which is mostly the same."""
    digest = before.digest
    for kind in KINDS:
        for id, raw in _changed(before.objects[kind], objects[kind]).items():
            old = before.objects[kind].get(id)
            digest -= object_digest(kind, id, old) if old is not None else 0
            digest += object_digest(kind, id, raw) if raw is not None else 0
    return State(objects, digest % 2**256)


def check_size(wanted: State) -> None:
    """Raises TooMuch if a host cannot hold the state, or could not be sent it in one message."""
    rules = wanted.objects["rules"]
    lines = sum(map(rule_lines, rules.values()))
    if lines > MAX_RULES:
        raise TooMuch(f"{lines} rules apply there, counted in lines; a host holds at most {MAX_RULES}")
    different = classes(wanted.objects, MAX_CLASSES)
    if different > MAX_CLASSES:
        raise TooMuch(
            f"addresses there are of {different} classes, by the groups and prefixes that have them; "
            f"a host tells at most {MAX_CLASSES} apart"
        )
    size = sum(len(raw) + len(id) + 8 for kind in KINDS for id, raw in wanted.objects[kind].items())
    if size > MAX_DECODED:
        raise TooMuch(f"the policy is {size} bytes there; at most {MAX_DECODED} can be sent")
    if size > MAX_BODY and len(zstandard.compress(_body(EMPTY, wanted), 1)) > MAX_BODY:
        raise TooMuch(f"the policy is more than {MAX_BODY} bytes there, compressed")


def rule_lines(rule: bytes) -> int:
    """How many a rule is for the datapath: one, but for what source ports ask for."""
    return len(msgspec.json.decode(rule, type=Rule).lines()) if b'"source_ports"' in rule else 1


def want(level: Level, wanted: State, key: Ed25519PrivateKey) -> Level:
    """The host should have `wanted` from now on."""
    if wanted.digest == level.wanted.digest:
        return level
    level = replace(level, generation=level.generation + 1, wanted=wanted)
    if level.outgoing is not None and level.outgoing.refused:
        return _snapshot(level, key)
    return advance(level, key)


def report(
    level: Level,
    said: Position,
    key: Ed25519PrivateKey,
    *,
    resync: bool,
    refused: frozenset[str] = frozenset(),
) -> Level:
    """The host said where it stands. `refused`: generations of the messages it would not apply."""
    level = replace(level, applied=said)
    if (said.epoch, said.generation) > (level.epoch, level.generation):
        # The manager was restored from an old copy: only a new epoch is newer than what the host has.
        level = replace(level, epoch=said.epoch + 1, generation=1, sent_generation=0, sent=None)
        return _snapshot(level, key)
    if said == level.sent_position:
        return advance(replace(level, outgoing=None), key)
    outgoing = level.outgoing
    if outgoing is None:
        return _snapshot(level, key)
    if resync:
        # A snapshot that is under way already is sent again when its time comes, not for every complaint.
        return level if outgoing.kind == Kind.SNAPSHOT else _snapshot(level, key)
    if str(outgoing.position.generation) in refused:
        # Sent again it would be refused again; what is wanted by now may fit.
        if level.generation > outgoing.position.generation:
            return _snapshot(level, key)
        return replace(level, outgoing=replace(outgoing, refused=True))
    fits = outgoing.kind == Kind.SNAPSHOT or said == outgoing.base
    return level if fits else _snapshot(level, key)


def resend(level: Level, key: Ed25519PrivateKey) -> Level:
    """All that is wanted, whatever the host says it has."""
    return _snapshot(level, key)


def advance(level: Level, key: Ed25519PrivateKey) -> Level:
    """Send what is wanted as a delta on what was sent, unless a message is under way or nothing was ever
    asked for."""
    if level.outgoing is not None or level.sent_generation in (0, level.generation):
        return level
    if level.sent is None:
        return _snapshot(level, key)
    try:
        return _send(level, key, Kind.DELTA, _body(level.sent, level.wanted))
    except ValueError:  # the deletions on top of what is new make it larger than one message
        return _snapshot(level, key)


def _snapshot(level: Level, key: Ed25519PrivateKey) -> Level:
    """Send all that is wanted, under a generation newer than any the host can have."""
    newest = max(level.sent_generation, level.applied.generation if level.applied.epoch == level.epoch else 0)
    level = replace(level, generation=max(level.generation, newest + 1))
    return _send(level, key, Kind.SNAPSHOT, _body(EMPTY, level.wanted))


def _send(level: Level, key: Ed25519PrivateKey, kind: Kind, body: bytes) -> Level:
    position = level.wanted_position
    base = level.sent_position if kind == Kind.DELTA else position
    message = seal(
        key,
        host=level.host,
        epoch=position.epoch,
        generation=position.generation,
        base=base.generation,
        kind=kind,
        digest=position.digest,
        json=body,
    )
    return replace(
        level,
        sent_generation=position.generation,
        sent_digest=position.digest,
        sent=level.wanted,
        outgoing=Outgoing(position, kind, base, message),
    )


def _changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes | None]:
    if before is after:
        return {}
    changed: dict[str, bytes | None] = {id: None for id in before.keys() - after.keys()}
    changed.update((id, raw) for id, raw in after.items() if before.get(id) != raw)
    return changed


def _body(before: State, after: State) -> bytes:
    kinds = {
        kind: {id: DELETE if raw is None else Raw(raw) for id, raw in changed.items()}
        for kind in KINDS
        if (changed := _changed(before.objects[kind], after.objects[kind]))
    }
    return msgspec.json.encode(Changes(**kinds))
