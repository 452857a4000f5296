"""What the control-plane agent of a host is given, as netcpa is in NSX: the list of controllers, and a
certificate to prove itself to them with.

`CONTROLLERS`: the manager sends the list when it changes, the agent asks for it when it starts and now and
then. `IDENTITY`: the agent asks for a certificate and its key; the key comes sealed to the host's own.
`STATUS`: the manager asks what the agent has."""

import ipaddress
from typing import Annotated, Final

import msgspec

COMPONENT: Final = "control-plane-agent"
CONTROLLERS: Final = "controllers"
IDENTITY: Final = "identity"
STATUS: Final = "status"
PURPOSE: Final = "control plane"
"""Of what is sealed."""
PORT: Final = 1234
"""NSX's, of its controllers."""
MAX_CONTROLLERS: Final = 16


def common_name(host: str) -> str:
    """In the certificate. No user of the broker has it: it opens nothing there."""
    return f"control-plane.{host}"


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`thumbprint`: SHA-256 of its certificate in hex, empty: any that the authority has issued."""

    id: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.:-]{1,255}$")]
    address: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = PORT
    thumbprint: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.address)


class Controllers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`generation` is of the list, milliseconds since 1970 as in NSX; a higher one is newer. 0: never set."""

    generation: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    controllers: Annotated[tuple[Controller, ...], msgspec.Meta(max_length=MAX_CONTROLLERS)]


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM; `sealed_key` is that of the private key, sealed (`sealing`)."""

    certificate: str
    sealed_key: bytes
