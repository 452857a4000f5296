"""Enrolment of this host: with a token, once, and then `vsfwd` starts.

After `kubeadm join`: the hash of the authority's public key protects the host against a false manager, the
token protects the manager. Until the authority's certificate has shown that hash, nothing is said but the
question for it.

What is interrupted is begun again with the same token. The key waits in `enrolling.key` until everything is
written, the configuration last: a directory with a `host_id` in its vsfwd.toml, and without that key, is
a whole one.
"""

import json
import os
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec
import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vsfwd import files, identity
from vsfwd.config import Config
from vsfwd.configfile import ConfigError
from vsfwd.protocol.enrolment import TOKEN, TOKEN_WORDS
from vsfwd.protocol.fingerprint import fingerprint
from vsfwd.rest import CONNECT_S, Login, NotReady, Rest, Unreachable, Unusable, checked_url

CONFIG: Final = "vsfwd.toml"
OWN: Final = "host"
"""Of vsfwd's user, in a directory of root's: key and certificate are renewed there. What stands beside it is
believed by root, too, and by a manager on the same machine."""
_READABLE: Final = 0o644
KEY: Final = "enrolling.key"
_CA: Final = "enrolling.ca.pem"
PATIENCE_S: Final = 60.0
"""A manager that was just started has not met its broker yet, or nobody leads yet, and it says so. One that
knows who leads says that at once: nobody waits for it."""
_AGAIN_S: Final = 0.5
_CA_HASH: Final = re.compile("sha256:[0-9a-f]{64}")
_MAX_CA: Final = 64 * 1024
_MAX_REASON: Final = 300
_AUTHORITY: Final = "/api/v1/vsfw/ca"
_ENROL: Final = "/api/v1/vsfw/enrol"


@dataclass(frozen=True)
class Enrolment:
    """What is asked: of which manager, with which token and authority, for which directory."""

    manager: str
    token: str
    ca_hash: str
    directory: Path
    display_name: str = ""


class Given(msgspec.Struct, frozen=True):
    """The manager's answer."""

    id: str
    certificate: str
    manager_key: str
    broker_urls: tuple[str, ...]


def enrol(
    asked: Enrolment,
    *,
    again: bool = False,
    patience_s: float = PATIENCE_S,
    waits: Callable[[str], None] = lambda reason: None,
) -> str:
    """The id of this host. `waits`: called once, with the reason, before the first wait. Raises
    Unusable, Unreachable, Denied."""
    url = checked_url(asked.manager)
    if not re.fullmatch(TOKEN, asked.token):
        raise Unusable(f"the token that was said is not {TOKEN_WORDS}")
    if not _CA_HASH.fullmatch(asked.ca_hash):
        raise Unusable(f"--ca-hash: {asked.ca_hash!r} is not sha256: and 64 of 0-9 and a-f")
    settings = _settings(asked.directory / CONFIG)
    waiting = asked.directory / KEY
    if "host_id" in settings and not waiting.exists() and not again:
        raise Unusable(f"{asked.directory} is that of host {settings['host_id']}; --again enrols it anew")
    own = asked.directory / OWN
    for directory in (asked.directory, own):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if own.lstat().st_uid == 0:  # just made, by root: whose the directory is that it is in
        owner = asked.directory.stat()
        os.chown(own, owner.st_uid, owner.st_gid, follow_symlinks=False)
    key = _key(waiting)
    patience = _Patience(patience_s, waits)
    authority = _authority(url, asked.ca_hash, patience)
    unproven = asked.directory / _CA
    files.replace(unproven, _pem(authority))
    body = {
        "token": asked.token,
        "csr": identity.signing_request(key),
        "display_name": asked.display_name,
    }
    given = _given(url, unproven, body, patience)
    try:
        identity.check(given.certificate, key, authority, given.id)
        config = _config(asked.directory, settings, given)
    except (identity.Unfit, ValueError) as error:
        raise Unreachable(f"{url}: what it answers cannot be used: {error}") from None
    files.remove(own / identity.NEXT_KEY)  # no certificate of an earlier enrolment is to be taken
    files.replace(asked.directory / identity.CA, _pem(authority), _READABLE)
    files.replace(own / identity.HOST, identity.key_pem(key) + given.certificate.encode())
    files.replace(asked.directory / CONFIG, config, _READABLE)
    for left in (unproven, waiting):
        files.remove(left)
    return given.id


