"""Which devices of this host are vNICs: a netlink watcher that keeps the datapath attached to all of them.

A vNIC is announced (`announce`: vNIC, VM, MAC, device) by whoever plugs it, before or after its device
exists. The device then carries `vsfwd:<vNIC uuid>` as its alias, so a daemon with no memory recognises it.
What was announced is kept on disk as well, for the VM and the MAC that an alias has no room for. A name
is the vNIC's for which it was announced last: hypervisors give names again, to other VMs.

Only a device with one workload behind it can be a vNIC: a veth or a tap. A program on a bridge, a tunnel or
the loopback would filter everybody's packets by one VM's rules.

Level, not edge: every netlink event, every announcement and every second compares all links with what is
attached. An event that is lost costs a second, never a vNIC.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import structlog
from msgspec import structs
from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_NEWLINK,
    RTM_NEWTFILTER,
    RTMGRP_LINK,
    RTMGRP_TC,
)

from vsfwd.datapath.attach import is_ours
from vsfwd.policy.model import Vnic, is_uuid
from vsfwd.protocol.messages import Binding, Bindings, share_of_tools
from vsfwd.reconciler import Port
from vsfwd.statefile import StateFile

log = structlog.get_logger(log="vsfwd.interfaces")

ALIAS: Final = "vsfwd:"
PERIOD_S: Final = 1.0
DUMPS: Final = 5
KINDS: Final = frozenset({"veth", "tun"})
"""Of devices that can be vNICs, in the kernel's words; `tun` is tap as well."""
LOOPBACK: Final = 772
"""ARPHRD_LOOPBACK of linux/if_arp.h."""
AF_BRIDGE: Final = 7
"""Of what bridges say of their ports, linux/socket.h."""
UNKNOWN_MAC: Final = "00:00:00:00:00:00"
"""Of a vNIC recognised by its alias alone: no unicast frame is for it, until announcement or policy says
its MAC."""


class Conflict(Exception):
    """An announcement contradicts what is there; the text names both."""


@dataclass(frozen=True)
class Link:
    index: int
    name: str
    alias: str
    kind: str = "veth"


def recognise(links: Iterable[Link], bindings: Mapping[str, Binding]) -> dict[str, Link]:
    """The link of every vNIC that is plugged: by its alias, else by the device name it was announced with.

    An alias wins over a name, because it stays with the device when that is renamed; of two links with one
    alias the older one is the vNIC. A device of a kind that cannot be one is nobody's.
    """
    found: dict[str, Link] = {}
    unnamed: dict[str, Link] = {}
    for link in sorted((link for link in links if link.kind in KINDS), key=lambda link: link.index):
        vnic = link.alias.removeprefix(ALIAS)
        if link.alias.startswith(ALIAS) and is_uuid(vnic):
            found.setdefault(vnic, link)
        else:
            unnamed[link.name] = link
    for binding in bindings.values():
        if binding.vnic not in found and binding.device in unnamed:
            found[binding.vnic] = unnamed[binding.device]
    return found


