"""What vsfwd keeps on disk: the last good policy, and which vNIC is plugged into which device.

The policy is kept as the objects themselves with the last signed header beside them. The header names the
digest of the state, so a file proves itself at load: the manager's signature, the addressee, and a digest
that is right. Two generations are kept; a file that a crash or a disk has spoiled falls back to the one
before it.

Nothing here is secret to root and everything is of use to nobody else: files are 0600. Whoever saves hears of
a disk that takes nothing by an OSError, of one that hangs by a TimeoutError (`vsfwd.disk`).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from vsfwd import files
from vsfwd.disk import Disk
from vsfwd.policy.desired import UNDECODABLE, DesiredState
from vsfwd.policy.layered import whole
from vsfwd.protocol.envelope import Position
from vsfwd.protocol.messages import KINDS, Addresses, Binding, Bindings, Changes

_POLICY: Final = "policy.json"
_PREVIOUS: Final = "policy.previous.json"
_POSITIONS: Final = "policy.positions.json"
_BINDINGS: Final = "vnics.json"
_ADDRESSES: Final = "addresses.json"
_LOCK: Final = "lock"
T = TypeVar("T", Bindings, Addresses)
_ANOTHERS: Final = "; it belongs to another user than the one vsfwd runs as (User= of vsfwd.service)"


class Unusable(Exception):
    """The directory cannot be this daemon's; the text names it."""


class InUse(Unusable):
    """Two daemons would write the same files, and the same maps."""


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy on disk: the header of the last message, as signed, and every object as it travelled."""

    header: bytes
    signature: bytes
    objects: Changes


class Positions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Epoch and generation of the last policy that was saved, and of the one before it."""

    last: Position
    before: Position


class StateFile:
    """The files in `directory`, for one daemon at a time. A new daemon recognises them by name and
    signature."""

    def __init__(self, directory: Path) -> None:
        """Raises Unusable. The lock ends with the process, however that ends."""
        self._directory = directory
        self._policy, self._previous = directory / _POLICY, directory / _PREVIOUS
        self._positions = directory / _POSITIONS
        self._saved: Positions | None = None
        self._disk = Disk()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(
                directory / _LOCK, os.O_CREAT | os.O_CLOEXEC, 0o600
            )  # also of a disk that is read-only
        except OSError as error:
            whose = _ANOTHERS if isinstance(error, PermissionError) else ""
            raise Unusable(f"{directory}: {error.strerror}{whose}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise InUse(f"{directory}: another vsfwd is running with this state_dir") from None

    def close(self) -> None:
        os.close(self._lock)

    def save_policy(self, header: bytes, signature: bytes, state: DesiredState) -> None:
        """On return the policy survives a power cut. A crash before leaves this or the previous one whole."""
        self._disk.write(_POLICY, partial(self._write_policy, header, signature, state))

    def _write_policy(self, header: bytes, signature: bytes, state: DesiredState) -> None:
        objects = Changes(
            *({id: msgspec.Raw(raw) for id, raw in whole(state.raw[kind]).items()} for kind in KINDS)
        )
        new = self._written(self._policy, msgspec.json.encode(Stored(header, signature, objects)))
        with suppress(FileNotFoundError):
            os.replace(self._policy, self._previous)
        os.replace(new, self._policy)
        self._save_positions(state.position)
        files.sync_directory(self._directory)

    def oldest(self) -> Position:
        """Epoch and generation below which no policy on disk is to be believed."""
        positions = self._saved_before()
        return positions.before if positions else (0, 0)

    def newest(self) -> Position:
        """Epoch and generation of the policy that was saved last."""
        positions = self._saved_before()
        return positions.last if positions else (0, 0)

    def policies(self) -> Iterator[tuple[Path, Stored | str]]:
        """The policies there are, newest first; a text instead of one says what is wrong with the file."""
        for path in (self._policy, self._previous):
            try:
                yield path, msgspec.json.decode(path.read_bytes(), type=Stored)
            except FileNotFoundError:
                continue
            except (OSError, *UNDECODABLE) as error:
                yield path, str(error)

    def _save_positions(self, last: Position) -> None:
        """After the policy: of a crash in between, what is left is older than both and stops neither.
        Nor does an empty file, so this does not wait for the disk."""
        known = self._saved or self._saved_before()
        if known is None or known.last != last:
            positions = Positions(last, known.last if known else last)
            os.replace(
                self._written(self._positions, msgspec.json.encode(positions), wait=False), self._positions
            )
            self._saved = positions

    def _saved_before(self) -> Positions | None:
        """None: nothing was saved yet, or a disk has spoiled it."""
        try:
            return msgspec.json.decode(self._positions.read_bytes(), type=Positions)
        except (OSError, *UNDECODABLE):
            return None

    def save_bindings(self, bindings: tuple[Binding, ...]) -> None:
        self._disk.write(_BINDINGS, partial(self._write, _BINDINGS, Bindings(bindings)))

    def load_bindings(self) -> tuple[Binding, ...]:
        """Raises ValueError for a spoiled file: the devices' aliases still say which vNICs they are."""
        return self._read(_BINDINGS, Bindings(())).vnics

    def save_addresses(self, addresses: Addresses) -> None:
        self._disk.write(_ADDRESSES, partial(self._write, _ADDRESSES, addresses))

    def load_addresses(self) -> Addresses:
        """Raises ValueError for a spoiled file: vNICs will claim their addresses again."""
        return self._read(_ADDRESSES, Addresses({}))

    def _read(self, name: str, none_yet: T) -> T:
        path = self._directory / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=type(none_yet))
        except FileNotFoundError:
            return none_yet
        except (OSError, *UNDECODABLE) as error:
            raise ValueError(f"{path}: {error}") from None

    def _write(self, name: str, content: Bindings | Addresses) -> None:
        path = self._directory / name
        os.replace(self._written(path, msgspec.json.encode(content)), path)
        files.sync_directory(self._directory)

    @staticmethod
    def _written(path: Path, content: bytes, *, wait: bool = True) -> str:
        """Beside `path`, under the name that is returned."""
        new = f"{path}.new"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            if wait:
                os.fsync(file)
        finally:
            os.close(file)
        return new
