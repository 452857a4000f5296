"""The composition root: makes every part anew, from the database, and gives each what it needs. Of the REST
interface `api.interface` is the root; `terms` begins the tasks."""

import ssl
from dataclasses import dataclass

from manager_stub.broker import Broker
from manager_stub.components.context import GuestContext
from manager_stub.components.control_plane import ControlPlane
from manager_stub.components.courier import Courier
from manager_stub.components.switchboard import Switchboard
from manager_stub.enrolment.credentials import Credentials
from manager_stub.enrolment.renewals import Renewals
from manager_stub.floods import Floods
from manager_stub.lead import Lead
from manager_stub.moves.courier import MoveCourier
from manager_stub.moves.moves import Moves
from manager_stub.moves.pulls import Pulls
from manager_stub.pki import Authority
from manager_stub.presence import Presence
from manager_stub.publish import Publishing
from manager_stub.publisher import Publisher
from manager_stub.register import Register
from manager_stub.state_dir import StateDir
from manager_stub.statistics import RuleStatistics
from manager_stub.store import Store
from manager_stub.users import Users
from manager_stub.vnics import Vnics
from manager_stub.watch import Watch


@dataclass(frozen=True)
class Parts:
    store: Store
    users: Users
    register: Register
    vnics: Vnics
    statistics: RuleStatistics
    publishing: Publishing
    authority: Authority
    credentials: Credentials
    broker: Broker
    presence: Presence
    publisher: Publisher
    switchboard: Switchboard
    context: GuestContext
    control_plane: ControlPlane
    moves: Moves
    pulls: Pulls
    broker_tls: ssl.SSLContext


def compose(directory: StateDir, lead: Lead | None = None) -> Parts:
    store = directory.open_store(lead)
    register = Register(store, directory.signing_key())
    vnics, statistics = Vnics(register), RuleStatistics(store, register)
    credentials, authority = Credentials(store), directory.authority()
    config, tls = directory.config, directory.broker_tls()
    broker = Broker(config.broker_apis, directory.broker_password(), tls, credentials.logins)
    presence, switchboard = Presence(), Switchboard(store)
    moves = Moves(store, register, vnics, presence, credentials)
    parts = Parts(
        store=store,
        users=Users(store),
        register=register,
        vnics=vnics,
        statistics=statistics,
        publishing=Publishing(store, register),
        authority=authority,
        credentials=credentials,
        broker=broker,
        presence=presence,
        publisher=Publisher(register, vnics, statistics, broker, config.broker_urls, tls, lead=lead),
        switchboard=switchboard,
        context=GuestContext(store, register, vnics, switchboard),
        control_plane=ControlPlane(store, register, switchboard, authority, credentials),
        moves=moves,
        pulls=Pulls(register, vnics, moves),
        broker_tls=tls,
    )
    _share_the_session(parts, lead)
    return parts


def _share_the_session(parts: Parts, lead: Lead | None) -> None:
    """What else is said and heard in the publisher's."""
    publisher, register, broker = parts.publisher, parts.register, parts.broker
    courier, floods = Courier(register, broker, parts.switchboard), Floods(register, broker)
    move_courier = MoveCourier(register, broker, parts.moves, lead)
    watch = Watch(register, parts.vnics, broker, parts.presence)

    def heard(host: str) -> None:
        parts.presence.heard(host)
        parts.moves.spoke(host)

    publisher.heard = heard
    publisher.dropped = courier.dropped = move_courier.dropped = floods.dropped
    floods.silenced = parts.moves.shut_out
    watch.came_or_went = floods.came_or_went
    publisher.begin_beside = [courier.begin, floods.begin, move_courier.begin, watch.begin]
    publisher.renewal_asked = Renewals(parts.store, register, parts.authority, parts.credentials).asked
