"""The composition root: makes every part of vsfwd, hands each what it needs, and runs them until one ends.

The start is the kernel first, the manager last: take over what an earlier daemon left attached, enforce the
policy on disk, say ready, then look for the broker. The end detaches nothing: what the kernel enforces, it
goes on enforcing."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final, NoReturn

import structlog
from asyncvarlink import VarlinkInterface
from msgspec import structs
from pyroute2.netlink.exceptions import NetlinkError

from vsfwd import configfile
from vsfwd.alarms import Alarms
from vsfwd.amqp import is_cancelled
from vsfwd.applythread import ApplyThread, Reads
from vsfwd.broker import BrokerLink
from vsfwd.config import SHIPPED, Component, Config
from vsfwd.configfile import ConfigError
from vsfwd.datapath import Datapath, DatapathError, Limit, Settings
from vsfwd.discovery import Discovery, duplicates
from vsfwd.early import EarlyDrops
from vsfwd.incidents import Cause, Incidents
from vsfwd.interfaces import Interfaces
from vsfwd.ipc.bus import Bus
from vsfwd.ipc.rights import Rights
from vsfwd.ipc.server import Client, IpcServer
from vsfwd.migration.answers import Migration
from vsfwd.migration.here import Here
from vsfwd.migration.move import Moves, failed
from vsfwd.migration.orders import MoveOrders
from vsfwd.packetlog import PacketLog
from vsfwd.policy.model import Vnic
from vsfwd.protocol.components import ComponentAnswer, ComponentEvent, ComponentMessage
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Bindings, Event, Reply, Request
from vsfwd.reconciler import Disposition, Port, Reconciler
from vsfwd.relay import Relay
from vsfwd.renewal import CertificateRenewal
from vsfwd.seen import SeenFlows
from vsfwd.statefile import StateFile
from vsfwd.statistics import RuleStatistics
from vsfwd.status import Answers, Parts

log = structlog.get_logger(log="vsfwd")

BEAT_S: Final = 30.0
"""How often the manager is told what is in force (Neutron's agents say that they live as often)."""
AWAY_S: Final = 60.0
"""Without a broker that are an alarm: a broker that is started again takes less."""
SAVE_AGAIN_S: Final = 2.0
TIDY_S: Final = 2.0
MEND_PERIOD_S: Final = 0.5
"""Between two looks at what somebody may have taken away: programs, the port guard."""


class Stopped(Exception):
    """Somebody asked the daemon to end."""


class TaskEnded(Exception):
    """A task that runs as long as the daemon has ended; so does the daemon, and is started again."""


async def run(config: Config, reread: Callable[[], Config]) -> None:
    """Until SIGTERM or SIGINT. `reread` reads the configuration again. Raises when a part of the daemon
    fails."""
    apply_thread = ApplyThread()
    statefile = StateFile(config.state_dir)
    datapath = await apply_thread(Datapath.open, config.pin_dir, _settings(config), config.cache_dir)
    warn_of(datapath.lacks)
    packet_log = PacketLog(datapath)
    try:
        await Daemon(config, reread, apply_thread, statefile, datapath, packet_log).run()
    except* Stopped:
        log.info("stopped; the kernel goes on enforcing what it has")
    finally:
        notify("STOPPING=1")
        apply_thread.finish(datapath.close)
        packet_log.close()


def warn_of(lacks: Mapping[str, str]) -> None:
    """Features that this kernel has not got, each with what that means."""
    for feature, without in lacks.items():
        log.warning("this kernel lacks a feature", feature=feature, kernel=os.uname().release, so=without)


def _settings(config: Config) -> Settings:
    return Settings(
        flows_per_vnic=config.flows_per_vnic,
        log_limit=Limit(config.log_rate, config.log_burst),
        reject_limit=Limit(config.reject_rate, config.reject_burst),
        guard_ports=config.guard_ports,
    )


class Daemon:
    """The parts, wired. What they say to each other goes through the methods here."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        apply_thread: ApplyThread,
        statefile: StateFile,
        datapath: Datapath,
        packet_log: PacketLog,
    ) -> None:
        self.version = version("vsfwd")
        self.config = config
        self._reread = reread
        self.apply_thread = apply_thread
        self.reads = Reads(apply_thread)
        self.datapath = datapath
        self.packet_log = packet_log
        self.incidents = Incidents()
        self.alarms = Alarms(datapath, apply_thread, self._duplicates, self._of_this_host, self.incidents)
        self.reconciler = Reconciler(
            config.host_id,
            config.public_key(),
            datapath,
            statefile,
            self.version,
            incidents=self.incidents,
        )
        self.broker = BrokerLink(config, self._policy, self._request, self._component, self._greet)
        self.relay = Relay(self.broker.tell)
        self.rights = Rights(_components(config))
        self.renewal = CertificateRenewal(config, self.broker.send)
        self.early = EarlyDrops(datapath, apply_thread)
        self.interfaces = Interfaces(statefile, self._policy_of_vnics, self._connect, self.broker.send)
        self.discovery = Discovery(
            statefile, datapath, apply_thread, lambda: self.reconciler.ports, self.broker.send
        )
        self.statistics = RuleStatistics(datapath, apply_thread, self.broker.send, config.statistics_period_s)
        self.moves = Moves(
            Here(
                config.host_id,
                config.key,
                datapath,
                apply_thread,
                self.discovery,
                lambda: self.reconciler.state,
                lambda: self.interfaces.bindings().vnics,
                self.reconciler.expect,
                self.reconciler.give_up,
                self.incidents,
            )
        )
        self.broker.move = MoveOrders(self.moves, self.broker.tell_move).take
        self.seen = SeenFlows(datapath, apply_thread, lambda: self.reconciler.ports)
        packet_log.watch = self.seen.take
        packet_log.label = self._log_label

    async def run(self) -> None:
        await self.apply_thread(self.reconciler.load)
        async with self.interfaces, asyncio.TaskGroup() as tasks:
            await self._remove_older_pins()
            ipc = IpcServer(self.config.socket, self.version, self._interfaces, self.config.socket_group)
            for name, task in {
                "signals": _until_stopped(),
                "reload": self._reload_on_signal(),
                "netlink": self.interfaces.watch(),
                "vnics": self.interfaces.follow(),
                "ipc": ipc.serve(),
                "packet log": self.packet_log.run(),
                "mend": self._mend(),
                "alarms": self.alarms.watch(),
                "schedules": self._follow_schedules(),
                "saving": self._save_again(),
                "discovery": self.discovery.run(),
                "moves": self.moves.watch(),
                "statistics": self.statistics.run(),
                "certificate": self.renewal.run(),
                "heartbeat": self._beat(),
                "older pins": self._tidy(),
                "broker": self.broker.run(),
            }.items():
                tasks.create_task(_essential(name, task), name=name)
            await asyncio.sleep(0)  # all have begun: a reload, from now on, does not end the daemon
            notify(f"STATUS={self._status_line()}")
            notify("READY=1")
            log.info("ready", host=self.config.host_id, vnics=len(self.reconciler.ports))

    async def _reload_on_signal(self) -> NoReturn:
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
        while True:
            await asked.wait()
            asked.clear()
            with suppress(ConfigError, DatapathError):  # it is in the log
                await self.reload()

    async def reload(self) -> tuple[list[str], list[str]]:
        """Take from the configuration what can be taken while the daemon runs. Which settings these were, and
        which others differ from those in force. Raises ConfigError, and then all stays as it was, and
        DatapathError."""
        try:
            taken, left = configfile.changed(self.config, self._reread())
            config = structs.replace(self.config, **taken)
            await self.apply_thread(self.datapath.configure, _settings(config))
        except (ConfigError, DatapathError) as error:
            log.error("the configuration is not reloaded, all stays as it was", reason=str(error))
            raise
        self.config = config
        self.broker.urls = self.config.broker_urls
        self.rights.grant(_components(self.config))
        self.statistics.period_s = self.config.statistics_period_s
        log.info("the configuration is reloaded", taken=sorted(taken), needs_a_restart=left)
        return sorted(taken), left

    def _log_label(self, rule: int) -> str:
        found = self.reconciler.state.rules.get(rule)
        return found.log_label if found else ""

    async def _tidy(self) -> NoReturn:
        """Programs that were replaced end some time later, and what they used is to go then."""
        while True:
            await asyncio.sleep(TIDY_S)
            await self._remove_older_pins()

    async def _remove_older_pins(self) -> None:
        try:
            removed = await self.apply_thread(self.datapath.remove_older_pins)
        except DatapathError as error:
            log.warning("pins of an older daemon stay for now", reason=str(error))
        else:
            if removed:
                log.info("pins of older daemons removed", schemas=removed)

    async def _beat(self) -> NoReturn:
        while True:
            await asyncio.sleep(BEAT_S)
            self.broker.send(self.reconciler.heartbeat())

    # -- from the manager ------------------------------------------------------------------------------

    async def _policy(self, message: Message) -> bool:
        """Whether it is done with; else it is refused."""
        outcome = await self.apply_thread(self.reconciler.apply_message, message, time.monotonic_ns())
        await self.interfaces.policy_changed()
        self.broker.report(outcome.report)
        return outcome.disposition is Disposition.DONE

    async def _request(self, request: Request) -> None:
        if request.method == "report":
            for event in self._greet():
                asked = isinstance(event, Bindings)
                self.broker.send(structs.replace(event, answers=request.id) if asked else event)
            self.broker.send(Reply(request.id))
        elif request.method == "forget":
            await self.discovery.forget(request.vnic, request.address)
            self.broker.send(Reply(request.id))
        elif request.method == "flows":
            self.broker.send(await self.seen.answer(request))
        elif request.method == "certificate":
            self.broker.send(Reply(request.id, self.renewal.take(request.certificate)))
        else:
            log.warning("request of an unknown kind", id=request.id, method=request.method)
            self.broker.send(
                Reply(request.id, f"method: {request.method!r} is unknown to vsfwd {self.version}")
            )

    def _component(self, event: ComponentEvent) -> ComponentAnswer | None:
        if isinstance(event, ComponentMessage):
            return self.relay.take(event)
        self.relay.answered(event)
        return None

    def _greet(self) -> Sequence[Event]:
        self.statistics.start_over()
        return self.reconciler.hello(), self.interfaces.bindings(), *self.discovery.all()

    # -- from the host ---------------------------------------------------------------------------------

    async def _connect(self, ports: Mapping[str, Port], bare: Set[str], anew: Set[str]) -> None:
        await self.apply_thread(self.reconciler.vnics_changed, ports, bare, anew)
        self.moves.wake()

    async def _mend(self) -> NoReturn:
        """Nothing else feeds systemd's watchdog: a daemon that hangs, or cannot look after the kernel any
        more, is started again."""
        said = ""
        while True:
            well = True
            for mend in (self._mend_guard, self.reconciler.mend, self.datapath.check):
                try:
                    await self.apply_thread(mend)
                except (DatapathError, NetlinkError, OSError) as error:
                    log.error("not looked after what somebody may take away; tried again", reason=str(error))
                    well = False
            if well:
                notify("WATCHDOG=1")
            if said != (said := self._status_line()):
                notify(f"STATUS={said}")
            await asyncio.sleep(MEND_PERIOD_S)

    def _status_line(self) -> str:
        """For `systemctl status`."""
        state, ports = self.reconciler.state, self.reconciler.ports
        broker = self.broker.connected_to or "no broker"
        return f"generation {state.generation} in force, vNICs attached: {len(ports)}, {broker}"

    def _mend_guard(self) -> None:
        if self.datapath.port_guard.restore():
            log.error("somebody has changed the port guard; it is made anew")
            cause = Cause("dfw_port_guard_changed", "CRITICAL", self.config.host_id)
            self.incidents.note(cause, "somebody has changed the port guard; it was made anew")

    async def _follow_schedules(self) -> NoReturn:
        """On every second of the clock, which may have been set meanwhile."""
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            await self.apply_thread(self.reconciler.follow_schedules)

    async def _save_again(self) -> NoReturn:
        while True:
            await asyncio.sleep(SAVE_AGAIN_S)
            await self.apply_thread(self.reconciler.save)

    def _interfaces(self, client: Client) -> tuple[VarlinkInterface, ...]:
        """What a local client may talk to."""
        parts = Parts(
            self.version,
            lambda: self.config,
            self.datapath,
            self.reconciler,
            self.interfaces,
            self.broker,
            self.packet_log,
            self.discovery,
            self.alarms,
            self.reads,
            self.early,
            self.reload,
        )
        moves = Migration(client.uid, self.moves)
        return Answers(parts, client.uid), Bus(client, self.rights, self.relay), moves

    def _of_this_host(self) -> Mapping[Cause, str]:
        """Alarms that no flow table tells of."""
        causes = {failed(vnic): why for vnic, why in self.moves.held_long().items()}
        if found := self.renewal.expiry():
            what = f"the certificate of this host {found.description}"
            causes[Cause(found.event_type, found.severity, self.config.host_id)] = what
        if fault := self.datapath.port_guard.fault:
            causes[Cause("dfw_port_guard_failed", "CRITICAL", self.config.host_id)] = (
                f"no port guard: {fault}"
            )
        if self.reconciler.not_saved:
            what = f"what is in force is not on disk: {self.reconciler.not_saved}"
            causes[Cause("dfw_policy_not_saved", "HIGH", self.config.host_id)] = what
        if self.broker.away_for_s() >= AWAY_S:
            what = f"no broker, what is in force stays: {self.broker.last_error or 'not connected yet'}"
            causes[Cause("management_channel_to_manager_node_down", "MEDIUM", self.config.host_id)] = what
        return causes

    def _duplicates(self) -> Mapping[str, str]:
        return duplicates(self.discovery.learned, self.reconciler.state.vnics)

    def _policy_of_vnics(self) -> Mapping[str, Vnic]:
        return self.reconciler.state.vnics


def _components(config: Config) -> Mapping[str, Component]:
    return {**SHIPPED, **config.components}


async def _essential(name: str, task: Coroutine[Any, Any, object]) -> None:
    """A task group says nothing of a task that ends as cancelled, whoever did it."""
    try:
        await task
    except asyncio.CancelledError:
        if is_cancelled():
            raise
    raise TaskEnded(f"task {name!r} has ended")


async def _until_stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    raise Stopped


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens where there is none."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as systemd:
        systemd.sendto(state.encode(), address)
