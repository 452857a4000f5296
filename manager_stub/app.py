"""The composition root: makes every part, gives each what it needs, and runs the named tasks. If one ends,
all end."""

import asyncio
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, NoReturn

import structlog
from fastapi import Depends, FastAPI

from manager_stub.api import (
    absent,
    alarms,
    audit_log,
    capacity,
    certificates,
    claims,
    components,
    controllers,
    dead_letters,
    disputes,
    enrolment,
    errors,
    fabric,
    hierarchy,
    hosts,
    infra,
    inventory,
    members,
    migrations,
    node,
    policy_file,
    publish,
    realized,
    rule_analysis,
    search,
    segment_ports,
    service_entries,
    session,
    tags,
    traceflows,
    transport_nodes,
    vm_users,
)
from manager_stub.api import statistics as statistics_api
from manager_stub.api import users as users_api
from manager_stub.api.aside import Aside
from manager_stub.api.bodies import Bodies, check_json
from manager_stub.api.dry_run import DryRun
from manager_stub.api.front import Front
from manager_stub.api.node import installation_id
from manager_stub.api.parameters import check_parameters
from manager_stub.auth import Passwords
from manager_stub.broker import Broker
from manager_stub.components.context import GuestContext
from manager_stub.components.control_plane import ControlPlane
from manager_stub.components.courier import Courier
from manager_stub.components.switchboard import Switchboard
from manager_stub.enrolment.admission import Admission
from manager_stub.enrolment.credentials import Credentials
from manager_stub.enrolment.renewals import Renewals
from manager_stub.enrolment.tokens import Tokens
from manager_stub.expiries import Expiries
from manager_stub.floods import Floods
from manager_stub.guard import Guard
from manager_stub.inquiry import Inquiry
from manager_stub.lead import RENEW_S, Lead, Lost
from manager_stub.moves.courier import MoveCourier
from manager_stub.moves.moves import Moves
from manager_stub.moves.pulls import Pulls
from manager_stub.presence import Presence
from manager_stub.publish import Publishing
from manager_stub.publisher import Publisher
from manager_stub.register import Register
from manager_stub.rotation import Rotation
from manager_stub.sessions import Sessions
from manager_stub.state_dir import StateDir, split
from manager_stub.statistics import RuleStatistics
from manager_stub.store import Store, TooMuch
from manager_stub.users import Users
from manager_stub.vnics import Vnics
from manager_stub.watch import Watch
from manager_stub.web import WebServer

