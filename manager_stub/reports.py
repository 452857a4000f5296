"""What hosts report, as it comes from the bus: whose word it is, and what cannot be said. Pure.

A host may be broken, or an attacker's. What no `vsfwd` says refuses a report whole, and the last good one
stays; of a report that can be, each vNIC that cannot is left out by itself, with the reason.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from manager_stub.world import World, id_of
from vsfwd.policy.model import MAX_HOST_VNICS, is_uuid
from vsfwd.protocol import components, migration, topology
from vsfwd.protocol.components import ComponentEvent
from vsfwd.protocol.envelope import Refused, unpack
from vsfwd.protocol.messages import (
    EVENTS,
    MAX_CLAIMS,
    MAX_CLAIMS_AT_ONCE,
    MAX_COUNTS,
    MAX_LEASES,
    MAX_SEEN,
    Addresses,
    Applied,
    Binding,
    Bindings,
    Event,
    Hello,
    Refusal,
    Reply,
    Statistics,
    is_host_address,
    share_of_tools,
)
from vsfwd.protocol.topology import host_of

MAX_REPORT: Final = 1024 * 1024
"""Bytes of one report."""
MAX_DECODED_REPORT: Final = 8 * 1024 * 1024
"""Bytes it may have after decompression."""
MAX_MOVE: Final = migration.MAX_PART + 4096
"""Of what is said of a move: a part of a state, and whose it is."""
LARGEST_NUMBER: Final = 2**53
"""Of an epoch or a generation: what every JSON reader, and the database, holds exactly."""
MAX_TEXT: Final = 255
"""Characters, as where vNICs are announced; of the reason of a refusal more would be a log."""
MAX_REFUSALS: Final = 100
"""That are kept: a host that refuses more has one trouble, not many."""

_KEY: Final = re.compile(r"host\.([0-9a-f-]{36})\.([a-z]+)")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class BadReport(Exception):
    """Not a report that counts; the text says why. `host`: whose it is, where the broker vouches for that;
    and its kind."""

    def __init__(self, reason: str, host: str = "", kind: str = "") -> None:
        super().__init__(plain(reason))
        self.host = host
        self.kind = kind


def parse_report(key: str, user_id: str | None, body: bytes, encoding: str = "json") -> tuple[str, Event]:
    """Host and report of a message. The broker vouches for `user_id`, so one that is missing or another's
    is refused. Raises BadReport."""
    match = _KEY.fullmatch(key)
    if match is None or match[2] not in EVENTS:
        raise BadReport("the key is not one of a report")
    host, kind = match.groups()
    if user_id is None or host_of(user_id) != host:
        raise BadReport(f"user_id is {user_id!r}")
    if len(body) > MAX_REPORT:
        raise BadReport(f"{kind}: {len(body)} bytes are over the limit of {MAX_REPORT}", host, kind)
    try:
        text = unpack(encoding, body, MAX_DECODED_REPORT)
        # Before they are read, which takes the time; each is an object, and so are two around them.
        if kind == "addresses" and text.count(b"{") > MAX_CLAIMS_AT_ONCE + 2:
            raise ValueError(f"more than the {MAX_CLAIMS_AT_ONCE} addresses of one report")
        if kind == "statistics" and text.count(b"[") > MAX_COUNTS:
            raise ValueError(f"more than the {MAX_COUNTS} rules of one report")
        return host, _possible(msgspec.json.decode(text, type=EVENTS[kind]))
    except (Refused, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadReport(f"{kind}: {error}", host, kind) from None


def parse_component_event(key: str, user_id: str | None, body: bytes) -> tuple[str, ComponentEvent]:
    """Host, and what one of its components says. Raises BadReport."""
    match = _KEY.fullmatch(key)
    if match is None or match[2] not in components.KINDS:
        raise BadReport("the key is not one of a component's message")
    host, kind = match.groups()
    if user_id is None or host_of(user_id) != host:
        raise BadReport(f"user_id is {user_id!r}")
    try:
        return host, components.decode(kind, body)
    except Refused as refused:
        raise BadReport(str(refused), host, kind) from None


def parse_move(key: str, user_id: str | None, body: bytes) -> tuple[str, migration.Move]:
    """Host, and what it says of a VM that moves. Raises BadReport."""
    match = _KEY.fullmatch(key)
    if match is None or match[2] != topology.MOVE:
        raise BadReport("the key is not one of a move")
    host = match[1]
    if user_id is None or host_of(user_id) != host:
        raise BadReport(f"user_id is {user_id!r}")
    if len(body) > MAX_MOVE:
        raise BadReport(f"move: {len(body)} bytes are over the limit of {MAX_MOVE}", host)
    try:
        return host, migration.decode(body)
    except Refused as refused:
        raise BadReport(str(refused), host) from None


def check_sender(host: str, login: str | None, hosts: Container[str], logins: Sequence[str]) -> None:
    """Whether it is a host of the register, under the last of its `logins`. Raises BadReport."""
    if host not in hosts:
        raise BadReport("the host is not, or no longer, in the register")
    if login != logins[-1]:
        raise BadReport(f"user_id is {login!r}, of an earlier enrolment", host)


def in_order(heard: Mapping[int, tuple[str, Event]]) -> Iterator[list[int]]:
    """Numbers of reports that can count together: what several hosts have applied. Anything else counts by
    itself, and so does what a host says after that."""
    together: dict[str, int] = {}
    for number, (host, report) in heard.items():
        alone = not isinstance(report, Hello | Applied)
        if together and (alone or host in together):
            yield [*together.values()]
            together = {}
        if alone:
            yield [number]
        else:
            together[host] = number
    if together:
        yield [*together.values()]


def believable(world: World, bindings: Sequence[Binding]) -> tuple[tuple[Binding, ...], list[str]]:
    """The bindings that can be, each vNIC once, and why the others cannot. Of two with one id the first, or
    the one of the VM that the inventory knows."""
    good: dict[str, Binding] = {}
    wrong: list[str] = []
    share = share_of_tools(len(bindings))
    for binding in sorted(bindings, key=lambda binding: is_of_another(world, binding)):
        reason = _impossible(binding)
        if not reason and binding.vnic in good:
            reason = "it is there twice"
        if reason:
            wrong.append(plain(f"vNIC {binding.vnic[:36]}: {reason}"))
            continue
        heard = binding.addresses[:share]
        if heard != binding.addresses:
            wrong.append(f"vNIC {binding.vnic}: of {len(binding.addresses)} addresses only {share} count")
        usable = tuple(address for address in heard if is_host_address(address))
        if usable != heard:
            wrong.append(f"vNIC {binding.vnic}: addresses that are no host's")
        good[binding.vnic] = msgspec.structs.replace(binding, addresses=usable)
    return tuple(good.values()), wrong


def plain(text: str) -> str:
    """Of others, for a log or a page: of bounded length, and with nothing that moves the cursor."""
    kept = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return "".join(letter if letter.isprintable() else "�" for letter in kept)


def is_of_another(world: World, binding: Binding) -> bool:
    """By the inventory, the vNIC is not the VM's that a host says it is."""
    known = world.vnics.get(binding.vnic)
    return known is not None and id_of(known.path) != binding.vm


