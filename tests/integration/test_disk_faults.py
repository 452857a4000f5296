"""A disk that is full, read-only, or has spoilt what was on it: policy comes into force all the same, whoever
asks is told, and what is on disk is a whole policy at every moment."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.daemon_host import NO_PING, POLICY, Setting, sh
from vagrant.lab.waiting import wait_until
from vsfwd.protocol.messages import Applied, Hello

pytestmark = pytest.mark.slow
ALARM_S = 60.0
"""One sample in ten seconds, on a busy machine."""


class Disk:
    """Of this test's own, with the state of the daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        sh(f"mount -t tmpfs -o size=256k vsfwd-test {directory}")

    def fill(self) -> None:
        with (self.directory / "other").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(os.urandom(4096))
            except OSError:
                return

    def empty(self) -> None:
        (self.directory / "other").unlink()

    def remount(self, how: str) -> None:
        sh(f"mount -o remount,{how} {self.directory}")


@pytest_asyncio.fixture
async def disk(setting: Setting) -> AsyncIterator[Disk]:
    """The state of a daemon with a policy in force is on it."""
    state = setting.host.directory / "state"
    setting.host.kill()
    disk = Disk(state)
    try:
        setting.host.start(setting.config)
        await setting.with_policy()
        yield disk
    finally:
        setting.host.kill()
        sh(f"umount {state}")


def alarms(setting: Setting) -> dict[str, str]:
    return {alarm["event_type"]: alarm["description"] for alarm in setting.host.ask("status")["alarms"]}


def saved(setting: Setting) -> bool:
    return not setting.host.ask("status")["not_saved"]


async def restarted(setting: Setting) -> int:
    """The generation that a daemon after a kill says hello with."""
    setting.host.kill()
    setting.manager.events.clear()
    setting.host.start(setting.config)
    hello = await setting.manager.reported(Hello)
    return hello.generation


async def test_o27_a_full_disk_holds_no_policy_up(setting: Setting, disk: Disk) -> None:
    """Two generations come into force while it is full. The manager, `vsfwctl status` and an alarm say that
    they are not on disk; a vsfwd that starts meanwhile goes back to none that is, but leaves the kernel as it
    is until it hears the manager. When there is room, a restart begins with the last one."""
    disk.fill()
    await setting.manager.policy(setting.host.manager.delta(rules={"1": None}))
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    applied = await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert [refusal.reason for refusal in applied.refusals] == [
        "enforced, but not saved: [Errno 28] No space left on device"
    ]
    assert not setting.host.ping()
    assert "; not on disk: [Errno 28] No space left" in setting.host.ctl("status").stdout
    wait_until(lambda: "dfw_policy_not_saved" in alarms(setting), "the alarm", timeout_s=ALARM_S)
    assert await restarted(setting) == 0
    assert not setting.host.ping()
    await setting.manager.policy(setting.host.manager.snapshot(**{**POLICY, "rules": NO_PING}))
    await setting.manager.reported(Applied, lambda event: event.generation == 4)
    disk.empty()
    wait_until(lambda: saved(setting), "the policy on disk")
    assert "; not on disk" not in setting.host.ctl("status").stdout
    assert await restarted(setting) == 4


HANGING = """
import os, time
fsync = os.fsync
def waits(file):
    while os.path.exists({path!r}):
        time.sleep(0.05)
    fsync(file)
os.fsync = waits
"""
"""Run by Python before the daemon: its fsync waits as long as this file is there, like that of a disk that
has gone away."""


async def test_o27_a_disk_that_hangs_holds_nothing_up(setting: Setting, tmp_path: Path) -> None:
    """What the manager sends is in force, also what comes after it; a vNIC that is plugged meanwhile is
    filtered; whoever asks is told. When the disk takes something again, it is the last policy."""
    hangs, patched = tmp_path / "hangs", tmp_path / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(HANGING.format(path=str(hangs)))
    setting.host.kill()
    setting.host.environment = {"PYTHONPATH": str(patched)}
    setting.host.start(setting.config)
    await setting.with_policy()
    hangs.touch()
    await setting.manager.policy(setting.host.manager.delta(rules={"1": None}))
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    applied = await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert [refusal.reason for refusal in applied.refusals] == [
        "enforced, but not saved: the disk does not take policy.json; it is written when it does"
    ]
    assert not setting.host.ping()
    setting.host.unplug()
    setting.host.plug()
    assert setting.host.announce() == {}
    assert setting.host.hooked()
    wait_until(lambda: "dfw_policy_not_saved" in alarms(setting), "the alarm", timeout_s=ALARM_S)
    hangs.unlink()
    wait_until(lambda: saved(setting), "the policy on disk")
    assert await restarted(setting) == 3
    assert not setting.host.ping()


async def test_o27_a_read_only_disk_starts_with_what_it_has(setting: Setting, disk: Disk) -> None:
    """What comes is enforced; a vsfwd that starts meanwhile leaves what is in force, and takes what is
    newer; after a boot it begins with the last policy that was saved."""
    disk.remount("ro")
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    await setting.manager.reported(Applied, lambda event: event.generation == 2)
    assert not setting.host.ping()
    assert "Read-only file system" in setting.host.ask("status")["not_saved"]
    assert await restarted(setting) == 0
    assert not setting.host.ping()
    setting.host.clear()
    assert await restarted(setting) == 1
    setting.host.plug()
    wait_until(setting.host.ping, "what the policy of then allows")
    await setting.manager.policy(setting.host.manager.snapshot(**{**POLICY, "rules": NO_PING}))
    await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert not setting.host.ping()
    disk.remount("rw")
    wait_until(lambda: saved(setting), "the policy on disk")
    assert await restarted(setting) == 3


async def test_o7_a_host_whose_policy_is_spoilt_opens_nothing(setting: Setting) -> None:
    """What the kernel had stays, nothing is let in that was not, with an alarm, and the manager hears that
    there is no policy here. After a boot the one before the last is in force."""
    await setting.with_policy()
    await setting.manager.policy(
        setting.host.manager.delta(rules={"7": {**POLICY["rules"]["2"], "name": "n"}})
    )
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    await setting.manager.reported(Applied, lambda event: event.generation == 3)
    state = setting.host.directory / "state"
    (state / "policy.json").write_bytes(b"{")
    assert await restarted(setting) == 0
    assert not setting.host.ping()
    expected = "generation 3 was saved, nothing was loaded, new vNICs stay closed: policy.json: "
    wait_until(
        lambda: alarms(setting).get("dfw_policy_file_unusable", "").startswith(expected),
        "the alarm",
        timeout_s=ALARM_S,
    )
    await setting.manager.policy(setting.host.manager.snapshot(**{**POLICY, "rules": NO_PING}))
    await setting.manager.reported(Applied, lambda event: event.generation == 4)
    await setting.manager.policy(setting.host.manager.delta(rules={"7": None}))
    await setting.manager.reported(Applied, lambda event: event.generation == 5)
    (state / "policy.json").write_bytes(b"{")
    setting.host.clear()
    assert await restarted(setting) == 4
    setting.host.plug()
    wait_until(setting.host.hooked, "the programs on the device")
    assert not setting.host.ping()
