"""What somebody says of a vNIC that is plugged here, checked before it is kept, and sent on. Pure."""

import re
from ipaddress import ip_address
from typing import Final

from vsfwd.ipc.interface import GuestInfo
from vsfwd.policy.model import is_uuid
from vsfwd.protocol.messages import MAX_CLAIMS, Binding, Guest, PowerState, is_host_address

MAX_TEXT: Final = 255
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DEVICE: Final = re.compile(r"(?!\.{1,2}\Z)[!-.0-9;-~]{1,15}")
"""Narrower than the kernel, which takes any byte but space, slash and colon: a name is kept and sent on."""


def announced(
    vnic: str, vm: str, mac: str, device: str, guest: GuestInfo, segment: str, addresses: list[str]
) -> Binding:
    """Raises ValueError with the name of the field."""
    for field, value in (("vnic", vnic), ("vm", vm)):
        if not is_uuid(value):
            raise ValueError(f"{field}: {value!r} is not a UUID in lower case")
    if not _MAC.fullmatch(mac):
        raise ValueError(f"mac: {mac!r} is not a MAC address in lower case with colons")
    check_device(device)
    return Binding(vnic, vm, mac, device, _guest(guest), _text("segment", segment), _addresses(addresses))


def check_device(name: str) -> None:
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"device: {name!r} cannot be the name of a device")


def _guest(said: GuestInfo) -> Guest:
    state = said.power_state or PowerState.UNKNOWN
    if state not in list(PowerState):
        raise ValueError(f"guest.power_state: {state!r} is none of {', '.join(PowerState)}")
    return Guest(
        name=_text("guest.name", said.name),
        os_name=_text("guest.os_name", said.os_name),
        computer_name=_text("guest.computer_name", said.computer_name),
        power_state=PowerState(state),
    )


def _text(field: str, text: str | None) -> str:
    text = text or ""
    if len(text) > MAX_TEXT or not text.isprintable():
        raise ValueError(f"{field}: at most {MAX_TEXT} characters, all of which can be printed")
    return text


def _addresses(texts: list[str]) -> tuple[str, ...]:
    if len(texts) > MAX_CLAIMS:
        raise ValueError(f"addresses: {len(texts)}, at most {MAX_CLAIMS}")
    try:
        usual = tuple(str(ip_address(text)) for text in texts)
    except ValueError as error:
        raise ValueError(f"addresses: {error}") from None
    for address in usual:
        if not is_host_address(address):
            raise ValueError(f"addresses: {address!r} is not the address of a host")
    return usual
