"""What the context agent of a host tells the manager: guests, by the ids of their VMs, and who is logged on.

`START`: from now on only what is told counts, nothing of before. `VM`: a guest, all of it. `GONE`: nothing is
known of that VM any more."""

from typing import Annotated, Final

import msgspec

from vsfwd.policy.model import is_uuid

COMPONENT: Final = "context-agent"
START: Final = "start"
VM: Final = "vm"
GONE: Final = "gone"
MAX_USERS: Final = 128

Text = Annotated[str, msgspec.Meta(max_length=255)]


class LoggedOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`session`: what kind, in the words of whoever knows. `since`: seconds since 1970, 0: unknown."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    domain: Text = ""
    session: Text = ""
    since: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0

    def __post_init__(self) -> None:
        _check_printable(self, "name", "domain", "session")


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Empty is unknown."""

    os_name: Text = ""
    computer_name: Text = ""
    users: Annotated[tuple[LoggedOn, ...], msgspec.Meta(max_length=MAX_USERS)] = ()

    def __post_init__(self) -> None:
        _check_printable(self, "os_name", "computer_name")


class VmGuest(Guest, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    vm: str

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_uuid(self.vm)


class VmGone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vm: str

    def __post_init__(self) -> None:
        _check_uuid(self.vm)


def _check_uuid(vm: str) -> None:
    if not is_uuid(vm):
        raise ValueError(f"vm: {vm[:64]!r} is not a UUID in lower case")


def _check_printable(said: object, *fields: str) -> None:
    for field in fields:
        if not getattr(said, field).isprintable():
            raise ValueError(f"{field}: not all of it can be printed")
