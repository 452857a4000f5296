"""What this host was told to enforce: the state that policy messages build, one after the other.

`apply` either takes a message whole or raises `Refused` and nothing has changed. Inside a message each object
stands for itself: a bad one is reported and its last good version stays in force, or it is left out; it never
stops the others. Raw objects are kept as they travelled, because the digest is made of them and the disk
keeps them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from vsfwd.policy.layered import GONE, Gone, changed, different
from vsfwd.policy.model import MAX_RULES, Group, Rule, Vnic, is_uuid, type_of
from vsfwd.protocol.envelope import Header, Kind, Position, Refused
from vsfwd.protocol.messages import DELETE, KINDS, Changes, Raw, Refusal, digest_text, object_digest

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises for bytes it cannot decode."""
_RULE_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
_MAX_RULE_NUMBER: Final = 2**32 - 1


class Duplicate(Refused):
    """The state has this message already."""


class OutOfStep(Refused):
    """The message does not fit on the state; a snapshot will."""


@dataclass(frozen=True)
class DesiredState:
    """`raw`: all objects as sent, bad ones too. `rules`, `groups`, `vnics`: what is in force of them. An
    object, or a whole mapping, that a message does not touch is the same one afterwards: the compiler
    compares identities."""

    epoch: int = 0
    generation: int = 0
    digest: int = 0
    raw: Mapping[str, Mapping[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    rules: Mapping[int, Rule] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    vnics: Mapping[str, Vnic] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()

    @property
    def position(self) -> Position:
        return self.epoch, self.generation


def apply(state: DesiredState, header: Header, json: bytes) -> DesiredState:
    """The state after a message. Raises Refused (`Duplicate` and `OutOfStep` are such) and then nothing
    changes."""
    _check_sequence(state, header)
    try:
        changes = msgspec.json.decode(json, type=Changes)
    except UNDECODABLE as error:
        raise Refused(f"body: {error}") from None
    if header.epoch != state.epoch:
        # A new epoch is a manager that lost its memory: ids may mean other things, nothing is carried over.
        state = DesiredState()
    sent = {kind: getattr(changes, kind) for kind in KINDS}
    raw, digest = _merge(state, header.kind, sent)
    if digest_text(digest) != header.digest:
        # Another snapshot would not fit better than this one.
        refused = Refused if header.kind is Kind.SNAPSHOT else OutOfStep
        raise refused(f"digest: the state would be {digest_text(digest)}, the manager has {header.digest}")
    if len(raw["rules"]) > MAX_RULES:
        raise Refused(f"rules: {len(raw['rules'])} are over the limit of {MAX_RULES}")
    return _in_force(state, header, raw, digest)


def _check_sequence(state: DesiredState, header: Header) -> None:
    here, there = state.position, header.position
    if there < here:
        raise Refused(f"generation: {there} is older than {here}")
    if there == here and header.digest == digest_text(state.digest):
        raise Duplicate(f"generation: {there} is applied already")
    if header.kind is Kind.DELTA and (header.epoch, header.base) != here:
        raise OutOfStep(f"generation: {there} builds on {(header.epoch, header.base)}, here is {here}")
    if header.kind is Kind.DELTA and there == here:
        raise OutOfStep(f"generation: {there} is applied already, with another digest")


Raws = Mapping[str, Mapping[str, bytes]]
Sent = Mapping[str, Mapping[str, Raw]]


def _merge(state: DesiredState, kind: Kind, sent: Sent) -> tuple[Raws, int]:
    """All raw objects after a message, and their digest. An object, or a kind, of which nothing changes keeps
    its place: what stays is told by identity, and is in memory once."""
    merged: dict[str, Mapping[str, bytes]] = {}
    digest = 0 if kind is Kind.SNAPSHOT else state.digest
    for name in KINDS:
        before = state.raw[name]
        edits: dict[str, bytes | Gone] = {}
        if kind is Kind.SNAPSHOT:
            edits.update((id, GONE) for id in before if id not in sent[name])
        for id, raw in sent[name].items():
            if kind is not Kind.SNAPSHOT and id in before:
                digest -= object_digest(name, id, before[id])
            if raw == DELETE:
                edits[id] = GONE
                continue
            edits[id] = data = bytes(raw)
            digest += object_digest(name, id, data)
        merged[name] = changed(before, edits)
    return merged, digest % 2**256


def _in_force(state: DesiredState, header: Header, raw: Raws, digest: int) -> DesiredState:
    """Decode what changed. Rules and vNICs are looked at again when groups come or go, for they may name
    them."""
    refusals = {(refusal.kind, refusal.id): refusal for refusal in state.refusals}
    groups = _resolve("groups", state, raw, refusals, changed_only=True, known=frozenset())
    known = groups.keys()
    same_groups = groups is state.groups or known == state.groups.keys()
    rules = _resolve("rules", state, raw, refusals, changed_only=same_groups, known=known)
    vnics = _resolve("vnics", state, raw, refusals, changed_only=same_groups, known=known)
    if rules is not state.rules:
        lines = sum(len(rule.lines()) for rule in rules.values())
        if lines > MAX_RULES:
            raise Refused(f"rules: {lines} lines are over the limit of {MAX_RULES}")
    return DesiredState(
        epoch=header.epoch,
        generation=header.generation,
        digest=digest,
        raw=raw,
        rules=cast(Mapping[int, Rule], rules),
        groups=cast(Mapping[str, Group], groups),
        vnics=cast(Mapping[str, Vnic], vnics),
        refusals=tuple(refusals[key] for key in sorted(refusals)),
    )


def _resolve(
    kind: str,
    state: DesiredState,
    raw: Raws,
    refusals: dict[tuple[str, str], Refusal],
    *,
    changed_only: bool,
    known: Collection[str],
) -> Mapping[Any, Any]:
    """The objects of a kind that are in force; what is wrong with the others is put into `refusals`."""
    before, after = state.raw[kind], raw[kind]
    objects: Mapping[Any, Any] = getattr(state, kind)
    suspects = different(before, after)
    if not changed_only:
        suspects.update(id for id in after if not _still_good(kind, id, objects, refusals, known))
    edits: dict[Any, Any] = {}
    for id in sorted(suspects):  # the compiler numbers rows in the order of the objects
        key = _key(kind, id)
        refusals.pop((kind, id), None)
        edits[key] = GONE
        if id not in after:
            continue
        try:
            edits[key] = _checked(kind, id, msgspec.json.decode(after[id], type=type_of[kind]), known)
        except (*UNDECODABLE, ValueError) as error:
            reason = str(error)
            last_good = objects.get(key)
            if last_good is not None and not _unknown_groups(last_good, known):
                edits[key] = last_good
                reason += "; its last good version stays in force"
            refusals[kind, id] = Refusal(kind, id, reason)
    return changed(objects, edits)


def _still_good(
    kind: str,
    id: str,
    objects: Mapping[Any, Any],
    refusals: Mapping[tuple[str, str], Refusal],
    known: Collection[str],
) -> bool:
    """Whether an object that was not sent again is what was sent, and the groups it names are still there."""
    object = objects.get(_key(kind, id))
    return object is not None and (kind, id) not in refusals and not _unknown_groups(object, known)


def _key(kind: str, id: str) -> int | str:
    return int(id) if kind == "rules" and _RULE_NUMBER.fullmatch(id) else id


def _checked(kind: str, id: str, object: Rule | Group | Vnic, known: Collection[str]) -> Rule | Group | Vnic:
    """The object, if its id is right and it names only groups that are there. Raises ValueError."""
    if kind == "rules" and not (_RULE_NUMBER.fullmatch(id) and int(id) <= _MAX_RULE_NUMBER):
        raise ValueError(f"id: {id!r} is not a number in 1-{_MAX_RULE_NUMBER}")
    if kind == "vnics" and not is_uuid(id):
        raise ValueError(f"id: {id!r} is not a UUID")
    unknown = _unknown_groups(object, known)
    if unknown:
        raise ValueError(f"groups: {', '.join(unknown)} unknown")
    return object


def _unknown_groups(object: Rule | Group | Vnic, known: Collection[str]) -> list[str]:
    if isinstance(object, Group):
        return []
    named = object.groups() if isinstance(object, Rule) else object.groups
    return sorted({group for group in named if group not in known})
