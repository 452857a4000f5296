"""Which policy counts when a daemon starts: the last good one on disk, unless an earlier daemon enforced a
newer one. Pure.

An older policy may allow what a newer one forbids. So none takes the place of a newer one that is in force,
and no message leads back behind what was here, though that may be lost."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Position, Refused

NO_POLICY: Final = DesiredState()
_POSITION: Final = struct.Struct("<4sQQ")
"""How the name of what is in force begins: its format, epoch and generation."""
_FORMAT: Final = b"pos1"
_DIGEST_BYTES: Final = 12


class Behind(Refused):
    """The message is older than what this host has had, though that is lost here."""


@dataclass(frozen=True)
class LastGood:
    """`floor`: of the newest policy that an earlier daemon enforced or saved. `lost`: what of the disk is not
    as it was saved, in words; empty where all is."""

    state: DesiredState
    floor: Position
    lost: str


def last_good(
    on_disk: Iterable[tuple[str, DesiredState | str]], enforced: Position, saved: Position
) -> LastGood:
    """`on_disk`: files, newest first, each with its policy or with what is wrong with it; of those behind the
    first policy none is asked for. `enforced`: by the kernel; `saved`: last."""
    state, reasons = NO_POLICY, list[str]()
    for file, found in on_disk:
        if isinstance(found, DesiredState):
            state = found
            break
        reasons.append(f"{file}: {found}")
    if state is not NO_POLICY and state.position < enforced:
        state = NO_POLICY
        reasons.append(f"generation {enforced[1]} is in force, and stays")
    lost = _lost(state, saved, reasons) if reasons or state.position < saved else ""
    return LastGood(state, max(enforced, saved), lost)


def check_floor(wanted: Position, floor: Position) -> None:
    """Raises Behind."""
    if wanted < floor:
        raise Behind(f"generation: {wanted} is older than {floor}, which was here")


def _lost(state: DesiredState, saved: Position, reasons: list[str]) -> str:
    loaded = f"generation {state.generation} was loaded"
    instead = "nothing was loaded, new vNICs stay closed" if state is NO_POLICY else loaded
    return f"generation {saved[1]} was saved, {instead}: {'; '.join(reasons) or 'its file is gone'}"


def name_of(position: Position, made_of: object) -> bytes:
    """Of what is in force, and all that it is made of, for a daemon that comes back."""
    return _POSITION.pack(_FORMAT, *position) + sha256(repr(made_of).encode()).digest()[:_DIGEST_BYTES]


def position_in(name: bytes) -> Position:
    """(0, 0): nobody knows."""
    if not name.startswith(_FORMAT):
        return 0, 0
    _, epoch, generation = _POSITION.unpack_from(name)
    return epoch, generation
