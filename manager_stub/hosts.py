"""A host as the manager knows it: what it said, what it is to have, and how the store keeps that. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub import levels
from manager_stub.checks import Refused
from manager_stub.levels import Level, Outgoing, Position, TooMuch
from manager_stub.span import Realised
from manager_stub.transaction import HostRow
from vsfwd.protocol.messages import Applied, Binding, Hello, Refusal

log = structlog.get_logger()


@dataclass(frozen=True)
class Host:
    id: str
    display_name: str
    level: Level
    bindings: tuple[Binding, ...] = ()
    """The vNICs it has."""
    disputed: tuple[Binding, ...] = ()
    """Those it says it has, while others have them (`plugged`)."""
    disputes: int = 0
    """How many it claimed that others had, since the manager was started."""
    left_out: tuple[str, ...] = ()
    """What of its last report, or that all of it, does not count, and why."""
    reports_refused: int = 0
    """Since the manager was started."""
    refused_because: str = ""
    """The last of them, or of its components' messages."""
    refusals: tuple[Refusal, ...] = ()
    vsfwd: str = ""
    last_seen_ms: int = 0
    expected: frozenset[str] = frozenset()
    """vNICs that are about to be plugged there (`moves`)."""
    problem: str = ""
    """Why the host is kept at an older state than its bindings ask for."""

    @property
    def vnics(self) -> frozenset[str]:
        """Those it is to have the policy of."""
        return vnics_of(self.bindings) | self.expected


def trouble(host: Host) -> str:
    """Why it does not have what it is to have; empty: nothing is known."""
    refused = "; ".join(f"{each.kind} {each.id}: {each.reason}" for each in host.refusals)
    return host.problem or refused


def vnics_of(bindings: Iterable[Binding]) -> frozenset[str]:
    return frozenset(binding.vnic for binding in bindings)


def plugged_at(bindings: Mapping[str, Iterable[Binding]]) -> Mapping[str, frozenset[str]]:
    """Hosts by the vNICs they have."""
    found: dict[str, set[str]] = {}
    for host, there in bindings.items():
        for binding in there:
            found.setdefault(binding.vnic, set()).add(host)
    return {vnic: frozenset(hosts) for vnic, hosts in found.items()}


def placed(host: Host, said: Iterable[Binding], taken: tuple[Binding, ...]) -> Host:
    """The host with what counts of what it says, and what does not. The same one if that is as it was."""
    mine = vnics_of(taken)
    disputed = tuple(binding for binding in said if binding.vnic not in mine)
    if (taken, disputed) == (host.bindings, host.disputed):
        return host
    # Of a VM that moves the new host may speak before the old one.
    new = vnics_of(disputed) - vnics_of(host.disputed) - host.expected
    if new:
        log.warning("a host claims vNICs of others", host=host.id, count=len(new), vnics=sorted(new)[:10])
    return replace(host, bindings=taken, disputed=disputed, disputes=host.disputes + len(new))


def advanced(
    realised: Realised, hosts: Iterable[Host], key: Ed25519PrivateKey, *, refuse: bool = True
) -> dict[str, Host]:
    """Those of the hosts that want something else than before. One that could not hold it raises Refused,
    or has a problem."""
    moved: dict[str, Host] = {}
    for host in hosts:
        needs = realised.needs(host.vnics)
        wanted = levels.state(needs, host.level.wanted)
        if wanted.digest == host.level.wanted.digest and not host.problem:
            continue
        try:
            levels.check_size(wanted)
        except TooMuch as error:
            if host.problem:  # as before this change, which may be a step of the cure
                continue
            reason = f"host {host.display_name} ({host.id}): {error}"
            if refuse:
                raise Refused("", reason) from None
            log.error("a host keeps its last state", host=host.id, reason=reason)
            moved[host.id] = replace(host, problem=reason)
            continue
        moved[host.id] = replace(host, level=levels.want(host.level, wanted, key), problem="")
    return moved


def heard(host: Host, said: Hello | Applied, key: Ed25519PrivateKey, now_ms: int) -> Host:
    """The host when it has said what it has applied."""
    position = Position(said.epoch, said.generation, said.digest)
    level = replace(host.level, applied=position)
    if not host.problem:
        level = levels.report(
            host.level,
            position,
            key,
            resync=isinstance(said, Applied) and said.resync,
            refused=frozenset(refusal.id for refusal in said.refusals if refusal.kind == "message"),
        )
    vsfwd = said.vsfwd if isinstance(said, Hello) else host.vsfwd
    refusals = said.refusals
    if level.outgoing is not None and level.outgoing.refused:
        # Said once, when the message came; what the host says later is of the state that it has.
        refusals += tuple(
            each for each in host.refusals if each.kind == "message" and each not in said.refusals
        )
    return replace(host, level=level, refusals=refusals, vsfwd=vsfwd, last_seen_ms=now_ms)


def resumed(host: Host, key: Ed25519PrivateKey) -> Host:
    """What was wanted, but not sent, when the last process ended is sent now. The same one if there is none
    of that."""
    level = host.level if host.problem else levels.advance(host.level, key)
    return host if level is host.level else replace(host, level=level)


def bindings_of(row: HostRow) -> tuple[Binding, ...]:
    return msgspec.json.decode(row.bindings, type=tuple[Binding, ...])


def stored_host(
    row: HostRow, outgoing: Outgoing | None, realised: Realised, expected: frozenset[str] = frozenset()
) -> Host:
    bindings = bindings_of(row)
    wanted, problem = levels.state(realised.needs(vnics_of(bindings) | expected)), ""
    try:
        levels.check_size(wanted)
    except TooMuch as error:
        wanted, problem = levels.EMPTY, str(error)  # never sent: a host with a problem is sent nothing
    level = Level(
        row.id,
        row.epoch,
        # A release that renders the same objects otherwise wants something new.
        row.generation + (wanted.text != row.digest),
        wanted,
        row.sent_generation,
        row.sent_digest,
        wanted if wanted.text == row.sent_digest else None,
        Position(row.applied_epoch, row.applied_generation, row.applied_digest),
        outgoing,
    )
    return Host(
        row.id,
        row.display_name,
        level,
        bindings,
        msgspec.json.decode(row.disputed, type=tuple[Binding, ...]),
        refusals=msgspec.json.decode(row.refusals, type=tuple[Refusal, ...]),
        vsfwd=row.vsfwd,
        last_seen_ms=row.last_seen_ms,
        expected=expected,
        problem=problem,
    )


def host_row(host: Host) -> HostRow:
    level = host.level
    return HostRow(
        host.id,
        host.display_name,
        level.epoch,
        level.generation,
        level.wanted.text,
        level.sent_generation,
        level.sent_digest,
        level.applied.epoch,
        level.applied.generation,
        level.applied.digest,
        msgspec.json.encode(host.refusals).decode(),
        msgspec.json.encode(host.bindings).decode(),
        host.vsfwd,
        host.last_seen_ms,
        msgspec.json.encode(host.disputed).decode(),
    )
