"""The control-plane agent: what it keeps on disk, and what it does not take."""

import asyncio
import base64
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manager_stub.pki import Authority
from tests.unit.bus_host import Host, serving, until
from tests.unit.policy_messages import APP, HOST
from vsfwd import identity
from vsfwd.components import control_plane_agent, member
from vsfwd.components.control_plane_agent import ControlPlane, run
from vsfwd.config import Config
from vsfwd.protocol.components import ComponentAnswer, ComponentMessage
from vsfwd.protocol.control_plane import PURPOSE, Identity, common_name
from vsfwd.protocol.sealing import seal_secret

AUTHORITY = Authority.create()
ONE = {"id": "one", "address": "10.0.0.1"}


def listed(generation: int, *controllers: dict[str, Any]) -> dict[str, Any]:
    return {"generation": generation, "controllers": list(controllers)}


class Scene:
    """A host with its key, and the manager's authority."""

    def __init__(self, path: Path) -> None:
        self.key = identity.new_key()
        own, ca = path / "own.pem", path / "authority.pem"
        own.write_bytes(identity.key_pem(self.key))
        ca.write_bytes(AUTHORITY.pem)
        manager = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        self.config = Config(
            host_id=HOST, broker_urls=("amqps://nowhere",), ca=ca, certificate=own, key=own,
            manager_key=base64.b64encode(manager).decode(), socket=path / "vsfwd.sock",
            control_plane_dir=path / "control-plane",
        )  # fmt: skip
        self.directory = path / "control-plane"
        self.agent = ControlPlane(self.config)

    def identity(
        self,
        name: str = common_name(HOST),
        host: str = HOST,
        key: ec.EllipticCurvePrivateKey | None = None,
        authority: Authority = AUTHORITY,
    ) -> dict[str, Any]:
        """As the manager gives it; or one for another, or by another."""
        certificate, private = authority.issue_client(name)
        sealed = seal_secret((key or self.key).public_key(), private, host=host, purpose=PURPOSE)
        body = msgspec.json.encode(Identity(certificate.decode(), sealed))
        found: dict[str, Any] = msgspec.json.decode(body)
        return found

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_what_it_is_given_is_on_disk_for_its_owner_alone(scene: Scene) -> None:
    """The list, key and certificate in one file, the authority; also under another umask. Another agent finds
    it all."""
    scene.agent.take_controllers(listed(5, ONE))
    scene.agent.take_identity(scene.identity())
    assert scene.files().keys() == {"controllers.json", "host.pem", "ca.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in scene.directory.iterdir()} == {0o600}
    assert stat.S_IMODE(scene.directory.stat().st_mode) == 0o700
    assert msgspec.json.decode(scene.files()["controllers.json"]) == listed(5, ONE)
    pem = scene.files()["host.pem"]
    assert identity.load_key(pem).public_key() == identity.load_certificate(pem).public_key()
    again = ControlPlane(scene.config)
    assert again.status() == scene.agent.status()
    assert again.status()["generation"] == 5


def test_its_status_has_no_key(scene: Scene) -> None:
    """Which certificate it has, and until when."""
    assert scene.agent.status() == {"generation": 0, "controllers": [], "certificate": None}
    scene.agent.take_identity(scene.identity())
    told = scene.agent.status()["certificate"]
    assert told.keys() == {"serial_number", "not_after"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (listed(4), "generation: 4 is older than 5"),
        ({}, "generation"),
        (listed(6, {"id": "one"}), "address"),
        (listed(6, {"id": "one", "address": "controller"}), "controller"),
        (listed(6, {**ONE, "port": 0}), "port"),
        (listed(6, {**ONE, "thumbprint": "x"}), "thumbprint"),
        (listed(6, {**ONE, "id": "../x"}), "id"),
        (listed(6, *[ONE] * 17), "controllers"),
        ({**listed(6), "more": 1}, "more"),
    ],
    ids=str,
)
def test_a_list_that_is_older_or_none_changes_nothing(scene: Scene, body: Any, reason: str) -> None:
    """With the reason; the one that is there stays."""
    scene.agent.take_controllers(listed(5, ONE))
    before = scene.files()
    with pytest.raises(ValueError, match=reason):
        scene.agent.take_controllers(body)
    assert scene.files() == before