LEASES_S: Final = 5.0
"""How often is looked for leases that have ended."""
MOVES_S: Final = 1.0
"""How often is looked for moves that take too long."""
STATISTICS_S: Final = 60.0
"""How often is written down what rules have counted."""
CONFIRMATION_S: Final = 0.5
"""How often is looked for a publish that nobody confirmed in time."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    store: Store
    users: Users
    register: Register
    vnics: Vnics
    statistics: RuleStatistics
    publishing: Publishing
    broker: Broker
    presence: Presence
    publisher: Publisher
    switchboard: Switchboard
    moves: Moves
    pulls: Pulls
    web: Guard
    broker_tls: ssl.SSLContext


def compose(directory: StateDir, lead: Lead | None = None) -> Parts:
    addresses = directory.addresses()
    store = directory.open_store(lead)
    register = Register(store, directory.signing_key())
    vnics = Vnics(register)
    credentials, tokens, authority = Credentials(store), Tokens(store), directory.authority()
    tls, manager_key = directory.broker_tls(), directory.signing_public()
    broker = Broker(addresses.broker_apis, directory.broker_password(), tls, credentials.logins)
    admission = Admission(store, register, broker, authority, tokens, credentials)
    statistics = RuleStatistics(store, register)
    publisher = Publisher(register, vnics, statistics, broker, addresses.broker_urls, tls, lead=lead)
    switchboard = Switchboard(store)
    presence = Presence()
    watch = Watch(register, vnics, broker, presence)
    moves = Moves(store, register, vnics, presence, credentials)

    def heard(host: str) -> None:
        presence.heard(host)
        moves.spoke(host)

    publisher.heard = heard
    pulls = Pulls(register, vnics, moves)
    courier, floods = Courier(register, broker, switchboard), Floods(register, broker)
    move_courier = MoveCourier(register, broker, moves, lead)
    publisher.dropped = courier.dropped = move_courier.dropped = floods.dropped
    publisher.begin_beside = [
        courier.begin,
        floods.begin,
        move_courier.begin,
        watch.begin,
    ]
    publisher.renewal_asked = Renewals(store, register, authority, credentials).asked
    control_plane = ControlPlane(store, register, switchboard, authority, credentials)
    context = GuestContext(store, register, vnics, switchboard)
    publishing = Publishing(store, register)
    users, sessions = Users(store), Sessions()
    passwords = Passwords(users.password_hash)
    users.forget = _forget_by(passwords, sessions)
    aside = Aside()
    app = FastAPI(title="vsfwd manager", version=version("vsfwd"), dependencies=[Depends(check_parameters)])
    app.include_router(session.router(passwords, sessions))  # a form, which it reads itself
    for routes in (
        users_api.router(users, passwords),
        audit_log.router(store, aside),
        node.router(installation_id(directory.signing_public()), publisher),
        infra.router(register),
        service_entries.router(register),
        segment_ports.router(register),
        absent.router(),
        hierarchy.router(register, aside),
        publish.router(register, publishing, aside, DryRun(register, Inquiry(register))),
        policy_file.router(register, publishing, aside),
        search.router(register, aside),
        realized.router(register),
        rule_analysis.router(register, statistics, aside),
        statistics_api.router(register, statistics),
        transport_nodes.router(register, presence),
        alarms.router(
            alarms.Alarms(register, presence, broker, store, Expiries(directory.path, credentials), publisher)
        ),
        capacity.router(register, publishing),
        certificates.router(directory.path),
        components.router(register, switchboard, store, presence, publisher),
        controllers.router(control_plane),
        fabric.router(register),
        tags.router(register),
        members.router(register),
        migrations.router(register, moves, publisher),
        traceflows.router(register),
        inventory.router(register),
        vm_users.router(register, context),
        claims.router(register, vnics),
        disputes.router(register, vnics),
        hosts.router(register, presence, broker, credentials, publisher),
        dead_letters.router(broker),
        enrolment.router(register, tokens, admission, authority, manager_key, addresses.broker_urls),
    ):
        app.include_router(routes, dependencies=[Depends(check_json)])
    errors.install(app)
    guard = Guard(Bodies(app), users, passwords, sessions)
    return Parts(
        store,
        users,
        register,
        vnics,
        statistics,
        publishing,
        broker,
        presence,
        publisher,
        switchboard,
        moves,
        pulls,
        guard,
        tls,
    )


def _forget_by(passwords: Passwords, sessions: Sessions) -> Callable[[str], None]:
    def forget(name: str) -> None:
        passwords.forget(name)
        sessions.close_all(name)

    return forget


async def _every(seconds: float, act: Callable[[], object]) -> NoReturn:
    while True:
        await asyncio.sleep(seconds)
        act()


async def serve(directory: StateDir) -> None:
    """Until a signal says to end, or something fails that is no matter of who leads."""
    front, lead = Front(), directory.lead()
    host, port = split(directory.addresses().listen)
    server = WebServer(front, (host, port), directory.path / "server.crt", directory.path / "server.key")

    rotation = Rotation(directory.path, {"server": server.tls})

    def end() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    log.info("the manager serves", address=f"https://{host}:{port}")
    web = asyncio.create_task(server.run_until_exit(), name="web")
    others = [
        asyncio.create_task(_terms(directory, front, lead), name="terms"),
        asyncio.create_task(rotation.follow(), name="server's certificate"),
    ]
    try:
        done, _ = await asyncio.wait([web, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        # Whatever ended first, on a signal the web server, the others have nothing to do alone.
        end()
        for task in others:
            task.cancel()
        await asyncio.gather(web, *others, return_exceptions=True)


async def _terms(directory: StateDir, front: Front, lead: Lead | None) -> None:
    """Lead whenever it is this manager's turn; alone on a database, always."""
    if lead is None:
        await _term(directory, front, None)
        return
    loop = asyncio.get_running_loop()
    try:
        while True:
            over = asyncio.Event()
            try:
                if await asyncio.to_thread(lead.take, partial(loop.call_soon_threadsafe, over.set)):
                    log.info("this manager leads", epoch=lead.epoch)
                    await _term(directory, front, lead, over)
            except* (Lost, TooMuch) as lost:  # what a term begins with may be too much, too
                lead.end(str(lost.exceptions[0]))
                log.warning("this manager does not lead", reason=str(lost.exceptions[0]))
            front.leader = lead.leader
            await asyncio.sleep(RENEW_S)
    finally:
        lead.give_back()
        lead.close()


async def _term(
    directory: StateDir, front: Front, lead: Lead | None, over: asyncio.Event | None = None
) -> None:
    """Everything there is is made anew, from the database. Raises Lost."""
    parts = compose(directory, lead)
    rotation = Rotation(directory.path, {"amqp": parts.broker_tls})
    tasks = [
        asyncio.create_task(parts.publisher.run(), name="publisher"),
        asyncio.create_task(_every(LEASES_S, parts.vnics.expire), name="leases"),
        asyncio.create_task(_every(MOVES_S, parts.moves.expire), name="moves"),
        asyncio.create_task(_every(MOVES_S, parts.pulls.expire), name="pulls"),
        asyncio.create_task(_every(STATISTICS_S, parts.statistics.save), name="statistics"),
        asyncio.create_task(_every(CONFIRMATION_S, parts.publishing.expire), name="confirmation"),
        *([asyncio.create_task(over.wait(), name="lead")] if over else []),
        asyncio.create_task(rotation.follow(), name="broker session's certificate"),
    ]
    front.app = parts.web
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        front.app = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.broker.close()
        if lead is None or lead.is_mine:
            parts.statistics.save()
        parts.store.close()
