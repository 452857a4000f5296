"""The agents that run beside vsfwd on a host of the lab, processes of their own as on any host: what vsfwd's
bus and the manager's components have to talk to. They wait for vsfwd by themselves, and outlive it."""

import sys
from pathlib import Path

from vagrant.lab.layout import Host
from vagrant.lab.processes import recall, spawn
from vsfwd.enrolment import CONFIG
from vsfwd.protocol import context, control_plane


def start(host: Host) -> None:
    """Those that do not run."""
    host.guests.mkdir(mode=0o700, exist_ok=True)
    programs = _programs(host)
    for name, pid in running(host).items():
        if pid is None:
            argv = [sys.executable, "-m", *programs[name]]
            log = host.directory / f"{name}.log"
            spawn(argv, pid_file=_pid_file(host, name), log=log, namespace=host.namespace)


def running(host: Host) -> dict[str, int | None]:
    """The pid of each; None: it does not live."""
    found = {name: recall(_pid_file(host, name)) for name in _programs(host)}
    return {name: each.pid if each is not None and each.alive() else None for name, each in found.items()}


def _programs(host: Host) -> dict[str, list[str]]:
    config = ["--config", str(host.directory / CONFIG)]
    return {
        context.COMPONENT: ["vsfwd.components.context_agent", *config],
        control_plane.COMPONENT: ["vsfwd.components.control_plane_agent", *config],
    }


def _pid_file(host: Host, name: str) -> Path:
    return host.directory / f"{name}.pid"