def _possible(report: Event) -> Event:
    """As it is to be read. Raises ValueError."""
    if isinstance(report, Hello | Applied):
        _check_position(report)
        return msgspec.structs.replace(report, refusals=tuple(_refusals(report.refusals)))
    if isinstance(report, Bindings):
        _check_vnics(len(report.vnics))
        if not 0 <= report.said_ns < 2**63:
            raise ValueError(f"said_ns: {report.said_ns} is no time")
    elif isinstance(report, Addresses):
        _check_vnics(len(report.vnics))
        known = {
            vnic: tuple(
                claim for claim in claims[: MAX_CLAIMS + MAX_LEASES] if is_host_address(claim.address)
            )
            for vnic, claims in report.vnics.items()
        }
        return Addresses(known)
    elif isinstance(report, Reply):
        flows = sum(map(len, report.flows.values()))
        if flows > MAX_SEEN:
            raise ValueError(f"{flows} flows are over the {MAX_SEEN} of one answer")
        return msgspec.structs.replace(report, id=plain(report.id), error=plain(report.error))
    elif isinstance(report, Statistics):
        if not is_uuid(report.boot):
            raise ValueError("boot: not a UUID in lower case")
        if wrong := next((id for id in report.rules if not _NUMBER.fullmatch(id)), None):
            raise ValueError(f"rules: {plain(wrong)!r} is not the number of a rule")
    return report


def _check_position(report: Hello | Applied) -> None:
    for field, number in (("epoch", report.epoch), ("generation", report.generation)):
        if not 0 <= number < LARGEST_NUMBER:
            raise ValueError(f"{field} {number} was never sent")
    if not _DIGEST.fullmatch(report.digest):
        raise ValueError("digest: not 64 hexadecimal digits")
    if isinstance(report, Hello) and plain(report.vsfwd) != report.vsfwd:
        raise ValueError(f"vsfwd: at most {MAX_TEXT} characters, all of which can be printed")


def _check_vnics(count: int) -> None:
    if count > MAX_HOST_VNICS:
        raise ValueError(f"{count} vNICs are over the {MAX_HOST_VNICS} that a host can have")


def _refusals(refusals: Iterable[Refusal]) -> Iterator[Refusal]:
    """The first ones; their reasons quote objects, and may be long."""
    for number, refusal in enumerate(refusals):
        if number == MAX_REFUSALS:
            break
        yield Refusal(plain(refusal.kind), plain(refusal.id), plain(refusal.reason))


def _impossible(binding: Binding) -> str:
    """Why a binding cannot be; empty if it can."""
    if not is_uuid(binding.vnic):
        return "its id is not a UUID in lower case"
    if binding.vm and not is_uuid(binding.vm):
        return "the id of its VM is not a UUID in lower case"
    if not _MAC.fullmatch(binding.mac):
        return "its MAC address is none in lower case with colons"
    if len(binding.addresses) > MAX_CLAIMS:
        return f"{len(binding.addresses)} addresses are more than {MAX_CLAIMS}"
    guest = binding.guest
    texts = (binding.device, binding.segment, guest.name, guest.os_name, guest.computer_name)
    if any(plain(text) != text for text in texts):
        return f"device, segment and names have at most {MAX_TEXT} characters, all of which can be printed"
    return ""
