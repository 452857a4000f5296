"""What Prometheus is told of a host: all that Status and Stats say, and nothing that no page names."""

import re
import subprocess
import sys

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import vsfwd.ipc.interface as api
from manager_stub import metrics as of_manager
from tests.harness.documents import blocks
from tests.unit.policy_messages import APP, HOST, WEB
from vsfwd.ctl.metrics import METRICS, exposed

HARD = 'a "rule"\\ of\ntwo lines}, é'
STATUS = api.HostStatus(
    version="1.2.3",
    host_id=HOST,
    epoch=2,
    generation=7,
    digest="00",
    not_saved="",
    broker="amqps://broker",
    broker_error="",
    realised_at="2026-01-01T00:00:00+00:00",
    age_s=5,
    duration_us=28_200,
    messages_applied=3,
    messages_duplicate=2,
    messages_refused=1,
    log_lines_lost=4,
    image=api.ImageSize(rules=10, rows=11, hosts=12, prefixes=13),
    vnics=[
        api.VnicStatus(WEB, "", HARD, "veth0", "", 0, "open", 7, []),
        api.VnicStatus(APP, "", "app", "veth1", "", -1, "unattached", 0, [], "no such device"),
    ],
    alarms=[api.Alarm("dfw", "dfw_session_refused", "CRITICAL", WEB, "web", "", "")],
    refusals=[api.RefusedObject("rules", "3", "")],
    early=[api.EarlyDrop("eth1", "native", [], 5000, 10000, passed=20, dropped_blocked=21, dropped_rate=22)],
    datapath={"vnics_behind": "1", "events_lost": "5"},
)
STATS = api.HostStats(
    rules=[api.RuleStats(1001, HARD, packets=100, bytes=6400, sessions=9, suppressed=8)],
    drops=[api.VnicDrops(WEB, HARD, {"rule": 6, "no_state": 7})],
    unfiltered=[api.VnicUnfiltered(APP, "app", 30)],
    flows=[api.VnicFlows(WEB, HARD, 0.25)],
)
OTHERS = {"up": {"job"}, "node_textfile_mtime_seconds": {"file"}}
"""Metrics of Prometheus itself and of node_exporter, with labels."""
WORDS = {"and", "or", "increase", "max", "time"}
"""Of PromQL."""
RULE, VNIC = {"rule": "1001", "name": HARD}, {"vnic": WEB, "vm": HARD}

Found = dict[str, list[tuple[dict[str, str], float]]]


def parsed(text: bytes) -> Found:
    """Labels and values by name, by the library's own parser."""
    found: Found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_what_is_printed_says_what_status_and_stats_say() -> None:
    """Every figure, in seconds where it is a time; names survive, whatever is in them."""
    assert parsed(exposed(STATUS, STATS)) == {
        "vsfwd_info": [({"version": "1.2.3", "host": HOST}, 1)],
        "vsfwd_policy_epoch": [({}, 2)],
        "vsfwd_policy_generation": [({}, 7)],
        "vsfwd_policy_realised_timestamp_seconds": [({}, 1767225600)],
        "vsfwd_policy_realise_seconds": [({}, 0.0282)],
        "vsfwd_messages_total": [
            ({"result": "applied"}, 3),
            ({"result": "duplicate"}, 2),
            ({"result": "refused"}, 1),
        ],
        "vsfwd_broker_connected": [({}, 1)],
        "vsfwd_vnics": [
            ({"state": "open"}, 1),
            ({"state": "closed"}, 0),
            ({"state": "excluded"}, 0),
            ({"state": "unattached"}, 1),
        ],
        "vsfwd_vnics_behind": [({}, 1)],
        "vsfwd_objects_refused": [({}, 1)],
        "vsfwd_alarms": [
            ({"severity": "CRITICAL"}, 1),
            ({"severity": "HIGH"}, 0),
            ({"severity": "MEDIUM"}, 0),
            ({"severity": "LOW"}, 0),
        ],
        "vsfwd_table_entries": [
            ({"table": "rules"}, 10),
            ({"table": "rows"}, 11),
            ({"table": "hosts"}, 12),
            ({"table": "prefixes"}, 13),
        ],
        "vsfwd_flow_table_held_ratio": [(VNIC, 0.25)],
        "vsfwd_rule_packets_total": [(RULE, 100)],
        "vsfwd_rule_bytes_total": [(RULE, 6400)],
        "vsfwd_rule_sessions_total": [(RULE, 9)],
        "vsfwd_rule_events_suppressed_total": [(RULE, 8)],
        "vsfwd_dropped_packets_total": [
            ({**VNIC, "reason": "rule"}, 6),
            ({**VNIC, "reason": "no_state"}, 7),
        ],
        "vsfwd_unfiltered_packets_total": [({"vnic": APP, "vm": "app"}, 30)],
        "vsfwd_early_passed_packets_total": [({"device": "eth1"}, 20)],
        "vsfwd_early_dropped_packets_total": [
            ({"device": "eth1", "reason": "prefix"}, 21),
            ({"device": "eth1", "reason": "rate"}, 22),
        ],
        "vsfwd_log_lines_lost_total": [({}, 4)],
        "vsfwd_events_lost_total": [({}, 5)],
    }


def test_every_figure_that_the_page_names_is_there_with_its_labels() -> None:
    """And with the type that its page says."""
    text = exposed(STATUS, STATS)
    found = parsed(text)
    assert {name: set(samples[0][0]) for name, samples in found.items()} == {
        each.name: set(each.labels) for each in METRICS
    }
    for each in METRICS:
        assert f"# TYPE {each.name} {each.type}\n" in text.decode()


def test_before_the_first_message_there_is_no_time_it_took() -> None:
    """No figure, where a 0 would be a very good one."""
    status = api.HostStatus(**{**vars(STATUS), "realised_at": None, "broker": None})
    found = parsed(exposed(status, STATS))
    assert not {"vsfwd_policy_realise_seconds", "vsfwd_policy_realised_timestamp_seconds"} & found.keys()
    assert found["vsfwd_broker_connected"] == [({}, 0)]


@pytest.mark.parametrize("program", ["vsfwd.__main__", "vsfwd.daemon", "vsfwd.ctl.vsfwctl"])
def test_nobody_else_waits_for_the_library(program: str) -> None:
    """Neither the daemon nor another command of vsfwctl loads it."""
    code = f"import sys, {program}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("page", ["vsfwd/OPERATE.md", "manager_stub/OPERATE.md"])
def test_alerts_that_a_document_shows_are_about_metrics_that_there_are(page: str) -> None:
    """By their names, and with labels that they have."""
    shown = [yaml.safe_load(block.text) for block in blocks(page) if block.kind == "yaml"]
    (groups,) = (each["groups"] for each in shown if "groups" in each)
    labels = {each.name: set(each.labels) for each in (*METRICS, *of_manager.METRICS)} | OTHERS
    for rule in groups[0]["rules"]:
        assert rule.keys() - {"for"} == {"alert", "expr"}
        asked = re.findall(r"([a-z_]+)(?:\{(\w+)=~?\"[^\"]*\"\})?", re.sub(r"\[\w+\]", "", rule["expr"]))
        assert asked, rule
        for name, label in asked:
            assert name in WORDS or {label} - {""} <= labels[name], rule
