"""The manager's state directory: what `init` makes and `serve` reads.

    manager.db                         SQLite: objects, hosts, outbox, users, audit log
    database-url                       instead of it: of a PostgreSQL database, with the password
    ca.crt ca.key                      the installation's certificate authority
    server.crt server.key              the REST interface's certificate
    broker.crt broker.key              the broker's certificate, for whoever sets the broker up
    amqp.crt amqp.key                  the manager's client certificate on the broker, CN=manager
    signing.key signing.pub            Ed25519: signs policy; the public half is base64, as hosts are given it
    broker-admin                       password of the user "admin" of the broker's management API

Keys, broker-admin and what is of the database are readable by their owner only. What root makes here is
whose the directory is.
"""

import base64
import secrets
import socket
import ssl
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub import database
from manager_stub.access import Role
from manager_stub.auth import hash_password
from manager_stub.config import Config, split
from manager_stub.lead import Lead
from manager_stub.pki import PUBLIC, Authority, key_pem
from manager_stub.store import Store
from manager_stub.users import Users
from vsfwd import files
from vsfwd.protocol.topology import MANAGER_USER

ADMIN = "admin"
_OWN = ("server.crt", "server.key")
"""What each of several managers has for itself."""
RENEWED: Final = ("server", "broker", "amqp")
SECRETS: Final = ("ca.crt", "ca.key", "signing.key", "signing.pub", "broker-admin")
"""What cannot be made anew: hosts, or the broker, know it."""


