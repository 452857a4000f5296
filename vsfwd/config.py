"""The configuration of one vsfwd and its agents: a TOML file, read at the edge and passed down.

Every setting, its unit and its default stand here; `python -m vsfwd.config > vsfwd/vsfwd.toml` writes the
sample from it.
"""

import base64
import binascii
import grp
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Self

import click
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vsfwd import configfile
from vsfwd.configfile import ConfigError, setting
from vsfwd.ipc import SOCKET
from vsfwd.policy.model import is_uuid
from vsfwd.protocol import context, control_plane
from vsfwd.protocol.components import check_component, check_topic

PATH: Final = Path("/etc/vsfwd/vsfwd.toml")
PREFIX: Final = "VSFWD_"
ENROLMENT: Final = "vsfwctl enroll writes it"
FLOWS_AT_MOST: Final = 524288
"""8 places in each of 65,536 buckets: a bucket is chosen by 16 bits."""
RATE_AT_MOST: Final = 2**31
"""Packets, far more than a host has in a second; a burst of it at 1 a second fits the programs' 64 bits."""

_PORT: Final = re.compile(r"(?=.{1,15}\Z)[\w.:@-]+\*?", re.ASCII)


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A component of this host that uses the bus (`ipc.bus`). Root, and who vsfwd runs as, always may."""

    users: Annotated[tuple[int | str, ...], setting("By name or number.")] = ()
    topics: Annotated[
        tuple[str, ...],
        setting("`users` or `users.*`, which is all below it.", needs="say what it speaks of"),
    ]

    def __post_init__(self) -> None:
        for topic in self.topics:
            try:
                check_topic(topic.removesuffix(".*"))
            except ValueError as error:
                raise ValueError(f"topics: {error}") from None


SHIPPED: Final = {
    context.COMPONENT: Component(topics=(context.START, context.VM, context.GONE)),
    control_plane.COMPONENT: Component(
        topics=(control_plane.CONTROLLERS, control_plane.IDENTITY, control_plane.STATUS)
    ),
}
"""Components that come with vsfwd, for its own user. What the file says of one takes the place of this."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    host_id: Annotated[
        str,
        setting(
            "UUID that the manager gave this host; its user at the broker.",
            needs=ENROLMENT,
            example="3f2b8c1e-0000-4000-8000-000000000001",
        ),
    ]
    broker_urls: Annotated[
        tuple[str, ...],
        setting(
            "Nodes of the broker, amqps://HOST:PORT, any number; tried in random order.",
            needs=ENROLMENT,
            example=["amqps://10.0.0.1:5671", "amqps://10.0.0.2:5671"],
            reload=True,
        ),
    ]
    ca: Annotated[
        Path,
        setting(
            "PEM file with the certificates that the broker's certificate is verified by.",
            needs=ENROLMENT,
            example="/etc/vsfwd/ca.pem",
            file=True,
        ),
    ]
    certificate: Annotated[
        Path,
        setting(
            "PEM file with this host's client certificate.",
            needs=ENROLMENT,
            example="/etc/vsfwd/host/host.pem",
            file=True,
        ),
    ]
    key: Annotated[
        Path,
        setting(
            """PEM file with its private key. Certificates are renewed where it is the same file, in a
            directory that vsfwd may write.""",
            needs=ENROLMENT,
            example="/etc/vsfwd/host/host.pem",
            file=True,
        ),
    ]
    manager_key: Annotated[
        str,
        setting(
            "The manager's Ed25519 public key, base64 of its 32 bytes: policy is signed by it.",
            needs=ENROLMENT,
            example="l6pYz0bMJQ5mF1c0PS0o0mQ5yF3zX0yqSOVtWJkqQpA=",
        ),
    ]
    state_dir: Annotated[Path, setting("Directory for the policy in force, vNICs and their addresses.")] = (
        Path("/var/lib/vsfwd")
    )
    cache_dir: Annotated[
        Path, setting("Directory for compiled programs: what is lost there is compiled again.")
    ] = Path("/var/cache/vsfwd")
    socket: Annotated[Path, setting("Unix socket for vsfwctl, agents and hypervisors.")] = SOCKET
    pin_dir: Annotated[
        Path, setting("Directory for programs and maps, in a BPF file system; vsfwd makes the last part.")
    ] = Path("/sys/fs/bpf/vsfwd")
    flows_per_vnic: Annotated[
        int,
        setting(
            """Places of a vNIC's flow table. A flow that finds none is dropped and counted.
            1 to 524288: 8 in each of 65,536 buckets.""",
            ge=1,
            le=FLOWS_AT_MOST,
        ),
    ] = 32768
    log_rate: Annotated[
        int,
        setting(
            "Lines a second in the packet log, for each rule and vNIC; the rest is counted.",
            reload=True,
            ge=1,
            le=RATE_AT_MOST,
        ),
    ] = 100
    log_burst: Annotated[int, setting("Lines at once, likewise.", reload=True, ge=1, le=RATE_AT_MOST)] = 200
    reject_rate: Annotated[
        int,
        setting(
            """Replies a second to rejected packets, for each vNIC and direction; the rest is dropped in
            silence.""",
            reload=True,
            ge=1,
            le=RATE_AT_MOST,
        ),
    ] = 100
    reject_burst: Annotated[
        int, setting("Replies at once, likewise.", reload=True, ge=1, le=RATE_AT_MOST)
    ] = 200
    guard_ports: Annotated[
        tuple[str, ...],
        setting(
            """Ports of bridges that are closed until they are vNICs with programs on them: names of devices,
            at the end of which may stand *. Those of libvirt, OpenStack and Proxmox begin as the default
            says. [] guards none."""
        ),
    ] = ("vnet*", "tap*")
    statistics_period_s: Annotated[
        int, setting("Seconds between two reports of what rules have counted.", reload=True, ge=1)
    ] = 60
    ipc_uids: Annotated[
        tuple[int, ...],
        setting("Users besides root, by number, that may announce and withdraw vNICs.", reload=True),
    ] = ()
    socket_group: Annotated[
        str,
        setting("Group whose members may connect to the socket, and so read what is enforced; empty: none."),
    ] = ""
    control_plane_dir: Annotated[
        Path, setting("Directory in which vsfw-control-plane-agent keeps controllers.json, host.pem, ca.pem.")
    ] = Path("/var/lib/vsfwd/control-plane")
    guests_dir: Annotated[
        Path, setting("Directory in which vsfw-context-agent looks for ID-OF-THE-VM.json.")
    ] = Path("/run/vsfwd/guests")
    components: Annotated[
        dict[str, Component],
        setting(
            """Components of this host that use the bus, in a table each: who may be it beside root, by name
            or number, and what it may speak of; topics end in .* for all below. It takes the place of what
            is shipped for context-agent and control-plane-agent.""",
            reload=True,
            example={"backup": {"users": ["backup", 990], "topics": ["job.done", "report.*"]}},
        ),
    ] = {}

    def __post_init__(self) -> None:
        if mistakes := list(self._mistakes()):
            raise ValueError("\n".join(mistakes))

    def _mistakes(self) -> Iterator[str]:
        if not is_uuid(self.host_id):
            yield f"host_id: {self.host_id!r} is not a UUID in lower case"
        if not self.broker_urls:
            yield "broker_urls: at least one is needed"
        for url in self.broker_urls:
            if not url.startswith("amqps://"):
                yield f"broker_urls: {url!r} does not begin with amqps://"
        for name in self.guard_ports:
            if not _PORT.fullmatch(name):
                yield f"guard_ports: {name!r} is not the name of a device, or its beginning and *"
        for name in self.components:
            try:
                check_component(name)
            except ValueError as error:
                yield f"components: {error}"
        if self.socket_group and self.socket_group not in {group.gr_name for group in grp.getgrall()}:
            yield f"socket_group: there is no group {self.socket_group!r}"
        try:
            self.public_key()
        except ValueError as error:
            yield str(error)

    def public_key(self) -> Ed25519PublicKey:
        try:
            return Ed25519PublicKey.from_public_bytes(base64.b64decode(self.manager_key, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"manager_key: not the base64 of an Ed25519 public key: {error}") from None

    @classmethod
    def load(cls, path: Path, *, with_files: bool = False) -> Self:
        """With what the environment says; `with_files`: only if what the next session needs is there. Raises
        ConfigError."""
        return configfile.load(cls, path, os.environ, PREFIX, ENROLMENT, with_files=with_files)

    @classmethod
    def parse(cls, toml: str, source: str) -> Self:
        """Raises ConfigError."""
        return configfile.parse(cls, toml, source)


config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=PATH,
    show_default=True,
    help="Configuration file (TOML).",
)
check_option = click.option(
    "--check-config", is_flag=True, help="Only say whether there could be a start with it: status 0, or 2."
)


def configured(program: str, path: Path, check: bool) -> Config:
    """Of a program of this host. Ends it where that is all, or there is a mistake, which is named."""
    try:
        config = Config.load(path, with_files=check)
    except ConfigError as error:
        for line in str(error).splitlines():
            click.echo(f"{program}: {line}", err=True)
        sys.exit(2)
    if check:
        click.echo(f"{path}: in order")
        sys.exit(0)
    return config


if __name__ == "__main__":
    print(configfile.sample(Config, str(PATH), PREFIX), end="")
