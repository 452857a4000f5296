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

import httpx

from tests.harness.broker import free_ports
from vagrant.lab.waiting import wait_until

COMMAND = [sys.executable, "-m", "manager_stub"]


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
    state = directory / "state"
    argv = [*COMMAND, "init", "--state", str(state), "--listen", f"127.0.0.1:{port}"]
    argv += ["--broker", "127.0.0.1:1", "--broker-api", "https://127.0.0.1:1"]
    made = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    tls = ssl.create_default_context(cafile=made["ca"])
    process = subprocess.Popen([*COMMAND, "serve", "--state", str(state)])
    auth = (made["user"], made["password"])
    try:
        with httpx.Client(base_url=made["url"], auth=auth, verify=tls, trust_env=False) as rest:
            wait_until(lambda: _answers(rest), "the manager answers", 30.0)
            yield Served(made["url"], *auth, made["ca"], tls, rest)
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
