"""A manager for each test."""

from collections.abc import AsyncIterator, Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, Final

import argon2
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import routing
from fastapi.dependencies import utils as dependencies

from manager_stub import auth
from manager_stub.state_dir import StateDir
from tests.harness.manager import alone
from tests.harness.postgres import Postgres, private_postgres
from tests.unit.manager.expressions import named, vm
from tests.unit.manager.moving import HERE, OTHER, SOURCE, TARGET, plugged
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from tests.unit.manager.serving import HOST, MAC, VM, VNIC
from vsfwd.protocol.messages import Binding, Bindings, Hello, digest_text

MOST_PARAMETERS: Final = 2000


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """argon2 as fast as it can be: what it costs is argon2's matter, and every test logs in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        patch.setattr(auth, "_NOBODY", auth.hash_password("nobody's"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _parameters_once() -> Iterator[None]:
    """What FastAPI makes of a parameter follows from its name, annotation and default. It would find out
    anew for each test's manager, and that is most of what making one costs."""
    analyse, known = dependencies.analyze_param, dict[tuple[Any, ...], tuple[Any, ...]]()

    def remembered(*, param_name: str, annotation: Any, value: Any, path_param_names: set[str]) -> Any:
        key = (param_name, id(annotation), id(value), param_name in path_param_names)
        if key in known:
            return known[key][0]
        found = analyse(
            param_name=param_name, annotation=annotation, value=value, path_param_names=path_param_names
        )
        if len(known) < MOST_PARAMETERS:  # the rest are made anew with each manager, and never seen again
            known[key] = found, annotation, value  # kept, so that nothing else gets their ids
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "analyze_param", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def _answers_once() -> Iterator[None]:
    """Likewise what pydantic makes of an answer, which is a JSON object for all but a few calls."""
    make, known = routing.create_model_field, dict[Any, Any]()

    def remembered(*, name: str, type_: Any, mode: Any) -> Any:
        if type_ not in known:
            known[type_] = make(name=name, type_=type_, mode=mode)
        field = copy(known[type_])
        field.name = name
        return field

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "create_model_field", remembered)
        yield


@pytest.fixture(scope="session")
def initialised(_cheap_hashes: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[StateDir, str]:
    """Made once: keys and the password's hash take their time. Tests work on copies of its database."""
    directory = StateDir(alone(tmp_path_factory.mktemp("manager")))
    return directory, directory.create()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with private_postgres() as server:
        yield server


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """What the databases of a test are. A file whose tests are about both has its own fixture."""
    dialect: str = request.config.getoption("--database")
    return dialect


@pytest.fixture
def give_database(dialect: str, request: pytest.FixtureRequest) -> Callable[[Path], sa.URL]:
    """Gives a state directory an empty database in place of the one it has."""

    def give(directory: Path) -> sa.URL:
        for file in directory.glob("manager.db*"):
            file.unlink()
        if dialect == "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            (directory / "database-url").write_text(server.make_database())
        return StateDir(alone(directory)).database_url()

    return give


@pytest.fixture
async def manager(
    initialised: tuple[StateDir, str],
    dialect: str,
    give_database: Callable[[Path], sa.URL],
    tmp_path: Path,
) -> AsyncIterator[Manager]:
    template, password = initialised
    for file in template.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if dialect != "sqlite":
        give_database(tmp_path)
        copy_users(template, StateDir(alone(tmp_path)))
    manager = Manager(StateDir(alone(tmp_path)), password)
    yield manager
    await manager.close()


def copy_users(template: StateDir, to: StateDir) -> None:
    stores = template.open_store(), to.open_store()
    with stores[1].begin() as transaction:
        for user in stores[0].users():
            transaction.put_user(**user)
    for store in stores:
        store.close()


@pytest.fixture
def csr() -> str:
    """A host's signing request; its subject claims to be the manager."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
async def serving(manager: Manager) -> Manager:
    """With a host on which a VM is plugged."""
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "vm", "vnics": [{"id": VNIC, "mac": MAC}]})
    manager.register.add_host(HOST, "host")
    manager.vnics.bound(HOST, Bindings((Binding(VNIC, VM, MAC, "veth0"),)))
    return manager


@pytest.fixture
async def hosts_of_a_move(manager: Manager) -> None:
    """Three; the first has the VM, which a rule is about."""
    for host in (SOURCE, TARGET, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")
        manager.register.reported({host: Hello(0, 0, digest_text(0), "0.1.0")})
    await manager.call("PUT", f"{DOMAIN}/groups/web", {"expression": [vm("Name", "STARTSWITH", "web")]})
    rule = {"id": "r", "destination_groups": [named("web")], "action": "ALLOW"}
    await manager.call("PUT", f"{DOMAIN}/security-policies/s", {"rules": [rule]})
    plugged(manager, SOURCE, HERE)
