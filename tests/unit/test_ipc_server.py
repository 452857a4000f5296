"""The local socket: its mode, its limits, and who may do what."""

import asyncio
import errno
import json
import os
import select
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import pytest_asyncio
from asyncvarlink import VarlinkInterface, varlinkmethod
from asyncvarlink.serviceinterface import PermissionDenied

import vsfwd.ipc.interface as api
from tests.unit.policy_messages import APP, WEB
from vsfwd.datapath import Reason, TableUse
from vsfwd.ipc import server
from vsfwd.ipc.server import Client, IpcServer
from vsfwd.lastgood import NO_POLICY
from vsfwd.reconciler import Port
from vsfwd.statistics import AT_ONCE
from vsfwd.status import Answers, Parts


class Echo(VarlinkInterface, name="io.vsfwd.Test"):
    """Says who asks, and says much when asked to."""

    def __init__(self, client: Client) -> None:
        self._uid = client.uid

    @varlinkmethod(return_parameter="uid")
    async def Uid(self) -> int:
        return self._uid

    @varlinkmethod(return_parameter="text")
    async def Much(self) -> str:
        return "x" * 1_000_000

    @varlinkmethod
    async def Fail(self) -> None:
        raise KeyError("a fault of ours")

    @varlinkmethod
    async def Wait(self) -> None:
        await asyncio.sleep(60)


def interfaces(client: Client) -> tuple[VarlinkInterface]:
    return (Echo(client),)


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "run" / "vsfwd.sock"
    serving = asyncio.create_task(IpcServer(path, "1.0", interfaces).serve())
    yield path
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def call(method: str) -> bytes:
    return json.dumps({"method": method}).encode() + b"\0"


async def ask(path: Path, method: str) -> Any:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(call(method))
    answer = await asyncio.wait_for(reader.readuntil(b"\0"), 10)
    writer.close()
    return json.loads(answer[:-1])


async def is_cut_off(path: Path, said: bytes) -> bool:
    """Whether the server ends the connection of a client that says this and reads nothing."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for _ in range(1000):
            writer.write(said)
            await asyncio.wait_for(writer.drain(), 10)
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionError:
        return True
    finally:
        writer.close()


async def test_the_socket_is_for_root_and_its_group(path: Path) -> None:
    """X48, CVE-2022-29178, CVE-2026-49445: nobody else can even connect."""
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


async def test_the_peer_is_known(path: Path) -> None:
    """X48: its uid comes from the kernel."""
    assert await ask(path, "io.vsfwd.Test.Uid") == {"parameters": {"uid": os.getuid()}}


async def test_it_describes_itself(path: Path) -> None:
    """The varlink way of asking what there is."""
    answer = await ask(path, "org.varlink.service.GetInfo")
    assert answer["parameters"]["interfaces"] == ["io.vsfwd.Test", "org.varlink.service"]


async def test_o41_a_call_that_fails_as_nobody_expected_hurts_no_other(path: Path) -> None:
    """Its client has an error for an answer; the others, and the next, do not notice."""
    reader, writer = await asyncio.open_unix_connection(path)
    assert "error" in await ask(path, "io.vsfwd.Test.Fail")
    writer.write(call("io.vsfwd.Test.Uid"))
    assert json.loads((await asyncio.wait_for(reader.readuntil(b"\0"), 10))[:-1])["parameters"]
    writer.close()


async def test_a_dead_daemons_socket_is_replaced(path: Path) -> None:
    """A file that nobody listens on is no reason not to start."""
    again = asyncio.create_task(IpcServer(path, "1.0", interfaces).serve())
    assert (await ask(path, "io.vsfwd.Test.Uid"))["parameters"]
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


@pytest.mark.parametrize(
    "said",
    [
        b"no json\0",
        b"[]\0",
        b"x" * server.MAX_REQUEST,
        call("io.vsfwd.Test.Uid") * 1000,
        b"[" * 60_000 + b"\0",
        b"9" * 5000 + b"\0",
        b"\xff\0",
    ],
    ids=["garbage", "no object", "no end", "flood", "depth", "a number too long", "no text"],
)
async def test_a_client_that_misbehaves_is_cut_off(path: Path, said: bytes) -> None:
    """X49: and the next one is answered."""
    assert await is_cut_off(path, said)
    assert (await ask(path, "io.vsfwd.Test.Uid"))["parameters"]


async def test_replies_that_nobody_reads_do_not_pile_up(path: Path) -> None:
    """A client that asks and asks for much and never reads is cut off."""
    _, writer = await asyncio.open_unix_connection(path, limit=1024)

    async def ask_much() -> None:
        for _ in range(server.MAX_UNREAD * 10):
            writer.write(call("io.vsfwd.Test.Much"))
            await writer.drain()
            await ask(path, "io.vsfwd.Test.Uid")

    with pytest.raises(ConnectionError):
        await ask_much()
    writer.close()


async def test_files_that_clients_pass_are_not_taken(path: Path) -> None:
    """X49: not even while requests that came with them wait. The daemon could open none of its own."""
    ours, theirs = os.pipe()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    socket.send_fds(client, [call("io.vsfwd.Test.Wait") * 8], [theirs] * 250)
    os.close(theirs)
    ended, _, _ = await asyncio.to_thread(select.select, [ours], [], [], 10)
    assert ended, "the server has the other end"
    os.close(ours)
    client.close()


async def test_a_connection_that_cannot_be_accepted_ends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X49: no files left; there are again later."""
    loop = asyncio.get_running_loop()
    accept, refused = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def sock_accept(listener: socket.socket) -> Any:
        if refused:
            raise refused.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    for _ in range(3):
        assert (await ask(path, "io.vsfwd.Test.Uid"))["parameters"]


