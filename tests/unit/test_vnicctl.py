"""`vsfwctl vnic`: what a hypervisor's hook says, over the real socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from tests.unit.policy_messages import APP, WEB
from vsfwd.ctl import main
from vsfwd.ipc.server import IpcServer
from vsfwd.protocol.messages import Binding, Guest
from vsfwd.status import Answers

MAC = "02:00:00:00:00:01"
GOOD = ["announce", "veth0", "--vnic", WEB, "--vm", APP, "--mac", MAC]


class Interfaces:
    def __init__(self) -> None:
        self.announced: list[Binding] = []
        self.withdrawn: list[str] = []

    async def announce(self, binding: Binding) -> bool:
        self.announced.append(binding)
        return False

    async def withdraw(self, vnic: str) -> bool:
        self.withdrawn.append(vnic)
        return vnic in [each.vnic for each in self.announced]


@pytest.fixture
async def interfaces(tmp_path: Path) -> AsyncIterator[Interfaces]:
    found = Interfaces()
    parts = cast(Any, Mock(interfaces=found, config=Mock(ipc_uids=())))
    server = IpcServer(tmp_path / "vsfwd.sock", "1.0", lambda client: (Answers(parts, 0),))
    task = asyncio.create_task(server.serve())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def vnic(directory: Path, *arguments: str) -> Result:
    argv = ["--socket", str(directory / "vsfwd.sock"), "vnic", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, main, argv)


async def test_a_hook_announces_and_withdraws(interfaces: Interfaces, tmp_path: Path) -> None:
    """With all that is known, or with what there has to be; 0, and not a word."""
    more = ["--name", "web", "--segment", "blue", "--address", "10.0.0.1", "--address", "2001:db8::1"]
    for argv in (GOOD, [*GOOD, *more], ["withdraw", WEB]):
        done = await vnic(tmp_path, *argv)
        assert (done.exit_code, done.output) == (0, ""), argv
    assert interfaces.announced == [
        Binding(WEB, APP, MAC, "veth0"),
        Binding(WEB, APP, MAC, "veth0", Guest(name="web"), "blue", ("10.0.0.1", "2001:db8::1")),
    ]
    assert interfaces.withdrawn == [WEB]


async def test_a_vnic_that_nobody_announced_is_not_withdrawn(interfaces: Interfaces, tmp_path: Path) -> None:
    """1, and it is named."""
    done = await vnic(tmp_path, "withdraw", WEB)
    assert (done.exit_code, WEB in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--vm", "web"], "vm: 'web' is not a UUID"),
        (["--mac", "2:0"], "mac: '2:0'"),
        (["--address", "10.0.0"], "addresses: '10.0.0'"),
    ],
)
async def test_what_cannot_be_is_wrong_usage(
    interfaces: Interfaces, tmp_path: Path, wrong: list[str], named: str
) -> None:
    """2, with the field, and nothing is asked."""
    done = await vnic(tmp_path, *GOOD, *wrong)
    assert (done.exit_code, named in done.stderr, interfaces.announced) == (2, True, [])
