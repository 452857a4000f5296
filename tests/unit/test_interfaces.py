"""Which links are vNICs, and what happens to them; netlink in a namespace of its own is in
tests/integration."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Mapping, Set
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWLINK, RTM_NEWTFILTER

import vsfwd.interfaces
from tests.harness.waiting import eventually
from tests.unit.policy_messages import APP, WEB, WEB_VM
from vsfwd.interfaces import UNKNOWN_MAC, Conflict, Interfaces, Link, recognise
from vsfwd.policy.model import Vnic
from vsfwd.protocol import messages
from vsfwd.protocol.messages import Binding, Bindings, Guest
from vsfwd.reconciler import Port
from vsfwd.statefile import StateFile

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


@pytest.mark.parametrize("kind", ["loopback", "bridge", "vxlan", "hardware"])
def test_a_device_of_many_is_nobodys(kind: str) -> None:
    """Neither by name nor by alias: its packets are not one workload's."""
    for alias in ("", f"vsfwd:{WEB}"):
        assert recognise([Link(7, "veth-web", alias, kind)], ANNOUNCED) == {}


class Message(dict[Any, Any]):
    """As pyroute2 gives it; here fields and attributes are one."""

    get_attr = dict.get


class Netlink:
    """The kernel's links by index; a dump leaves out those in `missed`, and is counted."""

    def __init__(self) -> None:
        self.dumps = 0
        self.links: dict[int, dict[Any, Any]] = {}
        self.missed: set[int] = set()
        self.events: list[dict[Any, Any]] = []

    def add(self, index: int, name: str, kind: str | None = "veth") -> None:
        self.links[index] = {
            "header": {"flags": 0},
            "index": index,
            "ifname": name,
            "ifi_type": 1 if kind else 772,
            ("linkinfo", "kind"): kind,
        }

    async def get_links(self, *asked: int) -> AsyncIterator[dict[Any, Any]]:
        if not self.links.keys() >= set(asked):
            raise NetlinkError(errno.ENODEV)
        self.dumps += not asked
        return _each([self.links[index] for index in asked or self.links.keys() - self.missed])

    async def get(self) -> AsyncIterator[dict[Any, Any]]:
        """Events; after the last of them the socket is closed."""
        while self.events:
            yield self.events.pop(0)
        raise asyncio.CancelledError

    async def link(self, _: str, index: int, ifalias: str) -> None:
        self.links[index]["ifalias"] = ifalias


async def _each(messages: list[dict[Any, Any]]) -> AsyncIterator[dict[Any, Any]]:
    for message in messages:
        yield message


class Devices:
    """Interfaces over such a kernel. `attached`: device names by vNIC, and `bare`: who lost a filter, as the
    reconciler was last told; `told`: the vNICs each time, and which of them are there anew."""

    def __init__(self, directory: Path) -> None:
        self.attached: dict[str, str] = {}
        self.bare: Set[str] = set()
        self.told: list[tuple[set[str], Set[str]]] = []
        self.statefile = StateFile(directory)
        self.reports: list[Bindings] = []
        self.policy: dict[str, Vnic] = {}
        self.macs: dict[str, str] = {}
        self.interfaces = Interfaces(self.statefile, lambda: self.policy, self._connect, self.reports.append)
        self.netlink: Any = self.interfaces._netlink
        self.events: Any = self.interfaces._events

    async def _connect(self, ports: Mapping[str, Port], bare: Set[str], anew: Set[str]) -> None:
        self.attached = {vnic: port.device for vnic, port in ports.items()}
        self.macs = {vnic: port.mac for vnic, port in ports.items()}
        self.bare = bare
        self.told.append((set(ports), anew))

    async def announce(self, device: str = "veth-web", name: str = "") -> bool:
        binding = Binding(WEB, WEB_VM, "02:00:00:00:00:01", device, Guest(name))
        return await self.interfaces.announce(binding)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Devices:
    monkeypatch.setattr(vsfwd.interfaces, "AsyncIPRoute", Netlink)
    return Devices(tmp_path / "state")