async def test_of_too_many_clients_the_oldest_goes(path: Path) -> None:
    """X49: connections that are never closed, and say nothing, do not lock others out."""
    connections = [await asyncio.open_unix_connection(path) for _ in range(server.MAX_CONNECTIONS)]
    assert (await ask(path, "io.vsfwd.Test.Uid"))["parameters"]
    reader, _ = connections[0]
    assert await asyncio.wait_for(reader.read(), 10) == b""
    for _, writer in connections:
        writer.close()


class _Interfaces:
    def __init__(self) -> None:
        self.announced: list[str] = []

    async def announce(self, binding: Any) -> bool:
        self.announced.append(binding.vnic)
        return False


def answers(interfaces: _Interfaces, uid: int = 0) -> Answers:
    config = type("Config", (), {"ipc_uids": (107,)})
    return Answers(cast(Parts, type("Parts", (), {"config": config, "interfaces": interfaces})), uid)


@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (107, True), (1000, False)])
async def test_only_root_and_configured_users_announce(uid: int, allowed: bool) -> None:
    """X48: whoever may read the state may not say which device is which vNIC."""
    interfaces = _Interfaces()
    request = answers(interfaces, uid).AnnounceVnic(vnic=WEB, vm=APP, mac="02:00:00:00:00:01", device="veth0")
    if allowed:
        await request
    else:
        with pytest.raises(PermissionDenied):
            await request
    assert interfaces.announced == [WEB] * allowed


async def test_o38_policy_waits_for_the_counts_of_a_few_rules_or_one_vnic_at_most() -> None:
    """Whatever number there is of them; how full their flow tables are is not asked at all."""
    ports = {id: Port(id, f"tap{slot}", slot, "", slot) for slot, id in enumerate((WEB, APP))}
    read: list[Any] = []

    async def drops(work: Any, *arguments: Any) -> Any:
        if work == "drops":
            read.append(*arguments)
            return {slot: {Reason.CLOSED: slot + 1} for slot in arguments[0]}
        if work == "counted rules":
            return set(range(AT_ONCE + 1))
        if work == "counters":
            read.append(len(*arguments))
        return {}

    datapath = Mock(
        drops="drops", counted_rules="counted rules", rule_counters="counters", unfiltered="unfiltered"
    )
    reconciler = Mock(ports=ports, state=NO_POLICY)
    tables = {WEB: TableUse(0.5, 0), "gone": TableUse(0.5, 0)}
    parts = Mock(read=drops, datapath=datapath, reconciler=reconciler, alarms=Mock(tables=tables))
    answer: Any = await Answers(parts, 1000).Stats()
    stats: api.HostStats = answer.parameters["stats"]
    assert read == [AT_ONCE, 1, [0], [1]]
    assert {each.vnic: each.reasons for each in stats.drops} == {WEB: {"closed": 1}, APP: {"closed": 2}}
    assert [(each.vnic, each.held) for each in stats.flows] == [(WEB, 0.5)]


async def test_x50_only_root_and_configured_users_change_early_drops() -> None:
    """They stand above all policy."""
    nobody = answers(_Interfaces(), 1000)
    with pytest.raises(PermissionDenied):
        await nobody.AttachEarlyDrop(device="eth0", blocked=["0.0.0.0/0"], rate=0, burst=0)
    with pytest.raises(PermissionDenied):
        await nobody.DetachEarlyDrop(device="eth0")


@pytest.mark.parametrize(
    "device",
    ["", ".", "..", "a b", "a/b", "a:b", "a\0", "a\x1b[31m", "a\x7f", "a\n", "\ud800", "vèth", "x" * 16],
    ids=ascii,
)
async def test_what_cannot_be_the_name_of_a_device_is_not_kept(device: str) -> None:
    """A name that netlink or JSON cannot carry would break every announcement after it."""
    interfaces = _Interfaces()
    with pytest.raises(api.Refused):
        await answers(interfaces).AnnounceVnic(vnic=WEB, vm=APP, mac="02:00:00:00:00:01", device=device)
    assert interfaces.announced == []


@pytest.mark.parametrize("device", ["veth-web", "tap0", "...", "vnet0.7", "a;~!", "x" * 15])
async def test_names_of_devices_are_taken(device: str) -> None:
    """Everything printable, as long as the kernel takes it."""
    interfaces = _Interfaces()
    await answers(interfaces).AnnounceVnic(vnic=WEB, vm=APP, mac="02:00:00:00:00:01", device=device)
    assert interfaces.announced == [WEB]
