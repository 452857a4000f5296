"""What survives a restart, a crash and a spoiled disk."""

import os
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness.fakedatapath import FakeDatapath
from tests.unit.policy_messages import HOST, WEB, Manager, group
from vsfwd.incidents import Cause, Incidents
from vsfwd.protocol.messages import Binding
from vsfwd.reconciler import Reconciler
from vsfwd.statefile import InUse, StateFile, Stored, Unusable

BINDING = Binding(WEB, "bbbbbbbb-0000-4000-8000-000000000001", "02:00:00:00:00:01", "veth-web")


class Disk:
    """A state directory with two generations in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manager = Manager()
        self.statefile = StateFile(directory)
        self.incidents = Incidents()
        reconciler = self.reconciler()
        reconciler.apply_message(self.manager.snapshot(groups={"a": group("10.0.0.1")}), 0)
        reconciler.apply_message(self.manager.delta(groups={"b": group("10.0.0.2")}), 0)

    def reconciler(self, host: str = HOST) -> Reconciler:
        key = self.manager.key.public_key()
        return Reconciler(host, key, FakeDatapath(), self.statefile, "1.0", incidents=self.incidents)

    def alarm(self) -> str:
        """What is said of the policy on disk since the last call."""
        return self.incidents.take().get(Cause("dfw_policy_file_unusable", "CRITICAL", HOST), "")

    def loaded_generation(self, host: str = HOST) -> int:
        reconciler = self.reconciler(host)
        reconciler.load()
        return reconciler.state.generation


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "state")


def test_the_last_policy_is_loaded(disk: Disk) -> None:
    """A delta was last; what is loaded is the whole state it made, under its signature."""
    assert disk.loaded_generation() == 2


def test_nobody_else_can_read_it(disk: Disk) -> None:
    """Policy and bindings are root's."""
    disk.statefile.save_bindings((BINDING,))
    assert {path.stat().st_mode & 0o777 for path in disk.directory.glob("*.json")} == {0o600}


@pytest.mark.parametrize(
    "spoil",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"header":"","signature":"","objects":{}}',
        b'{"header":"","signature":"","objects":{"rules":{"\xff":1}}}',
        b'{"objects":{"rules":{"1":' + b"[" * 100_000,
    ],
    ids=["empty", "cut off", "no text", "no policy", "no text inside", "depth"],
)
def test_o7_a_spoiled_file_falls_back(disk: Disk, spoil: bytes) -> None:
    """Cut off or overwritten: the generation before it is enforced, and there is an alarm."""
    (disk.directory / "policy.json").write_bytes(spoil)
    assert disk.loaded_generation() == 1
    alarm = disk.alarm()
    assert alarm.startswith("generation 2 was saved, generation 1 was loaded: policy.json: ")


def test_o7_what_is_whole_is_no_alarm(disk: Disk) -> None:
    """Neither the last policy, nor a host that never had one."""
    assert disk.loaded_generation() == 2
    assert disk.alarm() == ""
    for path in disk.directory.glob("*.json"):
        path.unlink()
    assert disk.loaded_generation() == 0
    assert disk.alarm() == ""


def test_o7_a_file_that_is_gone_is_missed(disk: Disk) -> None:
    """First the last policy, then both: what was saved is known, so the alarm says what is missing."""
    (disk.directory / "policy.json").unlink()
    assert disk.loaded_generation() == 1
    assert disk.alarm() == "generation 2 was saved, generation 1 was loaded: its file is gone"
    (disk.directory / "policy.previous.json").unlink()
    assert disk.loaded_generation() == 0
    assert (
        disk.alarm() == "generation 2 was saved, nothing was loaded, new vNICs stay closed: its file is gone"
    )