class Interfaces:
    """Owns two netlink sockets, one to ask and one to listen, and the bindings. `connect` is the reconciler's
    `vnics_changed` on its own thread; `report` sends the bindings to the manager."""

    def __init__(
        self,
        statefile: StateFile,
        policy: Callable[[], Mapping[str, Vnic]],
        connect: Callable[[Mapping[str, Port], Set[str], Set[str]], Awaitable[None]],
        report: Callable[[Bindings], None],
    ) -> None:
        self._statefile = statefile
        self._policy = policy
        self._connect = connect
        self._report = report
        self._netlink = AsyncIPRoute()
        self._events = AsyncIPRoute()
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._plugged: dict[str, Link] = {}
        self._reported = Bindings(())
        self._bare: set[int] = set()
        self._gone: set[int] = set()
        self._unfit: set[Link] = set()
        try:
            self._bindings = {binding.vnic: binding for binding in statefile.load_bindings()}
        except ValueError as error:
            log.error(
                "bindings on disk are spoiled; devices are recognised by their alias", reason=str(error)
            )
            self._bindings = {}
        self._saved: Mapping[str, Binding] = self._bindings
        self._not_saved = ""

    async def __aenter__(self) -> Self:
        await self._events.bind(groups=RTMGRP_LINK | RTMGRP_TC)
        await self.sync()
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._netlink.close()

    async def watch(self) -> None:
        """Note that something changed; `follow` looks what. Whose filter or qdisc is deleted is bare now, and
        who has got another tool's filter may be. A link that is deleted is gone, though another may have its
        number by then."""
        while True:
            try:
                async for message in self._events.get():
                    kind = message["header"]["type"]
                    if kind in (RTM_DELTFILTER, RTM_DELQDISC) or (
                        kind == RTM_NEWTFILTER and not is_ours(message)
                    ):
                        self._bare.add(message["index"])
                        self._changed.set()
                    elif kind in (RTM_NEWLINK, RTM_DELLINK) and self._is_news(message):
                        if kind == RTM_DELLINK:
                            self._gone.add(message["index"])
                        self._changed.set()
            except (OSError, NetlinkError) as error:
                log.warning("netlink events lost; every vNIC is attached again", reason=str(error))
                self._bare.update(link.index for link in self._plugged.values())
                self._changed.set()
                await asyncio.sleep(PERIOD_S)

    def _is_news(self, message: Any) -> bool:
        """Of a link: whether a vNIC may have come by it, or be one no more. Up, down, or in a bridge it is
        one still: while a VM moves there is much of this, and what it waits for would be behind a look at all
        links for each."""
        if message["family"] == AF_BRIDGE:
            return False
        link = _link_of(message)
        vnic = next((id for id, known in self._plugged.items() if known.index == link.index), None)
        if vnic is None or message["header"]["type"] == RTM_DELLINK:
            return vnic is not None or link.kind in KINDS
        return link != replace(self._plugged[vnic], alias=ALIAS + vnic)

    async def follow(self) -> NoReturn:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_saved())
            await self._keep_plugged()

    async def _keep_plugged(self) -> NoReturn:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.sync()
            except NetlinkError as error:
                log.warning("links not looked at; tried again in a second", reason=str(error))

    async def _keep_saved(self) -> NoReturn:
        while True:
            await self._save()
            await asyncio.sleep(PERIOD_S)

    async def announce(self, binding: Binding) -> bool:
        """Whether the device is there; if so its programs are attached when this returns. What is announced
        is on disk then, unless that takes nothing. Raises Conflict."""
        if await self._is_as_announced(binding):
            await self._attach()
            return binding.vnic in self._plugged
        async with self._lock:
            links = await self._links()
            for link in links:
                if link.name == binding.device and link.kind not in KINDS:
                    raise Conflict(f"device {link.name} is of kind {link.kind}; a vNIC is a veth or a tap")
            for vnic, link in recognise(links, self._bindings).items():
                if link.name == binding.device and vnic != binding.vnic:
                    raise Conflict(f"device {link.name} is vNIC {vnic}; withdraw that one first")
                if vnic == binding.vnic and link.name != binding.device:
                    await self._set_alias(link, "")
            self._bindings = {
                **_without_name(self._bindings, binding.device),
                binding.vnic: binding,
            }
        log.info("vNIC announced", vnic=binding.vnic, vm=binding.vm, device=binding.device)
        await self.sync()
        await self._save()
        return binding.vnic in self._plugged

    async def _is_as_announced(self, binding: Binding) -> bool:
        """It is said again of a vNIC that has come since and been recognised: its VM may wait for the answer,
        and no other link is looked at."""
        link = self._plugged.get(binding.vnic)
        if link is None or link.name != binding.device or self._bindings.get(binding.vnic) != binding:
            return False
        return await self._link(link.index) == replace(link, alias=ALIAS + binding.vnic)

    async def withdraw(self, vnic: str) -> bool:
        """Forget a vNIC and let its device go: closed where it is a guarded port, else not filtered any more.
        Whether it was known."""
        async with self._lock:
            link = recognise(await self._links(), self._bindings).get(vnic)
            known = link is not None or vnic in self._bindings
            if link is not None:
                await self._set_alias(link, "")
            self._bindings = {id: binding for id, binding in self._bindings.items() if id != vnic}
        if known:
            log.warning(
                "vNIC withdrawn: if its device is no guarded port, it is not filtered any more",
                vnic=vnic,
                device=link and link.name,
            )
        await self.sync()
        await self._save()
        return known

    def bindings(self) -> Bindings:
        """What is plugged here, in the manager's words, with as many addresses as count there."""
        share = share_of_tools(len(self._plugged))
        there = (self._binding(vnic, link) for vnic, link in sorted(self._plugged.items()))
        return Bindings(tuple(structs.replace(each, addresses=each.addresses[:share]) for each in there))

    async def policy_changed(self) -> None:
        """Of a vNIC that nobody announced it may be the first to say the MAC address, without which no frame
        is the vNIC's. The policy is in force whatever becomes of that: `follow` tries again."""
        policy = self._policy()
        if any(known.mac == UNKNOWN_MAC and known.vnic in policy for known in self._reported.vnics):
            try:
                await self._attach()
            except NetlinkError as error:
                log.warning("MAC addresses of the policy not taken yet; tried again", reason=str(error))
                self._changed.set()

    async def sync(self) -> None:
        async with self._lock:
            gone, self._gone = self._gone, set()  # before the look: what has such a number then is another
            bare, self._bare = self._bare, set()
            try:
                await self._sync(bare, gone)
            except BaseException:
                self._bare |= bare  # nothing else tells of them where there is no tcx
                self._gone |= gone
                raise

    async def _sync(self, bare: Set[int], gone: Set[int]) -> None:
        links = await self._links()
        self._log_unfit(links)
        plugged = recognise(links, self._bindings)
        for vnic in self._plugged.keys() - plugged.keys():
            # A dump that links come and go under may miss one, and a vNIC is not opened on a maybe.
            link = await self._link(self._plugged[vnic].index)
            if link is not None and link.alias == ALIAS + vnic:
                plugged[vnic] = link
        for vnic, link in plugged.items():
            if link.alias != ALIAS + vnic:
                await self._set_alias(link, ALIAS + vnic)
        before = {id: link.index for id, link in self._plugged.items() if link.index in gone}
        anew = {id for id, link in plugged.items() if link.index == before.get(id)}
        self._plugged = plugged
        now = self.bindings()
        by_id = {binding.vnic: binding for binding in now.vnics}
        self._bindings = {**self._bindings, **by_id}
        await self._attach(bare, anew)
        if now != self._reported:
            self._reported = now
            self._report(now)

    async def _attach(self, bare: Set[int] = frozenset(), anew: Set[str] = frozenset()) -> None:
        """Who is plugged, as far as they are not. Without the lock, too: what was found last is whole, and
        the last call has it."""
        by_id = {binding.vnic: binding for binding in self.bindings().vnics}
        ports = {id: Port(id, link.name, link.index, by_id[id].mac) for id, link in self._plugged.items()}
        await self._connect(ports, {id for id, link in self._plugged.items() if link.index in bare}, anew)

    def _log_unfit(self, links: Iterable[Link]) -> None:
        """Devices that are said to be vNICs and cannot be; each is said once."""
        named = {binding.device for binding in self._bindings.values()}
        unfit = {
            link
            for link in links
            if link.kind not in KINDS and (link.name in named or link.alias.startswith(ALIAS))
        }
        for link in unfit - self._unfit:
            log.error("device refused: a vNIC is a veth or a tap", device=link.name, kind=link.kind)
        self._unfit = unfit

    def _binding(self, vnic: str, link: Link) -> Binding:
        """As announced; of a vNIC nobody announced to this daemon, as the policy has it."""
        known = self._bindings.get(vnic)
        if known is not None and known.mac != UNKNOWN_MAC:
            return structs.replace(known, device=link.name)
        policy = self._policy().get(vnic)
        return (
            Binding(vnic, policy.vm, policy.mac, link.name)
            if policy
            else Binding(vnic, "", UNKNOWN_MAC, link.name)
        )

    async def _save(self) -> None:
        """After everything else, and without the lock: no vNIC waits for a disk to be filtered. What fails is
        tried again."""
        async with self._saving:
            bindings = self._bindings
            if bindings == self._saved:
                return
            try:
                await asyncio.to_thread(self._statefile.save_bindings, tuple(bindings.values()))
            except OSError as error:
                if str(error) != self._not_saved:
                    log.error(
                        "bindings not saved, tried again: devices have their alias only", reason=str(error)
                    )
                self._not_saved = str(error)
            else:
                self._saved, self._not_saved = bindings, ""

    async def _links(self) -> list[Link]:
        """All of them: a dump that the kernel calls interrupted is made again."""
        for _ in range(DUMPS):
            messages = [message async for message in await self._netlink.get_links()]
            if not any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in messages):
                break
        return [_link_of(message) for message in messages]

    async def _link(self, index: int) -> Link | None:
        try:
            return next(
                iter([_link_of(message) async for message in await self._netlink.get_links(index)]), None
            )
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    async def _set_alias(self, link: Link, alias: str) -> None:
        try:
            await self._netlink.link("set", index=link.index, ifalias=alias)
        except NetlinkError as error:
            log.warning("device alias not set", device=link.name, alias=alias, reason=str(error))


def _without_name(bindings: Mapping[str, Binding], device: str) -> dict[str, Binding]:
    """Who had it is known by its alias only."""
    return {
        vnic: structs.replace(each, device="") if each.device == device else each
        for vnic, each in bindings.items()
    }


def _link_of(message: Any) -> Link:
    kind = message.get(("linkinfo", "kind")) or (
        "loopback" if message["ifi_type"] == LOOPBACK else "hardware"
    )
    return Link(message["index"], message.get("ifname"), message.get("ifalias") or "", kind)
