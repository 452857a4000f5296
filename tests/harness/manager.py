"""A manager as an operator starts it: `init`, then `serve`, over TLS, with no broker to talk to."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import msgspec
import tomlkit

from manager_stub.config import Config
from tests.harness.broker import free_ports
from vagrant.lab.waiting import wait_until

COMMAND = [sys.executable, "-m", "manager_stub"]


def alone(state_dir: Path, port: int = 1) -> Config:
    """Of a manager that has no broker."""
    return Config(
        listen=f"127.0.0.1:{port}",
        brokers=("127.0.0.1:1",),
        broker_apis=("https://127.0.0.1:1",),
        state_dir=state_dir,
    )


def command(config: Config, *arguments: str) -> list[str]:
    """`vsfw-manager` with this configuration, in a file beside its state directory."""
    path = config.state_dir.with_name(f"{config.state_dir.name}.toml")
    path.write_text(tomlkit.dumps(msgspec.to_builtins(config, enc_hook=str)))
    return [*COMMAND, "--config", str(path), *arguments]


@dataclass(frozen=True)
class Served:
    """`rest`: a client with the admin's password."""

    url: str
    user: str
    password: str
    ca: str
    tls: ssl.SSLContext
    rest: httpx.Client


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    """On a state directory below `directory`, until the end of the context."""
    (port,) = free_ports(1)
    config = alone(directory / "state", port)
    argv = command(config, "init")
    made = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    tls = ssl.create_default_context(cafile=made["ca"])
    auth = (made["user"], made["password"])
    with serving(config, made["url"], auth, tls) as rest:
        yield Served(made["url"], *auth, made["ca"], tls, rest)


@contextmanager
def serving(
    config: Config, url: str, auth: tuple[str, str], tls: ssl.SSLContext, log: IO[bytes] | None = None
) -> Iterator[httpx.Client]:
    """`serve` as a process, which answers; a client that is `auth` there."""
    process = subprocess.Popen(command(config, "serve"), stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=url, auth=auth, verify=tls, trust_env=False, timeout=30) as rest:
            wait_until(lambda: _answers(rest), "the manager answers", 60.0)
            yield rest
    finally:
        process.kill()
        process.wait()


def _answers(rest: httpx.Client) -> bool:
    try:
        return rest.get("/api/v1/node").is_success
    except httpx.TransportError:
        return False


def vsfwctl(manager: Served, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the admin, with nobody at a terminal and `home` for a home."""
    env = {"HOME": str(home), "PATH": "/usr/bin", "PYTHONPATH": os.getcwd()}
    env |= {"VSFWCTL_MANAGER": manager.url, "VSFWCTL_CA": manager.ca}
    env |= {"VSFWCTL_USER": manager.user, "VSFWCTL_PASSWORD": manager.password}
    argv = [sys.executable, "-m", "vsfwd.ctl", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
