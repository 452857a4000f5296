"""The configuration of one vsfwd: a TOML file, read once at the edge and passed down.

Every setting, its unit and its default stand here. An unknown key is an error, because a misspelt key that
passes in silence is a setting that is not in force.
"""

import base64
import binascii
import grp
import re
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vsfwd.ipc import SOCKET
from vsfwd.policy.model import is_uuid
from vsfwd.protocol import context, control_plane
from vsfwd.protocol.components import check_component, check_topic

FLOWS_AT_MOST: Final = 524288
"""8 places in each of 65,536 buckets: a bucket is chosen by 16 bits."""


_PORT: Final = re.compile(r"(?=.{1,15}\Z)[\w.:@-]+\*?", re.ASCII)


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file and the key."""


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A component of this host that uses the bus (`ipc.bus`). Root always may."""

    users: tuple[int | str, ...] = ()
    """By name or number."""
    topics: tuple[str, ...]
    """`users` or `users.*`, which is all below it."""

    def __post_init__(self) -> None:
        for topic in self.topics:
            check_topic(topic.removesuffix(".*"))


SHIPPED: Final = {
    context.COMPONENT: Component(topics=(context.START, context.VM, context.GONE)),
    control_plane.COMPONENT: Component(
        topics=(control_plane.CONTROLLERS, control_plane.IDENTITY, control_plane.STATUS)
    ),
}
"""Components that come with vsfwd, for root. What the file says of one takes the place of this."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    host_id: str
    """UUID the manager gave this host at enrolment; its user at the broker."""
    broker_urls: tuple[str, ...]
    """`amqps://host:port`, any number; tried in random order."""
    ca: Path
    """Certificates the broker's certificate is verified by."""
    certificate: Path
    key: Path
    """This host's client certificate and its private key (PEM)."""
    manager_key: str
    """The manager's Ed25519 public key, base64 of its 32 bytes: policy is signed by it."""
    state_dir: Path = Path("/var/lib/vsfwd")
    socket: Path = SOCKET
    pin_dir: Path = Path("/sys/fs/bpf/vsfwd")
    flows_per_vnic: int = 32768
    """Places of a vNIC's flow table: what finds none is dropped and counted."""
    log_rate: int = 100
    log_burst: int = 200
    """Lines in the packet log for each rule and vNIC: a second, and at once. What is beyond is counted."""
    reject_rate: int = 100
    reject_burst: int = 200
    """Replies to rejected packets for each vNIC and direction, likewise; the rest is dropped in silence."""
    guard_ports: tuple[str, ...] = ("vnet*", "tap*")
    """Bridge ports that are closed until they are vNICs with programs on them: names of devices, at the end
    of which may stand `*`. Those of libvirt, OpenStack and Proxmox begin so."""
    statistics_period_s: int = 60
    """How often the manager is told what rules have counted."""
    ipc_uids: tuple[int, ...] = ()
    """Users besides root that may announce and withdraw vNICs."""
    socket_group: str = ""
    """Who besides root can connect to the socket, and so read what is enforced."""
    components: dict[str, Component] = {}

    def __post_init__(self) -> None:
        if not is_uuid(self.host_id):
            raise ValueError(f"host_id: {self.host_id!r} is not a UUID in lower case")
        if not self.broker_urls:
            raise ValueError("broker_urls: at least one is needed")
        for url in self.broker_urls:
            if not url.startswith("amqps://"):
                raise ValueError(f"broker_urls: {url!r} does not begin with amqps://")
        if not 1 <= self.flows_per_vnic <= FLOWS_AT_MOST:
            raise ValueError(f"flows_per_vnic: {self.flows_per_vnic} is not between 1 and {FLOWS_AT_MOST}")
        for key in ("log_rate", "log_burst", "reject_rate", "reject_burst", "statistics_period_s"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)} is not a positive number")
        for name in self.guard_ports:
            if not _PORT.fullmatch(name):
                raise ValueError(f"guard_ports: {name!r} is not the name of a device, or its beginning and *")
        for name in self.components:
            check_component(name)
        if self.socket_group and self.socket_group not in {group.gr_name for group in grp.getgrall()}:
            raise ValueError(f"socket_group: there is no group {self.socket_group!r}")
        self.public_key()

    def public_key(self) -> Ed25519PublicKey:
        try:
            return Ed25519PublicKey.from_public_bytes(base64.b64decode(self.manager_key, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"manager_key: not the base64 of an Ed25519 public key: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ConfigError."""
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, toml: bytes | str) -> Self:
        """Raises ConfigError."""
        try:
            return msgspec.toml.decode(toml, type=cls, dec_hook=_path)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(str(error)) from None


def _path(_: type, value: Any) -> Path:
    """The one type of the fields above that TOML does not have."""
    if not isinstance(value, str):
        raise ValueError("expected a path")
    return Path(value)