async def test_an_announcement_of_a_device_of_many_is_refused_by_its_kind(devices: Devices) -> None:
    """And nothing of it is kept."""
    devices.netlink.add(1, "lo", None)
    devices.netlink.add(2, "br0", "bridge")
    for device, kind in (("lo", "loopback"), ("br0", "bridge")):
        with pytest.raises(Conflict, match=f"device {device} is of kind {kind}"):
            await devices.announce(device)
    assert (devices.attached, devices.statefile.load_bindings()) == ({}, ())


async def test_a_device_that_turns_out_to_be_of_many_is_refused_and_logged_once(
    devices: Devices, capsys: pytest.CaptureFixture[str]
) -> None:
    """The announcement came first; when the device comes it is looked at every second."""
    assert not await devices.announce()
    devices.netlink.add(7, "veth-web", "vxlan")
    for _ in range(3):
        await devices.interfaces.sync()
    assert devices.attached == {}
    assert capsys.readouterr().out.count("device refused") == 1


async def test_a_vnic_is_not_let_go_on_a_dump_that_may_have_missed_it(devices: Devices) -> None:
    """A link under which others come and go is left out of a dump: asked for by itself it is there."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    devices.netlink.missed = {7}
    await devices.interfaces.sync()
    assert devices.attached == {WEB: "veth-web"}


async def test_what_is_announced_again_looks_at_no_other_link(devices: Devices) -> None:
    """Its device has come and been recognised meanwhile, and a VM may wait: one link is looked at, and
    attached if it is not. Unless that is another one by now."""
    await devices.announce()
    devices.netlink.add(7, "veth-web")
    await devices.interfaces.sync()
    dumps, devices.attached = devices.netlink.dumps, {}
    assert await devices.announce()
    assert (devices.attached, devices.netlink.dumps) == ({WEB: "veth-web"}, dumps)
    devices.netlink.links[7]["ifname"] = "veth-other"
    devices.netlink.add(8, "veth-web")
    assert await devices.announce()
    assert devices.attached == {WEB: "veth-web"}
    assert devices.netlink.links[7]["ifalias"] == ""


async def test_what_is_announced_of_a_vm_is_reported_whenever_it_changes(devices: Devices) -> None:
    """Once each; it survives a restart of the daemon, and a device that comes later."""
    await devices.announce(name="web-01")
    assert devices.reports == []
    devices.netlink.add(7, "veth-web")
    for name in ("web-01", "web-01", "web-02"):
        await devices.announce(name=name)
    assert [report.vnics[0].guest.name for report in devices.reports] == ["web-01", "web-02"]
    assert devices.statefile.load_bindings()[0].guest == Guest("web-02")


async def test_no_more_addresses_are_reported_than_count(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tools of guests say beyond a vNIC's share the manager would leave out."""
    monkeypatch.setattr(messages, "MAX_OF_TOOLS", 2)
    devices.netlink.add(7, "veth-web")
    many = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    await devices.interfaces.announce(Binding(WEB, WEB_VM, "02:00:00:00:00:01", "veth-web", addresses=many))
    (report,) = devices.reports
    assert report.vnics[0].addresses == many[:2]


@pytest.mark.parametrize("kind", [RTM_DELTFILTER, RTM_DELQDISC])
async def test_whose_filter_is_deleted_is_told_once(devices: Devices, kind: int) -> None:
    """The datapath sees by itself what is missing in a tcx chain, but not a single filter of clsact."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    assert devices.bare == set()
    devices.events.events = [{"header": {"type": kind}, "index": index} for index in (7, 8)]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()
    await devices.interfaces.sync()
    assert devices.bare == {WEB}
    await devices.interfaces.sync()
    assert devices.bare == set()


async def test_o5_a_deleted_filter_is_told_again_when_the_kernel_was_busy(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On clsact nothing else ever tells of it."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    devices.events.events = [{"header": {"type": RTM_DELTFILTER}, "index": 7}]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()

    async def busy(*_: object) -> None:
        raise NetlinkError(errno.EBUSY)

    with monkeypatch.context() as patch:
        patch.setattr(devices.interfaces, "_connect", busy)
        with pytest.raises(NetlinkError):
            await devices.interfaces.sync()
    await devices.interfaces.sync()
    assert devices.bare == {WEB}


@pytest.mark.parametrize(("name", "bare"), [("foreign", {WEB}), ("vsfwd_in", set())])
async def test_o5_another_tool_s_filter_is_looked_at(devices: Devices, name: str, bare: set[str]) -> None:
    """It may have come in front of ours. Those that we attach are no news."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    attributes = {"TCA_KIND": "bpf", "TCA_OPTIONS": Message(TCA_BPF_NAME=name)}
    devices.events.events = [Message(header={"type": RTM_NEWTFILTER}, index=7, **attributes)]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()
    await devices.interfaces.sync()
    assert devices.bare == bare


