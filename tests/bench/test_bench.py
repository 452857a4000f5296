"""The bench runs, reports what it says it measures, and leaves nothing behind. How fast is its own matter."""

import json
import signal
import socket
import subprocess
import sys

import pytest

from tests.bench import kernel, packet
from tests.bench.burst import BATCH, Burst
from tests.bench.kernel import PINS
from tests.bench.policy import LAB
from tests.harness.lab import root_devices
from vagrant.lab import network
from vagrant.lab.waiting import wait_until
from vsfwd.datapath import TIMEOUTS_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUN = (sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1", "--out")


def test_a_quick_run_writes_every_figure(tmp_path):
    """One round of everything: figures of all parts, all positive, in JSON; the plot; a table."""
    done = subprocess.run([*RUN, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "bench.json").read_text())["figures"]
    names = {(figure["part"], figure["name"]) for figure in figures}
    for variant in "nft-linear", "nft-set", "vsfwd":
        assert ("traffic", f"{variant} ÷ none") in names
    assert ("packet", "new flow, above parse only") in names
    assert ("early", "XDP ÷ TC, dropped") in names
    assert ("fleet", "slowest") in names
    assert ("flood", "vsfwd ÷ none") in names
    assert ("compile", "compile and load") in names
    assert ("start", "reopened") in names
    assert ("update", "address joins a group, compile and map writes") in names
    for name in "gaps in the stream", "flows lost", "blackout in excess", "frames before policy":
        assert ("motion", name) in names
    assert all(figure["value"]["median"] > 0 for figure in figures if figure["part"] != "motion")
    assert (tmp_path / "bench.png").exists()
    assert "vsfwd ÷ none" in done.stdout
    assert _nothing_left()


def test_what_is_called_a_new_flow_is_one():
    """Every packet of a sample begins a session and asks the last rule; an established one begins none."""
    shape = packet.SHAPES[0]
    with kernel.alone(), kernel.device("packet") as ifindex:
        with packet.bench(16, ifindex, dict.fromkeys(TIMEOUTS_S, 0)) as expired:
            expired.new_flow(shape)()
            assert expired.datapath.rule_counters()[16].sessions == packet.RUNS * packet.REPEAT
        with packet.bench(16, ifindex, TIMEOUTS_S) as lasting:
            lasting.established(shape)()
            assert lasting.datapath.rule_counters()[16].sessions == 1
            assert [flow.state for flow in lasting.datapath.flows(0)] == ["established"]


def test_a_burst_sends_a_whole_batch_at_once():
    """Each call of sendmmsg() takes all the frames it is given, in order; the other end receives them."""
    sent = [bytes(12) + b"\x88\xb5" + number.to_bytes(48, "big") for number in range(2 * BATCH)]
    with kernel.alone(), kernel.device("burst"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as other:
        for name in "burst", "other":
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        network.wait_carrying(None)
        other.bind(("other", 0x88B5))
        other.settimeout(5)
        with Burst("burst", sent) as burst:
            assert [burst.send(), burst.send()] == [BATCH, BATCH]
        assert [other.recv(100) for _ in sent] == sent


def test_an_interrupted_run_leaves_nothing(tmp_path):
    """Ctrl-C in the middle of it: no namespace, no device, no pin stays."""
    with subprocess.Popen([*RUN, str(tmp_path), "traffic"], stderr=subprocess.PIPE) as running:
        wait_until(lambda: len(network.found(LAB.name)) > 3, "the bench's VMs", 120.0)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert _nothing_left()


def _nothing_left() -> bool:
    return not root_devices(LAB.name) and not network.found(LAB.name) and not PINS.exists()
