"""Which links are vNICs, and what happens to them; netlink in a namespace of its own is in
tests/integration."""

from tests.unit.policy_messages import APP, WEB, WEB_VM
from vsfwd.interfaces import Link, recognise
from vsfwd.protocol.messages import Binding

ANNOUNCED = {WEB: Binding(WEB, WEB_VM, "02:00:00:00:00:01", "veth-web")}


def test_an_alias_says_which_vnic_it_is() -> None:
    """With no memory at all."""
    link = Link(7, "veth3", f"vsfwd:{WEB}")
    assert recognise([link], {}) == {WEB: link}


def test_an_announced_name_says_it_before_there_is_an_alias() -> None:
    """The device comes after the announcement."""
    link = Link(7, "veth-web", "")
    assert recognise([link], ANNOUNCED) == {WEB: link}
    assert recognise([Link(7, "veth-app", "")], ANNOUNCED) == {}


def test_an_alias_survives_a_rename() -> None:
    """The alias stays with the device; the name may go to another one."""
    renamed, impostor = Link(7, "veth9", f"vsfwd:{WEB}"), Link(8, "veth-web", "")
    assert recognise([impostor, renamed], ANNOUNCED) == {WEB: renamed}


def test_a_name_never_takes_another_vnics_device() -> None:
    """The announced name belongs to a device that is labelled as another vNIC."""
    link = Link(7, "veth-web", f"vsfwd:{APP}")
    assert recognise([link], ANNOUNCED) == {APP: link}


def test_of_two_with_one_alias_the_older_is_the_vnic() -> None:
    """Whoever copies an alias does not get the policy."""
    first, second = Link(7, "veth1", f"vsfwd:{WEB}"), Link(9, "veth2", f"vsfwd:{WEB}")
    assert recognise([second, first], {}) == {WEB: first}


def test_an_alias_that_is_no_uuid_is_nobodys() -> None:
    """People write aliases, too."""
    assert recognise([Link(7, "veth1", "vsfwd:web"), Link(8, "eth0", "uplink")], {}) == {}