@pytest.mark.parametrize(
    ("kind", "changed", "looked"),
    [
        (RTM_NEWLINK, {}, False),
        (RTM_NEWLINK, {"family": 7}, False),
        (RTM_NEWLINK, {"ifname": "veth9"}, True),
        (RTM_NEWLINK, {"ifalias": ""}, True),
        (RTM_NEWLINK, {"index": 8}, True),
        (RTM_NEWLINK, {"index": 8, ("linkinfo", "kind"): "vxlan"}, False),
        (RTM_DELLINK, {"index": 8, ("linkinfo", "kind"): "vxlan"}, False),
        (RTM_DELLINK, {}, True),
        (RTM_DELLINK, {"family": 7}, False),
    ],
)
async def test_what_changes_nothing_of_a_vnic_is_no_news(
    devices: Devices, kind: int, changed: dict[str, object], looked: bool
) -> None:
    """Up, down, in a bridge or out of it: not all links are looked at for that. For what may be another
    vNIC's, or nobody's now, they are."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    link = devices.netlink.links[7]
    devices.events.events = [{**link, "header": {"type": kind}, "family": 0, **changed}]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()
    assert devices.interfaces._changed.is_set() == looked


@pytest.mark.parametrize("another", [True, False], ids=["number reused", "gone"])
async def test_a_vnic_whose_device_is_gone_is_let_go(devices: Devices, another: bool) -> None:
    """Nothing has its number, or another device has: one without the alias."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    del devices.netlink.links[7]
    if another:
        devices.netlink.add(7, "veth-other")
        devices.netlink.missed = {7}
    await devices.interfaces.sync()
    assert devices.attached == {}


@pytest.mark.parametrize(("family", "anew"), [(0, {WEB}), (7, set())], ids=["gone", "in no bridge"])
async def test_a_device_that_is_made_anew_under_its_number_is_another(
    devices: Devices, family: int, anew: set[str]
) -> None:
    """Between two looks. The old one's vNIC may have been frozen there, for good, since its VM had left. The
    reconciler hears in one call that it is there, and anew: between two the device would have no programs."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    deleted = {**devices.netlink.links[7], "header": {"type": RTM_DELLINK}, "family": family}
    devices.events.events = [deleted]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()
    devices.told.clear()
    await devices.interfaces.sync()
    assert devices.told == [({WEB}, anew)]
    await devices.interfaces.sync()
    assert devices.told == [({WEB}, anew), ({WEB}, set())]


@pytest.mark.parametrize("busy", ["get_links", "_connect"], ids=["at the look", "at the attaching"])
async def test_a_device_that_is_made_anew_is_another_also_when_the_kernel_was_busy(
    devices: Devices, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    """Nothing else ever tells of it."""
    devices.netlink.add(7, "veth-web")
    assert await devices.announce()
    devices.events.events = [{**devices.netlink.links[7], "header": {"type": RTM_DELLINK}, "family": 0}]
    with pytest.raises(asyncio.CancelledError):
        await devices.interfaces.watch()
    with monkeypatch.context() as patch:
        whose = devices.netlink if busy == "get_links" else devices.interfaces
        patch.setattr(whose, busy, AsyncMock(side_effect=NetlinkError(errno.EBUSY)))
        with pytest.raises(NetlinkError):
            await devices.interfaces.sync()
    await devices.interfaces.sync()
    assert devices.told[-1] == ({WEB}, {WEB})


async def test_o9_the_last_announcement_of_a_name_counts(devices: Devices) -> None:
    """A vNIC has gone, and the hypervisor gives the name of its device to another; the one that was there is
    known by its alias, wherever that is, and by no name."""
    devices.netlink.add(6, "veth-web")
    assert await devices.announce()
    del devices.netlink.links[6]
    assert not await devices.interfaces.announce(Binding(APP, WEB_VM, "02:00:00:00:00:02", "veth-web"))
    devices.netlink.add(7, "veth-web")
    await devices.interfaces.sync()
    assert devices.attached == {APP: "veth-web"}
    assert {each.vnic: each.device for each in devices.statefile.load_bindings()} == {
        WEB: "",
        APP: "veth-web",
    }


async def test_the_event_loop_does_not_wait_for_the_disk(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats go on while bindings are written; the announcement waits."""
    writers: list[int] = []
    monkeypatch.setattr(devices.statefile, "save_bindings", lambda _: writers.append(threading.get_ident()))
    await devices.announce()
    assert len(writers) == 1
    assert threading.get_ident() not in writers


