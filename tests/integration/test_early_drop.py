"""`vsfwctl early` with a running daemon: a VM that sends to its host, and what the daemon's death changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon_host import DEVICE, HOST_NS, VM_ADDRESS, DaemonHost, sh
from tests.integration.private_broker import PrivateBroker

pytestmark = pytest.mark.slow

REFUSED = [
    ("attach nosuch --rate 1", "device nosuch: No such device"),
    ("attach lo --rate 1", "device lo: the loopback"),
    ("attach a/b --rate 1", "device: 'a/b' cannot be the name of a device"),
    (f"attach {DEVICE} --block 10.0.0.1/24", "'10.0.0.1/24' is not an address"),
    (f"attach {DEVICE} --block ::ffff:1.2.3.4", "write it as IPv4"),
    (f"attach {DEVICE} --rate 1000001", "rate: 1000001 is not in 0-1000000"),
    (f"attach {DEVICE} --rate 1 --burst 4294967296", "burst: 4294967296 is not in 1-4294967295"),
    (f"detach {DEVICE}", f"device {DEVICE}: has no early drop"),
]
WITHOUT_RATE = {"mode": "native", "rate": 0, "burst": 0, "dropped_rate": 0}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DaemonHost]:
    """A daemon whose broker never answers, and a device with a VM behind it that is no vNIC."""
    host = DaemonHost(tmp_path)
    try:
        host.up()
        host.start(host.configure(PrivateBroker(tmp_path)))
        host.plug()
        yield host
    finally:
        host.down()


def test_x50_an_early_drop_is_attached_shown_and_detached_with_a_line_each(host: DaemonHost) -> None:
    """Status, counters and journal say so; what the list does not name passes."""
    assert host.ping()
    assert host.ctl("early", "attach", DEVICE, "--block", VM_ADDRESS, "--block", "fd00::/64").returncode == 0
    assert not host.ping()
    (drop,) = host.ask("early", "show")
    assert (drop["device"], drop["blocked"]) == (DEVICE, [f"{VM_ADDRESS}/32", "fd00::/64"])
    assert drop["dropped_blocked"] >= 1
    assert drop.items() >= WITHOUT_RATE.items()
    assert [shown["device"] for shown in host.ask("status")["early"]] == [DEVICE]
    for table in "early show", "status":
        assert f"{DEVICE}    native" in host.ctl(*table.split()).stdout
    assert host.ctl("early", "detach", DEVICE).returncode == 0
    assert host.ping()
    assert host.ask("early", "show") == host.ask("status")["early"] == []
    lines = [line for line in host.log.read_text().splitlines() if "log=vsfwd.early" in line]
    assert [line.partition("event=")[2] for line in lines] == [
        f'"early drop attached" device={DEVICE} blocked=2 rate=0 burst=0 uid=0',
        f'"early drop detached" device={DEVICE} uid=0',
    ]


def test_a_rate_alone_drops_what_is_beyond_it(host: DaemonHost) -> None:
    """The burst is the rate, unless it is said."""
    assert host.ctl("early", "attach", DEVICE, "--rate", "1000").returncode == 0
    assert host.ping()
    assert host.ctl("early", "attach", DEVICE, "--rate", "1", "--burst", "3").returncode == 0
    sh(f"ip netns exec {HOST_NS} ping -c50 -i0.01 -W1 {VM_ADDRESS}", check=False)
    (drop,) = host.ask("early", "show")
    assert (drop["rate"], drop["burst"]) == (1, 3)
    assert drop["dropped_rate"] >= 1


def test_a_killed_daemon_leaves_the_early_drop_and_the_next_one_knows_it(host: DaemonHost) -> None:
    """The kernel goes on dropping; the new daemon shows it and takes it off."""
    host.ctl("early", "attach", DEVICE, "--block", VM_ADDRESS)
    host.kill()
    assert not host.ping()
    host.start(host.directory / "vsfwd.toml")
    (drop,) = host.ask("early", "show")
    assert drop["dropped_blocked"] >= 1
    assert host.ctl("early", "detach", DEVICE).returncode == 0
    assert host.ping()


def test_what_cannot_be_is_refused_and_changes_nothing(host: DaemonHost) -> None:
    """Exit status 1, or 2 of what is no address; a message that names it, nothing attached, nothing in the
    journal."""
    for words, reason in REFUSED:
        done = host.ctl("early", *words.split())
        assert (done.returncode, reason in done.stderr) == (1 + ("--block" in words), True), done.stderr
    assert host.ask("early", "show") == []
    assert "log=vsfwd.early" not in host.log.read_text()