@dataclass(frozen=True)
class StateDir:
    config: Config

    @property
    def path(self) -> Path:
        return self.config.state_dir

    def create(self, database_url: str = "") -> str:
        """Everything of the docstring above. Returns the admin's password, which is kept nowhere. Raises
        FileExistsError when there is a manager here, whole or not, or in the database, already."""
        url = database.parse(database_url) if database_url else None
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_is_empty()
        store = Store(url) if url else self.open_store()
        if store.users():
            raise FileExistsError(f"{url or self.path}: the database is a manager's already")
        if url:
            self.save_database_url(database_url)
        authority = Authority.create()
        authority.save(self.ca, self.path / "ca.key")
        self._certify(authority)
        signing = Ed25519PrivateKey.generate()
        files.create(self.path / "signing.key", key_pem(signing))
        files.create(self.path / "broker-admin", secrets.token_urlsafe(24).encode())
        password = secrets.token_urlsafe(18)
        with store.begin() as transaction:
            transaction.put_user(ADMIN, hash_password(password), Role.ENTERPRISE_ADMIN)
        store.close()
        raw = signing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        files.create(self._last, base64.b64encode(raw) + b"\n", PUBLIC)
        return password

    def _certify(self, authority: Authority) -> None:
        """What `renew` renews, with keys of its own."""
        self._save_pair("server", authority.issue_server("manager", [split(self.config.listen)[0]]))
        names = list(dict.fromkeys(split(broker)[0] for broker in self.config.brokers))
        self._save_pair("broker", authority.issue_server("broker", names))
        self._save_pair("amqp", authority.issue_client(MANAGER_USER))

    def reset_password(self, name: str) -> str:
        """A user's new password, which is kept nowhere; their tokens end. Raises ValueError, Lost,
        FileNotFoundError."""
        self.check_nobody_serves()
        with ExitStack() as held:
            lead = self.lead()
            if lead:
                held.callback(lead.close)
                if not lead.take(lambda: None):
                    raise ValueError(f"the manager at {lead.leader} leads: end it first, and every other")
                held.callback(lead.give_back)
            store = self.open_store(lead)
            held.callback(store.close)
            users = Users(store)
            if name not in users.all:
                raise ValueError(f"no user {name!r}, there are {', '.join(sorted(users.all))}")
            password = secrets.token_urlsafe(18)
            users.put(name, users.all[name].role, password)
        return password

    def check_nobody_serves(self) -> None:
        """Who serves has users, tokens and sessions in memory. Raises ValueError."""
        listen = self.config.listen
        try:
            socket.create_connection(split(listen), timeout=3).close()
        except OSError:
            return
        raise ValueError(f"the manager serves at {listen}: end it first")

    @property
    def _last(self) -> Path:
        """The file that is made last: a directory with it is a whole one."""
        return self.path / "signing.pub"

    def check(self) -> None:
        """Raises FileNotFoundError where there is no manager, PermissionError where nobody else may look."""
        if not self._last.exists():
            raise FileNotFoundError(f"{self.path}: there is no manager here; make one with init")

    def check_is_free(self) -> None:
        """Raises FileExistsError."""
        if self._last.exists():
            raise FileExistsError(
                f"{self.path}: there is a manager here already; serve runs it, reset-password gives its "
                "admin a new password, and another one needs another state_dir"
            )

    def check_is_empty(self) -> None:
        """As far as it is there. Raises FileExistsError."""
        self.check_is_free()  # which says better what to do
        if self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(f"{self.path}: the directory is not empty; put aside what is in it")

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    @property
    def _database_url(self) -> Path:
        return self.path / "database-url"

    def database_url(self) -> sa.URL:
        """Its text has no password. Raises ValueError."""
        if self._database_url.exists():
            return database.parse(self._database_url.read_text())
        return database.sqlite_file(self.path / "manager.db")

    def save_database_url(self, url: str) -> None:
        files.create(self._database_url, url.strip().encode() + b"\n")

    def open_store(self, lead: Lead | None = None) -> Store:
        return Store(self.made_database_url(), lead)

    def made_database_url(self) -> sa.URL:
        """With SQLite the file is there, for its owner alone."""
        if not self._database_url.exists():
            with suppress(FileExistsError):
                files.create(self.path / "manager.db", b"")
        return self.database_url()

    def lead(self) -> Lead | None:
        """None with SQLite: the database is this directory's, and nobody else's."""
        if not self._database_url.exists():
            return None
        return Lead(self.database_url(), self.config.listen)

    def join(self, other: Path) -> None:
        """Make this the directory of a further manager of the installation with the directory `other`: its
        keys and its database, and a certificate of its own. Raises ValueError, FileExistsError,
        FileNotFoundError."""
        there = StateDir(msgspec.structs.replace(self.config, state_dir=other))
        if not there._last.exists():
            raise FileNotFoundError(
                f"--with: no manager's state in {other}; name the first manager's state directory"
            )
        if not there._database_url.exists():
            raise ValueError(f"{other}: the database is SQLite, which is one manager's")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_is_free()
        for file in other.iterdir():
            if file.is_file() and file.name not in (*_OWN, self._last.name):
                files.create(self.path / file.name, file.read_bytes())
        self._save_pair("server", self.authority().issue_server("manager", [split(self.config.listen)[0]]))
        files.create(self._last, (other / self._last.name).read_bytes(), PUBLIC)

    def secrets(self) -> dict[str, bytes]:
        """By the names of the files."""
        return {name: (self.path / name).read_bytes() for name in SECRETS}

    def staged(self) -> "StateDir":
        """Beside this one: what is made there becomes it by `adopt`, whole."""
        path = self.path.with_name(f"{self.path.name}.staged")
        return StateDir(msgspec.structs.replace(self.config, state_dir=path))

    def take(self, secrets: dict[str, bytes]) -> None:
        """Those of another directory; certificates of servers are made for this configuration. Raises
        ValueError."""
        if secrets.keys() != set(SECRETS):
            raise ValueError(f"{', '.join(sorted(secrets.keys() ^ set(SECRETS)))}: not what a manager has")
        for name, content in secrets.items():
            files.create(self.path / name, content)
        self._certify(self.authority())

    def adopt(self, staged: "StateDir") -> None:
        """Raises FileExistsError."""
        self.check_is_free()
        staged.path.rename(self.path)  # over an empty directory, too

    def authority(self) -> Authority:
        return Authority.load(self.ca, self.path / "ca.key")

    def signing_key(self) -> Ed25519PrivateKey:
        key = serialization.load_pem_private_key((self.path / "signing.key").read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{self.path}/signing.key: not an Ed25519 key")
        return key

    def signing_public(self) -> str:
        return (self.path / "signing.pub").read_text().strip()

    def broker_password(self) -> str:
        return (self.path / "broker-admin").read_text().strip()

    def renew(self) -> None:
        """The installation's certificates, but the authority's, each in one step and for the key it has."""
        authority = self.authority()
        for name in RENEWED:
            path = self.path / f"{name}.crt"
            files.replace(path, authority.renew(path.read_bytes()), PUBLIC)

    def broker_tls(self) -> ssl.SSLContext:
        """Verifies the broker by the installation's CA and its name, and shows the manager's certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path / "amqp.crt", self.path / "amqp.key")
        return context

    def _save_pair(self, name: str, pair: tuple[bytes, bytes]) -> None:
        certificate, key = pair
        files.create(self.path / f"{name}.crt", certificate, PUBLIC)
        files.create(self.path / f"{name}.key", key)