async def test_o27_no_vnic_waits_for_a_disk_that_hangs(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is attached before it is saved; others are attached and let go meanwhile. When the disk is back it
    gets what is so by then."""
    there, save = threading.Event(), devices.statefile.save_bindings
    monkeypatch.setattr(devices.statefile, "save_bindings", lambda all: there.wait(20) and save(all))
    devices.netlink.add(7, "veth-web")
    announced = asyncio.create_task(devices.announce())
    try:
        await eventually(lambda: devices.attached == {WEB: "veth-web"}, "the vNIC attached", 10)
        devices.netlink.add(8, "veth-app")
        devices.netlink.links[8]["ifalias"] = f"vsfwd:{APP}"
        async with asyncio.timeout(10):
            await devices.interfaces.sync()
        assert devices.attached == {WEB: "veth-web", APP: "veth-app"}
        followed = asyncio.create_task(devices.interfaces.follow())
        withdrawn = asyncio.create_task(devices.interfaces.withdraw(WEB))
        await eventually(lambda: devices.attached == {APP: "veth-app"}, "the vNIC let go", 10)
        del devices.netlink.links[8]
        await eventually(lambda: devices.attached == {}, "the device that went noticed", 10)
        assert [task.done() for task in (announced, withdrawn)] == [False, False]
    finally:
        there.set()
    assert await withdrawn
    assert [each.vnic for each in devices.statefile.load_bindings()] == [APP]
    followed.cancel()


async def test_a_policy_that_says_a_mac_address_says_it_at_once(devices: Devices) -> None:
    """Known by its alias only, a vNIC has no frame of its own; with the policy it has, and nobody waits for
    the next look at the links. A policy about others changes nothing."""
    devices.netlink.add(7, "veth-web")
    devices.netlink.links[7]["ifalias"] = f"vsfwd:{WEB}"
    await devices.interfaces.sync()
    assert devices.macs == {WEB: UNKNOWN_MAC}
    dumps, devices.macs = devices.netlink.dumps, {}
    await devices.interfaces.policy_changed()
    assert devices.macs == {}
    devices.policy[WEB] = Vnic(vm=WEB_VM, vm_name="web", mac="02:00:00:00:00:01")
    await devices.interfaces.policy_changed()
    assert devices.macs == {WEB: "02:00:00:00:00:01"}
    assert devices.netlink.dumps == dumps


async def test_a_policy_is_taken_whatever_netlink_says(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's part of the daemon does not end by it: the links are looked at again at once."""
    devices.netlink.add(7, "veth-web")
    devices.netlink.links[7]["ifalias"] = f"vsfwd:{WEB}"
    await devices.interfaces.sync()
    devices.policy[WEB] = Vnic(vm=WEB_VM, vm_name="web", mac="02:00:00:00:00:01")
    with monkeypatch.context() as busy:
        busy.setattr(devices.interfaces, "_connect", AsyncMock(side_effect=NetlinkError(errno.EBUSY)))
        await devices.interfaces.policy_changed()
    assert devices.interfaces._changed.is_set()
