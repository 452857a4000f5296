"""A daemon with other structs leaves maps under another name: they go, but not before what they serve."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.datapath import Host, passed, until
from tests.harness.packets import Net, udp
from vsfwd.datapath import Datapath, DatapathError, loader
from vsfwd.datapath.schema import schema as of_now

pytestmark = pytest.mark.slow

VNICS = {"here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}
OLDER = "0123456789abcdef"


@pytest.fixture
def older(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two vNICs served by an older daemon, which is gone; the new one has only started."""
    newer = host.datapath
    monkeypatch.setattr(loader, "schema", lambda: OLDER)
    host.datapath = Datapath.open(host.pins, host.settings)
    monkeypatch.setattr(loader, "schema", of_now)
    for name in VNICS:
        host.port(name)
    host.install(["allow"], vnics=VNICS)
    host.datapath.close()
    host.datapath, host._next = newer, 0
    newer._programs.unpin_others()
    yield host.pins / OLDER
    host.unplug()
    until(lambda: host.datapath.remove_older_pins() is not None and not (host.pins / OLDER).exists())


def test_pins_stay_while_a_device_bears_older_programs(host: Host, older: Path, net: Net) -> None:
    """Both vNICs have to be the new daemon's; until then they stay, and what is attached goes on."""
    assert host.datapath.remove_older_pins() == []
    here = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert host.datapath.remove_older_pins() == []
    assert (older / "stages").exists()
    assert here.send(udp(net.here, net.peer)) == passed(1, new=True)
    host.port("twin")
    until(lambda: host.datapath.remove_older_pins() == [OLDER])
    assert not older.exists()
    assert here.send(udp(net.here, net.peer)) == passed(1)


def test_what_is_no_schema_stays(host: Host) -> None:
    """Whatever else lies there is somebody else's; and the daemon's own pins are no older ones."""
    other = host.pins / "somebody-elses"
    other.mkdir()
    empty = host.pins / OLDER
    empty.mkdir()
    try:
        assert host.datapath.remove_older_pins() == [OLDER]
        assert {path.name for path in host.pins.iterdir()} == {other.name, of_now()}
    finally:
        other.rmdir()


def test_pins_that_cannot_be_read_are_an_error(host: Host) -> None:
    """Nothing is removed, and the daemon goes on."""
    (host.pins / OLDER / "stages").mkdir(parents=True)
    try:
        with pytest.raises(DatapathError, match="pins of an older daemon"):
            host.datapath.remove_older_pins()
        assert (host.pins / OLDER).exists()
    finally:
        (host.pins / OLDER / "stages").rmdir()
        (host.pins / OLDER).rmdir()
