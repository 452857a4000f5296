"""The configuration of one manager: a TOML file, read at the start and passed down.

Every setting stands here; `python -m manager_stub.config > manager_stub/manager.toml` writes the sample from
it. What is secret, or made by `init`, is in the state directory (`state_dir`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import msgspec

from vsfwd import configfile
from vsfwd.configfile import setting

PATH: Final = Path("/etc/vsfwd/manager.toml")
PREFIX: Final = "VSFW_MANAGER_"
_OPERATOR: Final = "say it in the file"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    listen: Annotated[
        str,
        setting(
            """HOST:PORT where the REST interface listens; users, hosts and other managers reach it there, so
            it is no wildcard.""",
            needs=_OPERATOR,
            example="10.0.0.1:8443",
        ),
    ]
    brokers: Annotated[
        tuple[str, ...],
        setting(
            "HOST:PORT of every node of the broker, as managers and hosts reach it.",
            needs=_OPERATOR,
            example=["10.0.0.1:5671"],
        ),
    ]
    broker_apis: Annotated[
        tuple[str, ...],
        setting(
            "https://HOST:PORT of the management API of every node.",
            needs=_OPERATOR,
            example=["https://10.0.0.1:15671"],
        ),
    ]
    state_dir: Annotated[
        Path, setting("Directory for keys, certificates, and the database where it is SQLite.")
    ] = Path("/var/lib/vsfw-manager")

    def __post_init__(self) -> None:
        mistakes = [
            *_mistakes("listen", [self.listen], _check_listen),
            *_mistakes("brokers", self.brokers, split),
            *_mistakes("broker_apis", self.broker_apis, _check_url),
        ]
        if mistakes:
            raise ValueError("\n".join(mistakes))

    @property
    def broker_urls(self) -> list[str]:
        return [f"amqps://{broker}" for broker in self.brokers]

    @classmethod
    def load(cls, path: Path) -> Self:
        """With what the environment says. Raises ConfigError."""
        return configfile.load(cls, path, os.environ, PREFIX, "see manager_stub/INSTALL.md")


def _mistakes(key: str, texts: Sequence[str], check: Callable[[str], object]) -> Iterator[str]:
    if not texts:
        yield f"{key}: at least one is needed"
    for text in texts:
        try:
            check(text)
        except ValueError as error:
            yield f"{key}: {error}"


def split(address: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _check_listen(address: str) -> None:
    host, _ = split(address)
    try:
        everywhere = ip_address(host).is_unspecified
    except ValueError:  # a name
        everywhere = False
    if everywhere:
        raise ValueError(f"{address!r} is every address: name the one that others reach it by")


def _check_url(text: str) -> None:
    url = urlsplit(text)
    if url.scheme != "https" or not url.hostname or url.path.strip("/"):
        raise ValueError(f"{text!r} is not https://HOST:PORT")
    if "@" in url.netloc:
        raise ValueError(f"a user or a password before {url.hostname} has no place here")
    split(url.netloc)


if __name__ == "__main__":
    print(configfile.sample(Config, str(PATH), PREFIX), end="")