def _settings(path: Path) -> tomlkit.TOMLDocument:
    """What an operator has set already."""
    try:
        return tomlkit.parse(path.read_text())
    except FileNotFoundError:
        return tomlkit.document()
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Unusable(f"{path}: {error}") from None


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """That of an enrolment which was interrupted, or a new one; on disk before anybody is told of it."""
    try:
        return identity.load_key(path.read_bytes())
    except (FileNotFoundError, identity.Unfit):
        key = identity.new_key()
        files.replace(path, identity.key_pem(key))
        return key


class _Patience:
    """With a manager that will be ready. Who waits is told why, once."""

    def __init__(self, seconds: float, waits: Callable[[str], None]) -> None:
        self._end = time.monotonic() + seconds
        self._waits = waits
        self._told = False

    def wait(self, away: NotReady) -> None:
        """A little. Raises NotReady where that is in vain."""
        if away.leader or time.monotonic() >= self._end:
            raise away
        if not self._told:
            self._waits(str(away))
        self._told = True
        time.sleep(_AGAIN_S)


def _authority(url: str, ca_hash: str, patience: _Patience) -> x509.Certificate:
    """Whoever answers is not known yet, and is told nothing."""
    try:
        while True:
            status, said = _first_word(url)
            answer = json.loads(said)
            if status != httpx.codes.SERVICE_UNAVAILABLE:
                break
            patience.wait(NotReady(url, str(answer["error_message"])[:_MAX_REASON]))
        certificate = x509.load_pem_x509_certificate(answer["pem_encoded"].encode())
    except httpx.TransportError as error:
        raise Unreachable(f"{url}: {error}; does the manager run, and is --manager right?") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unreachable(f"{url}: whatever answers there is no manager") from None
    if (
        f"sha256:{fingerprint(certificate.public_key())}" != ca_hash
    ):  # nobody is to paste what a false manager shows
        raise Unusable(
            f"{url}: its authority has not {ca_hash}: it is not the manager that was meant, or ca_hash is of "
            "another one; ask the manager's admin for ca_hash"
        )
    return certificate


def _first_word(url: str) -> tuple[int, bytes]:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    said = b""
    with (
        httpx.Client(verify=anybody, timeout=CONNECT_S, trust_env=False) as client,
        client.stream("GET", url + _AUTHORITY) as answer,
    ):
        for part in answer.iter_bytes():
            said += part
            if len(said) > _MAX_CA:
                break
        return answer.status_code, said


def _given(url: str, ca: Path, body: dict[str, str], patience: _Patience) -> Given:
    rest = Rest(Login(manager=url, ca=str(ca)))
    try:
        while True:
            try:
                return msgspec.convert(rest.call("POST", _ENROL, body), Given)
            except msgspec.ValidationError as error:
                raise Unreachable(f"{url}: what it answers cannot be used: {error}") from None
            except NotReady as away:
                patience.wait(away)
    finally:
        rest.close()


def _config(directory: Path, settings: tomlkit.TOMLDocument, given: Given) -> bytes:
    """vsfwd.toml: what is set there stays, comments too, but for what the manager says. Raises ValueError."""
    pair = f"{OWN}/{identity.HOST}"
    paths = {"ca": identity.CA, "certificate": pair, "key": pair}
    settings |= {
        "host_id": given.id,
        "broker_urls": list(given.broker_urls),
        **{name: str(directory.absolute() / file) for name, file in paths.items()},
        "manager_key": given.manager_key,
    }
    text = tomlkit.dumps(settings)
    try:
        Config.parse(text, CONFIG)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text.encode()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
