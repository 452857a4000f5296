"""The whole interface: every router with what it needs, behind the door."""

from collections.abc import Callable, Iterator
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from manager_stub.alarms.alarms import Alarms
from manager_stub.alarms.causes import Causes
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
    metrics,
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
from manager_stub.api.node import installation_id
from manager_stub.api.parameters import check_parameters
from manager_stub.app import Parts
from manager_stub.auth import Passwords
from manager_stub.enrolment.admission import Admission
from manager_stub.enrolment.tokens import Tokens
from manager_stub.expiries import Expiries
from manager_stub.guard import Guard
from manager_stub.inquiry import Inquiry
from manager_stub.sessions import Sessions
from manager_stub.state_dir import StateDir


def interface(parts: Parts, directory: StateDir) -> Guard:
    passwords, sessions, aside = Passwords(parts.users.password_hash), Sessions(), Aside()
    parts.users.forget = _forget_by(passwords, sessions)
    app = FastAPI(title="vsfwd manager", version=version("vsfwd"), dependencies=[Depends(check_parameters)])
    app.include_router(session.router(passwords, sessions))  # a form, which it reads itself
    for routes in (
        users_api.router(parts.users, passwords),
        *_of_the_manager(parts, directory, aside),
        *_of_the_policy(parts, aside),
        *_of_hosts_and_vms(parts, directory),
    ):
        app.include_router(routes, dependencies=[Depends(check_json)])
    errors.install(app)
    return Guard(Bodies(app), parts.users, passwords, sessions)


def _of_the_manager(parts: Parts, directory: StateDir, aside: Aside) -> Iterator[APIRouter]:
    yield audit_log.router(parts.store, aside)
    yield node.router(installation_id(directory.signing_public()), parts.publisher)


def _of_the_policy(parts: Parts, aside: Aside) -> Iterator[APIRouter]:
    register, publishing = parts.register, parts.publishing
    yield infra.router(register)
    yield service_entries.router(register)
    yield segment_ports.router(register)
    yield absent.router()
    yield hierarchy.router(register, aside)
    yield publish.router(register, publishing, aside, DryRun(register, Inquiry(register)))
    yield policy_file.router(register, publishing, aside)
    yield search.router(register, aside)
    yield realized.router(register)
    yield rule_analysis.router(register, parts.statistics, aside)
    yield statistics_api.router(register, parts.statistics)


def _of_hosts_and_vms(parts: Parts, directory: StateDir) -> Iterator[APIRouter]:
    register, presence, broker, publisher = parts.register, parts.presence, parts.broker, parts.publisher
    expiries = Expiries(directory.path, parts.credentials)
    all_alarms = Alarms(Causes(register, presence, broker, expiries, publisher), parts.store)
    yield transport_nodes.router(register, presence)
    yield alarms.router(all_alarms)
    yield metrics.router(register, presence, publisher, parts.switchboard, all_alarms)
    yield capacity.router(register, parts.publishing)
    yield certificates.router(directory.path)
    yield components.router(register, parts.switchboard, parts.store, presence, publisher)
    yield controllers.router(parts.control_plane)
    yield fabric.router(register)
    yield tags.router(register)
    yield members.router(register)
    yield migrations.router(register, parts.moves, publisher)
    yield traceflows.router(register)
    yield inventory.router(register)
    yield vm_users.router(register, parts.context)
    yield claims.router(register, parts.vnics)
    yield disputes.router(register, parts.vnics)
    yield hosts.router(register, presence, broker, parts.credentials, publisher)
    yield dead_letters.router(register, broker)
    yield _enrolment(parts, directory)


def _enrolment(parts: Parts, directory: StateDir) -> APIRouter:
    tokens, authority = Tokens(parts.store), parts.authority
    admission = Admission(parts.store, parts.register, parts.broker, authority, tokens, parts.credentials)
    manager_key, urls = directory.signing_public(), directory.config.broker_urls
    return enrolment.router(parts.register, tokens, admission, authority, manager_key, urls)


def _forget_by(passwords: Passwords, sessions: Sessions) -> Callable[[str], None]:
    def forget(name: str) -> None:
        passwords.forget(name)
        sessions.close_all(name)

    return forget
