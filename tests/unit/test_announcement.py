"""What may be said of a vNIC that is plugged: kept as it is said, or refused with the field."""

from typing import Any

import pytest

from vsfwd.announcement import MAX_TEXT, announced
from vsfwd.ipc.interface import GuestInfo
from vsfwd.protocol.messages import MAX_CLAIMS, Binding, Guest, PowerState

VNIC, VM = "22222222-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000001"
GOOD: dict[str, Any] = {
    "vnic": VNIC,
    "vm": VM,
    "mac": "02:00:00:00:00:01",
    "device": "veth0",
    "guest": GuestInfo("web", "Debian 12", "web.example.net", "VM_RUNNING"),
    "segment": "blue",
    "addresses": ["10.0.0.1", "FD00::0001"],
}


def test_all_of_it_is_kept() -> None:
    """Addresses in their usual form."""
    assert announced(**GOOD) == Binding(
        VNIC,
        VM,
        "02:00:00:00:00:01",
        "veth0",
        Guest("web", "Debian 12", "web.example.net", PowerState.RUNNING),
        "blue",
        ("10.0.0.1", "fd00::1"),
    )


def test_ids_mac_and_device_are_enough() -> None:
    """Of the rest nothing is known."""
    said = announced(**{**GOOD, "guest": GuestInfo(), "segment": "", "addresses": []})
    assert said == Binding(VNIC, VM, "02:00:00:00:00:01", "veth0")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"vnic": "web"}, "vnic: 'web' is not a UUID"),
        ({"vm": VM.upper().replace("1", "A")}, "vm: "),
        ({"mac": "02-00-00-00-00-01"}, "mac: "),
        ({"device": "a/b"}, "device: "),
        ({"guest": GuestInfo(name="a\nb")}, "guest.name: "),
        ({"guest": GuestInfo(os_name="x" * (MAX_TEXT + 1))}, f"guest.os_name: at most {MAX_TEXT}"),
        ({"guest": GuestInfo(computer_name="\x00")}, "guest.computer_name: "),
        ({"guest": GuestInfo(power_state="on")}, "guest.power_state: 'on' is none of VM_RUNNING"),
        ({"segment": "\x1b[0m"}, "segment: "),
        ({"addresses": ["10.0.0.0/8"]}, "addresses: "),
        ({"addresses": ["10.0.0.1", "::ffff:1.2.3.4"]}, "addresses: '::ffff:.* is not the address of a host"),
        ({"addresses": ["255.255.255.255"]}, "addresses: '255.255.255.255' is not the address of a host"),
        (
            {"addresses": ["10.0.0.1"] * (MAX_CLAIMS + 1)},
            f"addresses: {MAX_CLAIMS + 1}, at most {MAX_CLAIMS}",
        ),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    """The field is named."""
    with pytest.raises(ValueError, match=told.replace("[", "\\[")):
        announced(**{**GOOD, **wrong})
