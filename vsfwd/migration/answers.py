"""io.vsfwd.Migration as one client has it, which is root or is told that it is not."""

import base64
import binascii
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from asyncvarlink import varlinkmethod
from asyncvarlink.serviceinterface import PermissionDenied

import vsfwd.ipc.migration_interface as api
from vsfwd.ipc.rights import ROOT
from vsfwd.migration.move import Moves
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.migration import MAX_PART, MAX_PARTS, MoveAborted, MoveOffer


class Migration(api.MigrationInterface):
    def __init__(self, uid: int, moves: Moves) -> None:
        self._uid = uid
        self._moves = moves
        self._coming: dict[str, bytearray] = {}
        """By VM: the parts of a round so far."""

    @varlinkmethod(allow_foreign=True)
    async def Prepare(self, *, offer: Any) -> None:
        with self._allowed():
            try:
                parsed = msgspec.convert(offer, MoveOffer)
            except msgspec.ValidationError as error:
                raise Refused(f"offer: {error}") from None
            await self._moves.prepare(parsed, hooked=True)

    @varlinkmethod
    async def Freeze(self, *, vm: str) -> None:
        with self._allowed():
            done = await self._moves.freeze(vm)
            if self._moves.of_manager(vm):
                self._moves.follow_up(done)

    @varlinkmethod(return_parameter="part")
    async def Export(self, *, vm: str) -> AsyncIterator[str]:
        with self._allowed():
            whole = await self._moves.export_whole(vm)
        for at in range(0, len(whole), api.PART):
            yield base64.b64encode(whole[at : at + api.PART]).decode()

    @varlinkmethod(return_parameter="imported")
    async def Import(self, *, vm: str, part: str, more: bool) -> api.Imported | None:
        with self._allowed():
            whole = self._coming.pop(vm, bytearray())
            try:
                whole += base64.b64decode(part, validate=True)
            except binascii.Error as error:
                raise Refused(f"part: {error}") from None
            if len(whole) > MAX_PART * MAX_PARTS:
                raise Refused(f"state: more than {MAX_PART * MAX_PARTS} bytes")
            if more:
                self._coming[vm] = whole
                return None
            done = await self._moves.take_whole(vm, bytes(whole))
            return api.Imported(done.round, done.flows, done.final)

    @varlinkmethod
    async def Activate(self, *, vm: str) -> None:
        with self._allowed():
            of_manager = self._moves.of_manager(vm)
            done = await self._moves.activate(vm)
            if of_manager and done:
                await self._moves.say(done)

    @varlinkmethod
    async def Finish(self, *, vm: str) -> None:
        with self._allowed():
            await self._moves.finish(vm)

    @varlinkmethod
    async def Abort(self, *, vm: str) -> None:
        with self._allowed():
            migration = self._moves.of_manager(vm)
            await self._moves.abort(vm)
            if migration:
                await self._moves.say(MoveAborted(migration, vm, "the hypervisor has aborted it"))

    @varlinkmethod(return_parameter="status")
    async def Status(self) -> api.MigrationStatus:
        with self._allowed():
            migrations = [api.Migration(*move) for move in self._moves.status()]
            key = base64.b64encode(self._moves.key()).decode()
            return api.MigrationStatus(self._moves.host, key, migrations)

    @contextmanager
    def _allowed(self) -> Iterator[None]:
        """What goes wrong, in the words of the interface."""
        if self._uid != ROOT:
            raise PermissionDenied
        try:
            yield
        except Refused as refused:
            raise api.Refused(reason=str(refused)) from None