@pytest.mark.parametrize(
    "forged",
    [
        lambda scene: scene.identity(key=identity.new_key()),
        lambda scene: scene.identity(host=APP),
        lambda scene: scene.identity(name=common_name(APP)),
        lambda scene: {**scene.identity(), "certificate": scene.identity()["certificate"]},
        lambda scene: {**scene.identity(), "certificate": Authority.create().issue_client("x")[0].decode()},
        lambda scene: scene.identity(authority=Authority.create()),
        lambda scene: {**scene.identity(), "certificate": "none"},
        lambda scene: {**scene.identity(), "sealed_key": base64.b64encode(b"x" * 200).decode()},
        lambda scene: {**scene.identity(), "sealed_key": "no base64"},
        lambda scene: {},
    ],
    ids=["another key", "another host", "another's name", "not of this key", "another authority",
         "another authority, its key",
         "no certificate", "not sealed", "no text of bytes", "nothing"],
)  # fmt: skip
def test_a_certificate_that_is_not_this_hosts_is_not_taken(
    scene: Scene, forged: Callable[[Scene], dict[str, Any]]
) -> None:
    """The one that is there stays, with its key."""
    scene.agent.take_identity(scene.identity())
    before = scene.files()
    with pytest.raises(ValueError):  # noqa: PT011  (the reasons are others' words)
        scene.agent.take_identity(forged(scene))
    assert scene.files() == before


def test_a_certificate_is_needed_when_there_is_none_or_its_time_comes(scene: Scene) -> None:
    """At two thirds of its life; and when the file is spoiled, or the key is another's."""
    now = datetime.now(UTC)
    assert scene.agent.needs_identity(now)
    scene.agent.take_identity(scene.identity())
    assert not scene.agent.needs_identity(now)
    assert scene.agent.needs_identity(now + timedelta(days=10_000))
    other = identity.key_pem(identity.new_key())
    certificate = scene.files()["host.pem"].partition(b"-----BEGIN CERTIFICATE")
    (scene.directory / "host.pem").write_bytes(other + certificate[1] + certificate[2])
    assert scene.agent.needs_identity(now)


def test_a_list_that_is_spoiled_is_asked_for_again(scene: Scene) -> None:
    """It counts as none, and any takes its place."""
    scene.agent.take_controllers(listed(5, ONE))
    (scene.directory / "controllers.json").write_bytes(b'{"generation": 5, "contr')
    assert scene.agent.status()["generation"] == 0
    scene.agent.take_controllers(listed(3, ONE))
    assert scene.agent.status()["generation"] == 3


def test_o27_a_disk_that_takes_nothing_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager is told; what was there stays, whole."""
    scene.agent.take_controllers(listed(5, ONE))
    before = scene.files()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(control_plane_agent.files, "replace", full)
    with pytest.raises(ValueError, match=r"controllers\.json is not kept: No space left on device"):
        scene.agent.take_controllers(listed(6))
    assert scene.files() == before


async def test_it_asks_at_the_start_and_takes_what_is_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list, then a certificate; later lists come by themselves, and it says what it has."""
    monkeypatch.setattr(member, "AGAIN_S", 0.01)
    monkeypatch.setattr(control_plane_agent, "ASK_AGAIN_S", 0.01)
    async with serving(scene.config.socket) as host:
        running = asyncio.create_task(run(scene.config))
        try:
            await answered(host, "controllers", listed(5, ONE))
            await answered(host, "identity", scene.identity())
            await until(lambda: scene.agent.status()["certificate"] is not None)
            await until(lambda: not host.send("control-plane-agent", "controllers", **listed(6))[1].error)
            await until(lambda: scene.agent.status()["generation"] == 6)
            asked = [
                host.send("control-plane-agent", topic, 10, **body)[0]
                for topic, body in (("status", {}), ("controllers", listed(2)))
            ]
            await until(lambda: {each.id for each in host.said} >= set(asked))
            answers = {each.id: each for each in host.said if isinstance(each, ComponentAnswer)}
            assert answers[asked[0]].body == scene.agent.status()
            assert "is older than 6" in answers[asked[1]].error
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def answered(host: Host, topic: str, body: dict[str, Any]) -> None:
    """The next question on the topic gets this answer; those before it got none."""

    def asked() -> list[str]:
        return [each.id for each in host.said if isinstance(each, ComponentMessage) and each.topic == topic]

    await until(lambda: bool(asked()))
    for id in asked():
        host.relay.answered(ComponentAnswer(id, body))
