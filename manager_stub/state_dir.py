"""The manager's state directory: what `init` makes and `serve` reads.

    manager.json                       where to listen, where the broker is
    manager.db                         SQLite: objects, hosts, outbox, users, audit log
    database-url                       instead of it: of a PostgreSQL database, with the password
    ca.crt ca.key                      the installation's certificate authority
    server.crt server.key              the REST interface's certificate
    broker.crt broker.key              the broker's certificate, for whoever sets the broker up
    amqp.crt amqp.key                  the manager's client certificate on the broker, CN=manager
    signing.key signing.pub            Ed25519: signs policy; the public half is base64, as hosts are given it
    broker-admin                       password of the user "admin" of the broker's management API

Keys, broker-admin and what is of the database are readable by their owner only.
"""

import base64
import secrets
import socket
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub import database
from manager_stub.access import Role
from manager_stub.auth import hash_password
from manager_stub.lead import Lead
from manager_stub.pki import Authority, key_pem, write_secret
from manager_stub.store import Store
from manager_stub.users import Users
from vsfwd.protocol.topology import MANAGER_USER

ADMIN = "admin"
_OWN = ("manager.json", "server.crt", "server.key")
"""What each of several managers has for itself."""
RENEWED: Final = ("server", "broker", "amqp")


class Addresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HOST:PORT each; `broker_api` is a URL. Of a cluster of brokers all nodes, with commas between."""

    listen: str
    broker: str
    broker_api: str

    @property
    def brokers(self) -> list[str]:
        return self.broker.split(",")

    @property
    def broker_urls(self) -> list[str]:
        return [f"amqps://{broker}" for broker in self.brokers]

    @property
    def broker_apis(self) -> list[str]:
        return self.broker_api.split(",")


def split(address: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def check_address(setting: str, text: str) -> None:
    """`text` as a setting of Addresses. Raises ValueError."""
    for each in [text] if setting == "listen" else text.split(","):
        if setting != "broker_api":
            split(each)
            continue
        url = urlsplit(each)
        if url.scheme != "https" or not url.hostname or url.path.strip("/"):
            raise ValueError(f"{each!r} is not https://HOST:PORT")
        split(url.netloc)


@dataclass(frozen=True)
class StateDir:
    path: Path

    def create(self, addresses: Addresses, database_url: str = "") -> str:
        """Everything of the docstring above. Returns the admin's password, which is kept nowhere. Raises
        FileExistsError when there is a manager here, or in the database, already."""
        url = database.parse(database_url) if database_url else None
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._settings.exists():
            raise FileExistsError(f"{self.path}: there is a manager here already")
        store = Store(url) if url else self.open_store()
        if store.users():
            raise FileExistsError(f"{url or self.path}: the database is a manager's already")
        if url:
            write_secret(self._database_url, database_url.strip().encode() + b"\n")
        authority = Authority.create()
        authority.save(self.ca, self.path / "ca.key")
        self._save_pair("server", authority.issue_server("manager", [split(addresses.listen)[0]]))
        names = list(dict.fromkeys(split(broker)[0] for broker in addresses.brokers))
        self._save_pair("broker", authority.issue_server("broker", names))
        self._save_pair("amqp", authority.issue_client(MANAGER_USER))
        signing = Ed25519PrivateKey.generate()
        write_secret(self.path / "signing.key", key_pem(signing))
        raw = signing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        (self.path / "signing.pub").write_text(base64.b64encode(raw).decode() + "\n")
        write_secret(self.path / "broker-admin", secrets.token_urlsafe(24).encode())
        password = secrets.token_urlsafe(18)
        with store.begin() as transaction:
            transaction.put_user(ADMIN, hash_password(password), Role.ENTERPRISE_ADMIN)
        store.close()
        # Last: a directory with settings is a whole one.
        self._settings.write_bytes(msgspec.json.format(msgspec.json.encode(addresses)) + b"\n")
        return password

    def reset_password(self, name: str) -> str:
        """A user's new password, which is kept nowhere; their tokens end. Raises ValueError, Lost,
        FileNotFoundError."""
        self._check_nobody_serves()
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

    def _check_nobody_serves(self) -> None:
        """Who serves has users, tokens and sessions in memory. Raises ValueError."""
        listen = self.addresses().listen
        try:
            socket.create_connection(split(listen), timeout=3).close()
        except OSError:
            return
        raise ValueError(f"the manager serves at {listen}: end it first")

    @property
    def _settings(self) -> Path:
        return self.path / "manager.json"

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    def addresses(self) -> Addresses:
        """Raises FileNotFoundError, NotADirectoryError, and ValueError where one is none."""
        addresses = msgspec.json.decode(self._settings.read_bytes(), type=Addresses)
        for setting, text in msgspec.structs.asdict(addresses).items():
            try:
                check_address(setting, text)
            except ValueError as error:
                raise ValueError(f"{self._settings}: {setting}: {error}") from None
        return addresses

    @property
    def _database_url(self) -> Path:
        return self.path / "database-url"

    def database_url(self) -> sa.URL:
        """Its text has no password. Raises ValueError."""
        if self._database_url.exists():
            return database.parse(self._database_url.read_text())
        return database.sqlite_file(self.path / "manager.db")

    def open_store(self, lead: Lead | None = None) -> Store:
        url = self.database_url()
        if not self._database_url.exists():
            (self.path / "manager.db").touch(mode=0o600)
        return Store(url, lead)

    def lead(self) -> Lead | None:
        """None with SQLite: the database is this directory's, and nobody else's."""
        if not self._database_url.exists():
            return None
        return Lead(self.database_url(), self.addresses().listen)

    def join(self, other: "StateDir", listen: str) -> None:
        """Make this the directory of a further manager of the same installation: its keys and its database,
        and a certificate of its own. Raises ValueError, FileExistsError, FileNotFoundError."""
        settings = other.addresses()
        if not other._database_url.exists():
            raise ValueError(f"{other.path}: the database is SQLite, which is one manager's")
        if settings.listen == listen:
            raise ValueError(f"{listen} is where the other manager listens")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._settings.exists():
            raise FileExistsError(f"{self.path}: there is a manager here already")
        for file in other.path.iterdir():
            if file.is_file() and file.name not in _OWN:
                write_secret(self.path / file.name, file.read_bytes())
        self._save_pair("server", self.authority().issue_server("manager", [split(listen)[0]]))
        settings = msgspec.structs.replace(settings, listen=listen)
        self._settings.write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")

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
            fresh = path.with_suffix(".crt.new")
            fresh.write_bytes(authority.renew(path.read_bytes()))
            fresh.replace(path)

    def broker_tls(self) -> ssl.SSLContext:
        """Verifies the broker by the installation's CA and its name, and shows the manager's certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path / "amqp.crt", self.path / "amqp.key")
        return context

    def _save_pair(self, name: str, pair: tuple[bytes, bytes]) -> None:
        certificate, key = pair
        (self.path / f"{name}.crt").write_bytes(certificate)
        write_secret(self.path / f"{name}.key", key)
