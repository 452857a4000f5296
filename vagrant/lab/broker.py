"""The private RabbitMQ node: Debian's package, TLS only, data directory, cookie, ports and epmd of its own.

Owns `directory` and two processes, the node and its epmd. The package's system broker is never started, asked
or touched, and nothing of /etc/rabbitmq is read. The configuration is that of a real installation:
client certificates, SASL EXTERNAL, the user is the certificate's common name; a password opens only the
management API.

The manager declares vhost, users, queues: the node starts empty but for the management API's user.
"""

import os
import secrets
import signal
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from vagrant.lab.processes import Process, in_namespace, recall, spawn, tail
from vagrant.lab.waiting import wait_until

_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_PLUGINS = "[rabbitmq_auth_mechanism_ssl,rabbitmq_event_exchange,rabbitmq_management]."
ADMIN = "admin"
"""User of the management API."""

_CONFIG = """\
listeners.tcp = none
listeners.ssl.1 = {address}:{port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_options.versions.1 = tlsv1.3
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
max_message_size = 16777216

management.ssl.ip = {address}
management.ssl.port = {api_port}
management.ssl.cacertfile = {ca}
management.ssl.certfile = {certificate}
management.ssl.keyfile = {key}
management.ssl.versions.1 = tlsv1.3
management.rates_mode = none

default_vhost = vsfw
event_exchange.vhost = vsfw
default_user = {admin}
default_pass = {password}
log.file = {log}
log.file.level = info
log.console = false
"""


@dataclass(frozen=True)
class Tls:
    """Paths: the CA that clients and server are verified by, and the server's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Broker:
    """One node. Everything about it can be derived from these fields, so another process can stop what this
    one started: the pids stand in files in `directory`."""

    directory: Path
    address: str
    tls: Tls
    admin_password: str
    namespace: str | None = None
    port: int = 5671
    api_port: int = 15671
    epmd_port: int = 4369
    node_port: int = 25672
    name: str = "vsfw"
    cookie: str = ""
    """Of a cluster; empty: one of its own."""
    settings: str = ""
    """More of rabbitmq.conf."""
    erl_args: str = ""

    @property
    def url(self) -> str:
        return f"amqps://{self.address}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:{self.api_port}"

    @property
    def node_name(self) -> str:
        """What Erlang calls it. An address for a name: nothing is looked up, so it does not matter what this
        machine is called."""
        return f"{self.name}@{self._node_address}"

    @property
    def _node_address(self) -> str:
        """Where other nodes of its cluster find it; a node by itself is nobody's."""
        return self.address if self.cookie else "127.0.0.1"

    @property
    def log(self) -> Path:
        return self.directory / "broker.log"

    def start(self) -> None:
        """Start epmd and the node; `wait_ready` waits for it. What the node holds survives a stop."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_files()
        if not self._epmd_answers():  # it outlives a node that was killed
            self._spawn("epmd", ["epmd", "-port", str(self.epmd_port), "-address", self._node_address])
        # A node that finds no epmd starts one of its own, a daemon nobody would stop.
        wait_until(self._epmd_answers, "epmd ready", timeout_s=60.0)
        self._spawn("node", [_SERVER])

    def wait_ready(self, timeout_s: float = 90.0) -> None:
        """Returns when clients can connect. Raises RuntimeError with the end of its log if it died."""
        with self.client() as client:

            def ready() -> bool:
                if not self.running():
                    raise RuntimeError(f"RabbitMQ did not start, see {self.directory}:\n{tail(self.log)}")
                return self._listening(client)

            wait_until(ready, "RabbitMQ ready", timeout_s, every_s=0.1)

    def stop(self) -> None:
        """Orderly: the node writes out what it holds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def processes(self) -> dict[str, Process]:
        """What was started and not stopped, by name: "node", "epmd"."""
        found = {name: recall(self.directory / f"{name}.pid") for name in ("node", "epmd")}
        return {name: process for name, process in found.items() if process is not None}

    def running(self) -> bool:
        node = self.processes().get("node")
        return node is not None and node.alive()

    def client(self) -> httpx.Client:
        """Of the management API, which takes seconds for a queue on a machine that is busy."""
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        auth = (ADMIN, self.admin_password)
        return httpx.Client(base_url=self.api_url, auth=auth, verify=context, timeout=60.0, trust_env=False)

    def _listening(self, client: httpx.Client) -> bool:
        try:
            answer = client.get(f"/api/health/checks/port-listener/{self.port}", timeout=5.0)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def _epmd_answers(self) -> bool:
        ask = in_namespace(self.namespace, ["epmd", "-port", str(self.epmd_port), "-names"])
        return subprocess.run(ask, capture_output=True).returncode == 0

    def _write_files(self) -> None:
        """The cookie is made once; the rest says the same at every start."""
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            _write_secret(cookie, self.cookie or secrets.token_hex(20))
        _write_secret(
            self.directory / "rabbitmq.conf",
            _CONFIG.format(
                address=self.address,
                port=self.port,
                api_port=self.api_port,
                ca=self.tls.ca,
                certificate=self.tls.certificate,
                key=self.tls.key,
                admin=ADMIN,
                password=self.admin_password,
                log=self.log,
            )
            + self.settings,
        )
        (self.directory / "plugins").write_text(_PLUGINS)

    def _environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": self._node_address,
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{here}/config",
            "RABBITMQ_SCHEMA_DIR": f"{here}/schema",
            "RABBITMQ_LOG_BASE": here,
            # One scheduler: a lab shares few cores, and starts in a third less time like this.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 4 -kernel inet_dist_use_interface "
            f"{{{self._node_address.replace('.', ',')}}} {self.erl_args}",
            # With "input allowed" the script becomes the node instead of its parent: one pid, plain signals.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput +B i",
        }

    def _spawn(self, name: str, argv: list[str]) -> None:
        spawn(
            argv,
            pid_file=self.directory / f"{name}.pid",
            log=self.directory / "output.log",
            namespace=self.namespace,
            env=self._environment(),
        )

    def _end(self, number: signal.Signals) -> None:
        """The node first: without epmd it would log that it lost it."""
        for name, process in self.processes().items():
            if number == signal.SIGKILL:
                process.kill()
            else:
                process.stop(timeout_s=30.0)
            (self.directory / f"{name}.pid").unlink()


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
