"""vNICs that are plugged into a host whose port guard is on, one after the other, while both ends of each
send: nobody announces them, and vsfwd hears of one when it has sent a while. What counts is how many frames
arrive before its policy is in force, and of those that it forbids, ever."""

import tempfile
from pathlib import Path
from typing import Final

from tests.bench.ratios import Estimate, Target
from tests.bench.report import Figure
from tests.bench.rounds import Progress
from tests.harness.hotplug import NEIGHBOUR_MAC, End, hot_host, plug_unannounced

PLUG_S: Final = 1.0


def planned_s(vnics: int) -> float:
    return 20 + vnics * PLUG_S


def run(vnics: int, progress: Progress) -> list[Figure]:
    found = []
    with (
        tempfile.TemporaryDirectory() as directory,
        hot_host(Path(directory)) as host,
        End(host.neighbour, "eth0", NEIGHBOUR_MAC, "10.0.0.2") as neighbour,
    ):
        for number in range(vnics):
            found.append(plug_unannounced(host, neighbour, number))
            progress.step(f"motion: vNIC {number + 1} of {vnics}", PLUG_S)
    early, sent = sum(each.early for each in found), sum(each.sent for each in found)
    group = "vNICs that nobody announced"
    return [
        Figure("motion", group, name, vnics, "frames", Estimate(value, value, value, vnics), target)
        for name, value, target in (
            ("sent by all of them", sent, None),
            ("frames before policy", early, Target("0", 0, at_least=False)),
        )
    ]
