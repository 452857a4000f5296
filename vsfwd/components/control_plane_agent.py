"""The control-plane agent, in the role of NSX's netcpa: receives the controllers and a certificate with its
key, and keeps them on disk for whatever speaks with controllers on this host.

In `control_plane_dir` of vsfwd.toml, `controllers.json` is the list, `host.pem` key and certificate together,
`ca.pem` what controllers are verified by; each is whole at any moment, and its owner's alone. The key comes
sealed to the host's own key, and is opened here: vsfwd and the broker carry what they cannot read. A list
older than the one on disk is refused."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog
from asyncvarlink import VarlinkErrorReply
from cryptography import x509

import vsfwd.ipc.bus_interface as api
from vsfwd import files, identity
from vsfwd.components.member import Member, agent
from vsfwd.config import Config
from vsfwd.ipc.client import Unreachable
from vsfwd.protocol.components import Body, as_body
from vsfwd.protocol.control_plane import (
    COMPONENT,
    CONTROLLERS,
    IDENTITY,
    PURPOSE,
    STATUS,
    Controllers,
    Identity,
    common_name,
)
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.renewal import is_due

log = structlog.get_logger(log="vsfwd.control-plane")

ASK_EVERY_S: Final = 300.0
ASK_AGAIN_S: Final = 10.0
"""After a question that was not answered."""


class ControlPlane:
    """What is on disk."""

    def __init__(self, config: Config) -> None:
        directory = config.control_plane_dir
        self._config = config
        self._controllers = directory / "controllers.json"
        self._identity = directory / "host.pem"
        self._ca = directory / "ca.pem"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take_controllers(self, body: Body) -> Body:
        """What there is then. Raises ValueError, and what was there stays."""
        said = msgspec.convert(body, Controllers)
        have = self.controllers()
        if said.generation < have.generation:
            raise ValueError(f"generation: {said.generation} is older than {have.generation}, which is here")
        if said != have:
            _keep(self._controllers, msgspec.json.format(msgspec.json.encode(said)) + b"\n")
            log.info("controllers kept", generation=said.generation, count=len(said.controllers))
        return self.status()

    def take_identity(self, body: Body) -> None:
        """Raises ValueError, and what was there stays."""
        said = msgspec.convert(body, Identity)
        host = self._config.host_id
        try:
            opened = identity.open_sealed(self._config.key, said.sealed_key, host=host, purpose=PURPOSE)
            key = identity.load_key(opened)
            authority = self._config.ca.read_bytes()
            certificate = identity.issued_for(said.certificate, key, identity.load_certificate(authority))
            if identity.login_of(certificate) != common_name(host):
                raise identity.Unfit(f"the certificate is not that of host {host}")
        except (OSError, Refused, identity.Unfit) as error:
            raise ValueError(f"certificate: {error}") from None
        _keep(self._ca, authority)
        _keep(self._identity, identity.key_pem(key) + said.certificate.encode())
        log.info("certificate kept", ends=str(certificate.not_valid_after_utc))

    def needs_identity(self, now: datetime) -> bool:
        certificate = self._certificate()
        return certificate is None or is_due(certificate, now)

    def status(self) -> Body:
        """Never the key."""
        certificate = self._certificate()
        return {
            **as_body(self.controllers()),
            "certificate": certificate
            and {
                "serial_number": f"{certificate.serial_number:x}",
                "not_after": certificate.not_valid_after_utc.isoformat(timespec="seconds"),
            },
        }

    def controllers(self) -> Controllers:
        """A list that is spoiled is none: the manager is asked for it."""
        try:
            return msgspec.json.decode(self._controllers.read_bytes(), type=Controllers)
        except FileNotFoundError:
            return Controllers(0, ())
        except (msgspec.MsgspecError, ValueError, OSError) as error:
            log.error("controllers on disk are spoiled", reason=str(error))
            return Controllers(0, ())

    def _certificate(self) -> x509.Certificate | None:
        """That of a whole pair."""
        try:
            pem = self._identity.read_bytes()
            certificate = identity.load_certificate(pem)
            whole = identity.load_key(pem).public_key() == certificate.public_key()
        except (OSError, identity.Unfit):
            return None
        return certificate if whole else None


def _keep(path: Path, content: bytes) -> None:
    try:
        files.replace(path, content)
    except OSError as error:
        raise ValueError(f"{path.name} is not kept: {error.strerror}") from None


async def run(config: Config) -> None:
    member, kept, woken = Member(config.socket, COMPONENT), ControlPlane(config), asyncio.Event()
    served = {CONTROLLERS: kept.take_controllers, STATUS: lambda _: kept.status()}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(member.serve(served, woken.set), name="serve")
        tasks.create_task(_ask(member, kept, woken), name="ask")


async def _ask(member: Member, kept: ControlPlane, woken: asyncio.Event) -> NoReturn:
    """Whenever a subscription begins, for what was sent before it is lost; and now and then."""
    while True:
        woken.clear()
        pause_s = ASK_EVERY_S
        try:
            kept.take_controllers(await member.call(CONTROLLERS, {}))
            if kept.needs_identity(datetime.now(UTC)):
                kept.take_identity(await member.call(IDENTITY, {}))
        except api.NotAllowed:
            raise
        except (ValueError, Unreachable, VarlinkErrorReply) as error:
            reason = getattr(error, "parameters", {}).get("reason") or str(error)
            log.warning("the manager's word is missing", reason=reason, again_s=ASK_AGAIN_S)
            pause_s = ASK_AGAIN_S
        try:
            async with asyncio.timeout(pause_s):
                await woken.wait()
        except TimeoutError:
            pass


main = agent(
    "vsfw-control-plane-agent",
    "Keep the controllers, and the certificate to prove this host to them with.",
    run,
)


if __name__ == "__main__":
    main()
