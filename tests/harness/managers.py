"""Several managers of one installation, as processes: PostgreSQL, a broker, `init`, `join`, `serve`.

with managers(tmp_path, 2) as found:
    leader = found.leader()
    leader.process.kill()
"""

import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from manager_stub import config as manager_config
from manager_stub.state_dir import StateDir
from tests.harness.broker import free_ports
from tests.harness.documents import by_shell, commands
from tests.harness.manager import command
from tests.harness.postgres import Postgres, private_postgres
from vagrant.lab.broker import Broker, Tls
from vagrant.lab.waiting import wait_until
from vsfwd import identity
from vsfwd.config import Config

ANSWER_S = 30.0
TAKEOVER_S = 60.0


@dataclass
class Manager:
    directory: StateDir
    rest: httpx.Client
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            argv = command(self.directory.config, "serve")
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def status(self) -> int:
        """Of what it answers; 0 if it does not."""
        try:
            return self.rest.get("/api/v1/node", timeout=1.0).status_code
        except httpx.TransportError:
            return 0

    def leads(self) -> bool:
        return self.status() == httpx.codes.OK

    def stands_by(self) -> bool:
        return self.status() == httpx.codes.SERVICE_UNAVAILABLE


@dataclass(frozen=True)
class Managers:
    all: list[Manager]
    broker: Broker
    postgres: Postgres
    directory: Path

    def leader(self) -> Manager:
        found: list[Manager] = []

        def one_leads() -> bool:
            found[:] = [each for each in self.all if each.leads()]
            return len(found) == 1

        wait_until(one_leads, "one manager leads", TAKEOVER_S)
        return found[0]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """At whoever leads, as a person would: who gets no answer, or a 503, tries the others."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            for each in self.all:
                try:
                    answer = each.rest.request(method, path, json=body, timeout=5.0)
                except httpx.TransportError:
                    continue
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    answers.append(answer)
                    return True
            return False

        wait_until(answered, f"{method} {path} is answered", TAKEOVER_S)
        assert answers[0].is_success, answers[0].text
        return answers[0].json() if answers[0].content else None

    def enrol(self, name: str) -> Config:
        """A host, of which nothing runs yet."""
        key = identity.new_key()
        csr = identity.signing_request(key)
        token = self.call("POST", "/api/v1/vsfw/enrolment-tokens", {"display_name": name})["token"]
        given = self.call("POST", "/api/v1/vsfw/enrol", {"token": token, "csr": csr})
        here = self.directory / "hosts" / name
        here.mkdir(parents=True)
        (here / "host.crt").write_text(given["certificate"])
        (here / "host.key").write_bytes(identity.key_pem(key))
        return Config(
            host_id=given["id"],
            broker_urls=tuple(given["broker_urls"]),
            ca=self.all[0].directory.ca,
            certificate=here / "host.crt",
            key=here / "host.key",
            manager_key=given["manager_key"],
            state_dir=here / "state",
        )


@contextmanager
def managers(directory: Path, count: int) -> Iterator[Managers]:
    """All of them run, and one leads."""
    port, api_port, epmd_port, node_port, *rest_ports = free_ports(4 + count)
    with ExitStack() as stack:
        postgres = stack.enter_context(private_postgres())
        first, *others = [
            StateDir(
                manager_config.Config(
                    listen=f"127.0.0.1:{rest_port}",
                    brokers=(f"127.0.0.1:{port}",),
                    broker_apis=(f"https://127.0.0.1:{api_port}",),
                    state_dir=directory / f"manager{number}",
                )
            )
            for number, rest_port in enumerate(rest_ports)
        ]
        (init,) = commands("manager_stub/INSTALL.md", "Database")
        init = init.replace("postgresql://vsfw:PASSWORD@db.example/vsfw", postgres.make_database())
        done = by_shell(init, {"vsfw-manager": command(first.config)})
        assert done.returncode == 0, done.stderr
        for other in others:
            _run(command(other.config, "join", "--with", str(first.path)))
        here = first.path
        broker = Broker(
            directory / "broker",
            "127.0.0.1",
            Tls(here / "ca.crt", here / "broker.crt", here / "broker.key"),
            first.broker_password(),
            port=port,
            api_port=api_port,
            epmd_port=epmd_port,
            node_port=node_port,
        )
        stack.callback(broker.kill)
        broker.start()
        broker.wait_ready()
        tls = ssl.create_default_context(cafile=str(first.ca))
        auth = ("admin", json.loads(done.stdout)["password"])
        all: list[Manager] = []
        for each in (first, *others):
            url = f"https://{each.config.listen}"
            rest = httpx.Client(base_url=url, auth=auth, verify=tls, trust_env=False)
            all.append(Manager(each, stack.enter_context(rest), directory / f"{each.path.name}.log"))
            all[-1].start()
            stack.callback(all[-1].kill)
            wait_until(lambda: bool(all[-1].status()), "the manager answers", ANSWER_S)
        found = Managers(all, broker, postgres, directory)
        found.leader()
        yield found


def _run(argv: list[str], input: str = "") -> str:
    return subprocess.run(argv, input=input, check=True, capture_output=True, text=True).stdout
