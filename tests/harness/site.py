"""A site as an operator has it: RabbitMQ, the manager's own process, and hosts that came by `vsfwctl enroll`.

Of a host there is its directory; what speaks with it is the test's matter.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import httpx
from aio_pika.abc import AbstractConnection
from yarl import URL

from manager_stub.state_dir import ADMIN
from tests.harness.installation import Installation, installed
from tests.harness.manager import serving
from vsfwd.config import Config
from vsfwd.enrolment import CONFIG, Enrolment, enrol
from vsfwd.protocol import topology

VSFW = "/api/v1/vsfw"


class Site:
    """`rest`: a client with the admin's password."""

    def __init__(self, installation: Installation, rest: httpx.Client) -> None:
        self.installation = installation
        self.node = installation.node
        self.rest = rest
        self.log = installation.path / "manager.log"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.rest.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def host(self, name: str, again: str = "") -> Config:
        """One more; or that with the id `again`, anew, in a directory of its own: what it had before stays
        for whoever stole it."""
        what = {"host": again} if again else {"display_name": name}
        token = self.call("POST", f"{VSFW}/enrolment-tokens", what)
        directory = self.installation.path / name
        url = f"https://{self.installation.directory.config.listen}"
        enrol(Enrolment(url, token["token"], token["ca_hash"], directory))
        return Config.load(directory / CONFIG)


def tls_of(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca)
    context.load_cert_chain(config.certificate, config.key)
    return context


async def connect(
    config: Config, tls: ssl.SSLContext | None = None, *, vhost: str = topology.VHOST, login: str = ""
) -> AbstractConnection:
    """To the broker, as the host does, or with something of it changed. `login`: USER:PASSWORD."""
    url = URL(config.broker_urls[0]).with_path(f"/{vhost}")
    if login:
        user, _, password = login.partition(":")
        url = url.with_user(user).with_password(password)
    else:
        url = url.with_query(auth="external")
    return await aio_pika.connect(url, ssl_context=tls or tls_of(config), timeout=60)


@contextmanager
def site(path: Path) -> Iterator[Site]:
    with installed(path) as installation:
        url = f"https://{installation.directory.config.listen}"
        tls = ssl.create_default_context(cafile=str(installation.directory.ca))
        auth, config = (ADMIN, installation.password), installation.directory.config
        with (path / "manager.log").open("wb") as log, serving(config, url, auth, tls, log) as rest:
            yield Site(installation, rest)
