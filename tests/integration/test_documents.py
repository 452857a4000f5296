"""What the documents show of a host, by a shell on one; the alarms and reasons that they name; and that their
links lead somewhere."""

import re
import sys
from pathlib import Path

import pytest

from tests.harness.documents import by_shell, commands, headings, session
from tests.integration.daemon_host import HOST_NS, POLICY, VM_ADDRESS, Setting, sh
from tests.unit.policy_messages import WEB, vnic
from tests.unit.test_metrics import parsed
from vagrant.lab.waiting import wait_until
from vsfwd.datapath.schema import Reason
from vsfwd.protocol.messages import Applied

ROOT = Path(__file__).parents[2]
VSFWD = ROOT / "vsfwd"
PAGES = {name: (VSFWD / name).read_text() for name in ("FAULTS.md", "TROUBLESHOOTING.md")}
SHOWN = [
    *(("vsfwd/FAULTS.md", heading) for heading in headings("vsfwd/FAULTS.md")),
    *(("vsfwd/TROUBLESHOOTING.md", heading) for heading in headings("vsfwd/TROUBLESHOOTING.md")),
    ("vsfwd/ctl/README.md", "What a host enforces"),
    ("vsfwd/ctl/README.md", "Early drop"),
    ("bpf/README.md", "Maps"),
    ("vsfwd/ipc/README.md", "Local socket"),
]


def vsfwctl(setting: Setting) -> list[str]:
    return [sys.executable, "-m", "vsfwd.ctl", "--socket", str(setting.host.socket)]


@pytest.mark.slow
async def test_metrics_are_written_as_shown(setting: Setting, tmp_path: Path) -> None:
    """Where node_exporter reads them, with nothing beside; they say what the daemon says otherwise. When it
    has ended what is there stays."""
    await setting.with_policy()
    assert setting.host.ping()
    wait_until(lambda: bool(setting.host.ask("stats")["flows"]), "somebody looks at flow tables")
    (script,) = commands("vsfwd/OPERATE.md", "Metrics")
    directory = tmp_path / "collector"
    directory.mkdir()
    script = script.replace("/var/lib/prometheus/node-exporter", str(directory))
    done = by_shell(script, {"vsfwctl": vsfwctl(setting)}, HOST_NS)
    assert (done.returncode, done.stderr) == (0, "")
    (written,) = directory.iterdir()
    assert written.name == "vsfwd.prom"
    before = written.read_bytes()
    found, stats = parsed(before), setting.host.ask("stats")
    told = {(labels["rule"], labels["name"]): n for labels, n in found["vsfwd_rule_packets_total"]}
    assert told.keys() == {(str(each["id"]), each["name"]) for each in stats["rules"]}
    assert told["1", "ping"] == next(each["packets"] for each in stats["rules"] if each["id"] == 1) > 0
    assert found["vsfwd_vnics"][0] == ({"state": "open"}, 1)
    ((whose, held),) = found["vsfwd_flow_table_held_ratio"]
    assert (whose, held < 0.1) == ({"vnic": WEB, "vm": "web"}, True)  # the ping, or nothing: a sample
    setting.host.kill()
    assert by_shell(script, {"vsfwctl": vsfwctl(setting)}, HOST_NS).returncode != 0
    assert written.read_bytes() == before


@pytest.mark.slow
async def test_every_command_shows_what_the_page_says(setting: Setting) -> None:
    """None fails, and the first line that is shown begins as one that is said; a few lines all do."""
    guarded = {WEB: {**vnic(VM_ADDRESS), "spoofguard": "tofu"}}
    await setting.plugged()
    await setting.manager.policy(setting.host.manager.snapshot(**{**POLICY, "vnics": guarded}))
    await setting.manager.reported(Applied)
    sh(f"ip -n {HOST_NS} link add eth1 type veth peer name other1")
    for page, heading in SHOWN:
        for command, shown in session(page, heading):
            done = by_shell(command, {"vsfwctl": vsfwctl(setting)}, HOST_NS)
            assert (done.returncode, done.stderr) == (0, ""), command
            wanted, said = ([line.split()[0] for line in text] for text in (shown, done.stdout.splitlines()))
            assert set(wanted[:1]) <= set(said), command
            assert "grep" not in command or wanted in ([], said), command


def test_the_alarms_that_they_name_are_those_there_are() -> None:
    """By their names in the code."""
    named = {name for page in PAGES.values() for name in re.findall(r"larms? (`\w+`(?:, `\w+`)*)", page)}
    alarms = {name for names in named for name in re.findall(r"\w+", names)}
    roots = (VSFWD, VSFWD.parent / "manager_stub")
    code = "".join(path.read_text() for root in roots for path in root.rglob("*.py"))
    assert len(alarms) > 10
    assert {name for name in alarms if f'"{name}"' not in code} == set()


def test_the_reasons_that_they_name_are_those_there_are() -> None:
    """Every reason has its line in DROPS.md, which is written from the code."""
    listed = set(re.findall(r"^\| `(\w+)` \|", (VSFWD / "DROPS.md").read_text(), re.MULTILINE))
    assert listed == {each.name.lower() for each in Reason if each.name != "NONE"}
    spoken = PAGES["TROUBLESHOOTING.md"].partition("## A packet arrives that")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", spoken, re.MULTILINE) for name in re.findall(r"\w+", row)
    }
    assert named
    assert named <= listed


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("[!.]*/**/*.md")), ids=str)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading of it, as GitHub makes anchors of headings."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]*)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
            assert anchor in anchors, target