def test_o7_both_files_spoiled_leave_no_policy(disk: Disk) -> None:
    """The alarm names both; nothing is made up in their place."""
    for name in ("policy.json", "policy.previous.json"):
        (disk.directory / name).write_bytes(b"{")
    assert disk.loaded_generation() == 0
    alarm = disk.alarm()
    said = ("nothing was loaded", ": policy.json: ", "; policy.previous.json: ")
    assert [words for words in said if words not in alarm] == []


def test_o7_a_file_that_cannot_be_read_is_a_spoiled_one(disk: Disk) -> None:
    """Any of the files, here directories: the daemon starts all the same."""
    (disk.directory / "policy.json").unlink()
    for name in ("policy.json", "vnics.json", "addresses.json"):
        (disk.directory / name).mkdir()
    assert disk.loaded_generation() == 1
    with pytest.raises(ValueError, match=r"vnics\.json: .*Is a directory"):
        disk.statefile.load_bindings()
    with pytest.raises(ValueError, match=r"addresses\.json: .*Is a directory"):
        disk.statefile.load_addresses()


def test_an_older_policy_on_disk_is_refused(disk: Disk) -> None:
    """The manager did sign what somebody puts back, but this host has had two newer ones since: it is loaded
    neither in the place of the last policy nor of the one before it."""
    old = (disk.directory / "policy.previous.json").read_bytes()
    reconciler = disk.reconciler()
    reconciler.load()
    reconciler.apply_message(disk.manager.delta(groups={"c": group("10.0.0.3")}), 0)
    (disk.directory / "policy.json").write_bytes(old)
    assert disk.loaded_generation() == 2
    (disk.directory / "policy.previous.json").write_bytes(old)
    assert disk.loaded_generation() == 0


