"""What a VM takes along for each of its vNICs. Pure.

Flows are numpy arrays: ten thousand of them are read, compared, packed and put into a table within the few
milliseconds in which the VM runs nowhere. Numbers are those of bpf/types.h (states, directions, `existing`,
speech): a change to those is another `blob.VERSION`. What belongs to one host only is not here: jiffies are
milliseconds that are left, a rule is known by the manager's id and not by its counter."""

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Source

Array = npt.NDArray[np.void]

KEY: Final = np.dtype(
    [
        ("remote", "u1", 16),
        ("local", "u1", 16),
        ("remote_port", "<u2"),
        ("local_port", "<u2"),
        ("protocol", "u1"),
        ("query_in", "u1"),
        ("vlan", "<u2"),
    ]
)
"""struct flow_key. Its ports are in wire order, whatever numpy makes of them."""
SIDE: Final = np.dtype(
    [
        ("end", "<u4"),
        ("limit", "<u4"),
        ("acked", "<u4"),
        ("window", "<u2"),
        ("scale", "u1"),
        ("speech", "u1"),
    ]
)
"""struct tcp_side."""
FLOW: Final = np.dtype(
    [
        ("key", KEY),
        ("left_ms", "<u8"),
        ("rule", "<u4"),
        ("state", "u1"),
        ("initiator", "u1"),
        ("answered", "u1"),
        ("existing", "u1"),
        ("stale", "u1"),
        ("side", SIDE, 2),
        ("packets", "<u8", 2),
        ("bytes", "<u8", 2),
    ]
)
"""A flow. `left_ms`: until it ends if nothing more comes. `stale`: 1 when the policy in force at the source
has not been asked about it."""
PINHOLE: Final = np.dtype([("key", KEY), ("left_ms", "<u8"), ("rule", "<u4"), ("existing", "u1")])
"""A data connection that has been announced. The rule is that of its control connection, which allows it."""

NO_FLOWS: Final[Array] = np.zeros(0, FLOW)
NO_KEYS: Final[Array] = np.zeros(0, KEY)
NO_PINHOLES: Final[Array] = np.zeros(0, PINHOLE)

MAX_LEFT_MS: Final = 1000 * 2**32
MAX_PINHOLES: Final = 64
"""Of a vNIC: PINHOLES of bpf/types.h."""
_TCP, _ECHO_PROTOCOLS = 6, (1, 58)
_FIRST_STATE, _LAST_OF_TCP, _ECHO = 1, 7, 11
_LAST_EXISTING: Final = 2
_LAST_SPEECH: Final = 4
_MID_LINE: Final = 0x80
_SCALE_BITS: Final = 0x80 | 0x40 | 0x0F
_MAX_SHIFT: Final = 14


class Learned(NamedTuple):
    """An address that the vNIC was seen with (`messages.Claim`). `left_s`: of a lease; 0: it does not end."""

    address: str
    source: Source
    left_s: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    server: str = ""


class VnicState(NamedTuple):
    """`flows` of a round are those that are new or have changed since the round before, `gone` the keys of
    those that are no more; all else is whole in each round."""

    vnic: str
    flows: Array = NO_FLOWS
    gone: Array = NO_KEYS
    pinholes: Array = NO_PINHOLES
    learned: tuple[Learned, ...] = ()


class VmState(NamedTuple):
    """One round of a move. `final`: made after the freeze, nothing comes behind it. `epoch`, `generation`:
    of the policy in force at the source."""

    vm: str
    round: int
    final: bool
    epoch: int
    generation: int
    vnics: Sequence[VnicState]


def check_flows(flows: Array, what: str) -> None:
    """That they are such as a datapath writes. Raises Refused."""
    _check_keys(flows["key"], what)
    side, state, protocol = flows["side"], flows["state"], flows["key"]["protocol"]
    of_tcp = state <= _LAST_OF_TCP
    wrong = {
        "state": (state < _FIRST_STATE)
        | (state > _ECHO)
        | (of_tcp != (protocol == _TCP))
        | ((state == _ECHO) != np.isin(protocol, _ECHO_PROTOCOLS)),
        "initiator": flows["initiator"] > 1,
        "answered": flows["answered"] > 1,
        "existing": flows["existing"] > _LAST_EXISTING,
        "stale": flows["stale"] > 1,
        "left_ms": flows["left_ms"] > MAX_LEFT_MS,
        "scale": ((side["scale"] & ~np.uint8(_SCALE_BITS)) != 0).any(axis=1)
        | ((side["scale"] & 15) > _MAX_SHIFT).any(axis=1),
        "speech": ((side["speech"] & ~np.uint8(_MID_LINE)) > _LAST_SPEECH).any(axis=1),
    }
    _refuse(wrong, what)


def check_pinholes(pinholes: Array, what: str) -> None:
    """Raises Refused."""
    if len(pinholes) > MAX_PINHOLES:
        raise Refused(f"{what}: {len(pinholes)} are over the limit of {MAX_PINHOLES}")
    _check_keys(pinholes["key"], what)
    wrong = {
        "existing": pinholes["existing"] > _LAST_EXISTING,
        "left_ms": pinholes["left_ms"] > MAX_LEFT_MS,
    }
    _refuse(wrong, what)


def _check_keys(keys: Array, what: str) -> None:
    _refuse({"query_in": keys["query_in"] > 1, "vlan": keys["vlan"] > 4095}, what)


def _refuse(wrong: dict[str, npt.NDArray[np.bool_]], what: str) -> None:
    for field, rows in wrong.items():
        if rows.any():
            raise Refused(f"{what}: {field} of number {int(rows.argmax())} is none that a datapath writes")
