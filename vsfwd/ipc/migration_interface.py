"""The varlink interface `io.vsfwd.Migration`: the steps of a live migration, for the hook of a hypervisor.
Root only. Its field names are a promise to other people's programs.

The class is the signature only; `vsfwd.migration.answers` answers. States are base64, in parts that a message
has room for."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

NAME: Final = "io.vsfwd.Migration"
PART: Final = 24 * 1024
"""Bytes of a state in one message: base64 of them and the rest fit into what the server takes."""


class Refused(TypedVarlinkErrorReply, interface=NAME):
    """This step cannot be done, and nothing has changed."""

    class Parameters:
        reason: str


@dataclass(frozen=True)
class Imported:
    """`round` is installed; `final`: all is here, and the VM's announcement brings it to life. `flows`: so
    far."""

    round: int
    flows: int
    final: bool


@dataclass(frozen=True)
class Migration:
    """One that this host takes part in. `role`: source or target. `step`: the last one done. `rounds`,
    `flows`: exported or imported so far. `held`: why nothing passes (frozen, waiting, heard, dead), by
    vNIC."""

    migration: str
    vm: str
    role: str
    step: str
    rounds: int
    flows: int
    held: dict[str, str]
    age_s: int


@dataclass(frozen=True)
class MigrationStatus:
    """`key`: of this host, as an offer has it (SubjectPublicKeyInfo, DER, base64)."""

    host_id: str
    key: str
    migrations: list[Migration]


class MigrationInterface(VarlinkInterface, name=NAME):
    errors = (Refused,)

    @varlinkmethod(allow_foreign=True)
    async def Prepare(self, *, offer: Any) -> None:
        """At both hosts, with the same offer: `MoveOffer` of vsfwd/protocol/migration.py as JSON. Not
        needed where the manager has been asked for the migration."""
        raise NotImplementedError

    @varlinkmethod
    async def Freeze(self, *, vm: str) -> None:
        """At the source, when the VM stops there. Of a migration that the manager was asked for, the rest of
        what the VM takes along follows by itself."""
        raise NotImplementedError

    @varlinkmethod(return_parameter="part")
    async def Export(self, *, vm: str) -> AsyncIterator[str]:
        """At the source, for the hypervisor's own channel: all that the VM takes along, later what has
        changed since. After Freeze it is the last."""
        raise NotImplementedError
        yield

    @varlinkmethod(return_parameter="imported")
    async def Import(self, *, vm: str, part: str, more: bool) -> Imported | None:
        """At the target, what was exported, in the same order; null while there are more parts."""
        raise NotImplementedError

    @varlinkmethod
    async def Activate(self, *, vm: str) -> None:
        """At the target: the VM runs here."""
        raise NotImplementedError

    @varlinkmethod
    async def Finish(self, *, vm: str) -> None:
        """At the source: the VM runs at the target, and its flows here end."""
        raise NotImplementedError

    @varlinkmethod
    async def Abort(self, *, vm: str) -> None:
        """The VM stays where it is: the source goes on, the target forgets."""
        raise NotImplementedError

    @varlinkmethod(return_parameter="status")
    async def Status(self) -> MigrationStatus:
        raise NotImplementedError