def test_a_crash_while_saving_loses_no_policy(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is there and its position is not yet: it is loaded, and so is the one before it when the
    last is spoiled."""
    reconciler = disk.reconciler()
    reconciler.load()
    monkeypatch.setattr(StateFile, "_save_positions", lambda self, last: None)
    reconciler.apply_message(disk.manager.delta(groups={"c": group("10.0.0.3")}), 0)
    assert disk.loaded_generation() == 3
    (disk.directory / "policy.json").write_bytes(b"")
    assert disk.loaded_generation() == 2


def test_a_position_that_was_not_written_is_written_the_next_time(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when policy was saved, and has room when it is saved again."""
    replace = os.replace

    def failing(new: str, path: Path) -> None:
        if "positions" in path.name:
            raise OSError("no space left on device")
        replace(new, path)

    reconciler = disk.reconciler()
    reconciler.load()
    message = disk.manager.delta(groups={"c": group("10.0.0.3")})
    with monkeypatch.context() as full:
        full.setattr(os, "replace", failing)
        reconciler.apply_message(message, 0)
        assert reconciler.not_saved
    reconciler.save()
    assert not reconciler.not_saved
    assert disk.statefile.oldest()[1] == 2
    disk.statefile.close()
    assert StateFile(disk.directory).oldest()[1] == 2


def test_a_changed_object_is_noticed(disk: Disk) -> None:
    """The signature covers every object by the digest: one altered address and the file is not believed."""
    path = disk.directory / "policy.json"
    altered = path.read_bytes().replace(b"10.0.0.1", b"10.0.0.9")
    path.write_bytes(altered)
    assert disk.loaded_generation() == 1


def test_another_hosts_policy_is_not_loaded(disk: Disk) -> None:
    """A disk that was copied to another host has no policy for it."""
    assert disk.loaded_generation("3f2b8c1e-0000-4000-8000-000000000002") == 0


@pytest.mark.parametrize(
    "forgery", ["no signature", "another manager's", "a later generation", "a later epoch", "an order"]
)
def test_what_the_manager_did_not_sign_as_policy_is_not_loaded(disk: Disk, forgery: str) -> None:
    """Somebody who can write to the disk, but has not the manager's key: the generation before it is
    enforced."""
    path = disk.directory / "policy.json"
    stored = msgspec.json.decode(path.read_bytes(), type=Stored)
    header, signature = stored.header, stored.signature
    if forgery == "no signature":
        signature = b""
    elif forgery == "another manager's":
        signature = Ed25519PrivateKey.generate().sign(b"vsfw policy 1\0" + header)
    elif forgery == "a later generation":
        header = header.replace(b'"generation":2', b'"generation":9')
    elif forgery == "a later epoch":
        header = header.replace(b'"epoch":1', b'"epoch":2')
    else:
        signature = disk.manager.key.sign(b"vsfw order 1\0" + header)
    assert (header, signature) != (stored.header, stored.signature)
    path.write_bytes(msgspec.json.encode(Stored(header, signature, stored.objects)))
    assert disk.loaded_generation() == 1


def test_an_older_policy_on_disk_is_one_the_manager_is_told_of(disk: Disk) -> None:
    """A file of before, put back: it is signed, and better than none; what is newer comes from the manager,
    which hears what the host has had, and nothing older than that is taken."""
    (disk.directory / "policy.previous.json").replace(disk.directory / "policy.json")
    reconciler = disk.reconciler()
    reconciler.load()
    assert reconciler.hello().generation == 1
    disk.manager.generation = 0
    older = reconciler.apply_message(disk.manager.snapshot(), 0)
    assert (older.report.generation, reconciler.state.generation) == (2, 1)
    disk.manager.generation = 1
    newer = reconciler.apply_message(disk.manager.snapshot(groups={"b": group("10.0.0.2")}), 0)
    assert newer.report.generation == 2


def test_a_crash_between_the_renames_loses_nothing(disk: Disk) -> None:
    """The current file is away already, the new one not yet in its place."""
    (disk.directory / "policy.json").rename(disk.directory / "policy.json.new")
    assert disk.loaded_generation() == 1


def test_what_is_saved_survives_a_power_cut(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is on the disk before it takes the old one's name, and the name before save returns. (The
    order of the calls: to cut the power is beyond a test.)"""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def recorded_sync(fd: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        sync(fd)

    def recorded_rename(new: str, path: Path) -> None:
        done.append(f"rename {Path(new).name}")
        rename(new, path)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(os, "replace", recorded_rename)
    disk.statefile.save_bindings((BINDING,))
    assert done == ["sync vnics.json.new", "rename vnics.json.new", f"sync {disk.directory.name}"]


def test_bindings_survive(disk: Disk) -> None:
    """VM and MAC of a vNIC are remembered with its device."""
    disk.statefile.save_bindings((BINDING,))
    assert disk.statefile.load_bindings() == (BINDING,)


@pytest.mark.parametrize("spoil", [b"[", b'{"vnics":[{"vnic":"\xff"}]}', b'{"x":' + b"[" * 100_000])
def test_spoiled_bindings_are_an_error_with_the_file_in_it(disk: Disk, spoil: bytes) -> None:
    """The caller decides; here nothing is guessed."""
    (disk.directory / "vnics.json").write_bytes(spoil)
    with pytest.raises(ValueError, match=r"vnics\.json"):
        disk.statefile.load_bindings()


def test_one_daemon_at_a_time(disk: Disk) -> None:
    """The second daemon with one state directory ends at once."""
    with pytest.raises(InUse, match="another vsfwd"):
        StateFile(disk.directory)
    disk.statefile.close()
    StateFile(disk.directory).close()


def test_a_directory_that_may_not_be_used_is_named(tmp_path: Path) -> None:
    """As another user than the one it belongs to, with where that is said; and where a file is in its
    place."""
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="file/state: Not a directory"):
        StateFile(tmp_path / "file" / "state")
    os.seteuid(65534)
    try:
        with pytest.raises(Unusable, match=r"another user than the one vsfwd runs as \(User= of vsf"):
            StateFile(Path("/etc/vsfwd-state"))
    finally:
        os.seteuid(0)
