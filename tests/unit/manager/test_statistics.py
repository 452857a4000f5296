"""What hosts say that rules have counted: added up, and shown in NSX's shape."""

import json
from typing import Any

import pytest

from manager_stub.reports import BadReport, parse_report
from manager_stub.statistics import LARGEST, MAX_BOOTS, SILENT_AFTER_S, Total
from tests.unit.manager.rest import DOMAIN, INFRA, VSFW, Manager
from vsfwd.protocol.messages import MAX_COUNTS, Binding, Bindings, RuleCount, Statistics

pytestmark = pytest.mark.slow

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, OTHER_VM = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
VNIC, OTHER_VNIC = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
SECTION = f"{DOMAIN}/security-policies/s"
PATH = "/infra/domains/default/security-policies/s"
POINT = "/infra/sites/default/enforcement-points/default"


def boot(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def says(rules: dict[int, RuleCount], at_ms: int = 1, in_boot: int = 1) -> Statistics:
    return Statistics(boot(in_boot), at_ms, {str(rule): count for rule, count in rules.items()})


@pytest.fixture
async def fleet(manager: Manager) -> Manager:
    """Two hosts with a VM each; `web` allows, `no` drops, `seen` is monitored, `bare` is stateless."""
    rules = [
        {"id": "web", "action": "ALLOW"},
        {"id": "no", "action": "DROP"},
        {"id": "seen", "action": "ALLOW", "monitored": True},
    ]
    await manager.call("PUT", SECTION, {"rules": rules})
    await manager.call(
        "PUT", f"{SECTION}less", {"stateful": False, "rules": [{"id": "bare", "action": "ALLOW"}]}
    )
    for host, vm, vnic in ((HOST, VM, VNIC), (OTHER_HOST, OTHER_VM, OTHER_VNIC)):
        manager.register.add_host(host, f"host{host[-1]}")
        mac = f"02:00:00:00:00:0{vnic[-1]}"
        manager.vnics.bound(host, Bindings((Binding(vnic, vm, mac, "veth"),)))
    return manager


def number(manager: Manager, rule: str, section: str = PATH) -> int:
    return manager.register.world.rules[f"{section}/rules/{rule}"].number


def total(manager: Manager, rule: str = "web") -> Total:
    return manager.parts.statistics.totals.get(number(manager, rule), Total())


def hear(manager: Manager, packets: int, at_ms: int = 1, in_boot: int = 1, host: str = HOST) -> int:
    """A host says what `web` has counted, a session each ten packets; and what is known then."""
    count = RuleCount(packets, 100 * packets, packets // 10)
    manager.parts.statistics.heard(host, says({number(manager, "web"): count}, at_ms, in_boot))
    return total(manager).packets


async def test_what_hosts_count_is_added_up(fleet: Manager) -> None:
    """Of each host what it says counts from its start; all hosts together."""
    assert hear(fleet, 10) == 10
    assert hear(fleet, 30, at_ms=2) == 30
    assert hear(fleet, 100, host=OTHER_HOST) == 130
    assert total(fleet).bytes == 13000
    assert total(fleet).sessions == 13


async def test_nothing_is_counted_twice(fleet: Manager) -> None:
    """The same report again, and an older one after it, add nothing."""
    hear(fleet, 10, at_ms=1)
    hear(fleet, 30, at_ms=2)
    for packets, at_ms in ((30, 2), (10, 1), (30, 2)):
        assert hear(fleet, packets, at_ms) == 30


async def test_counters_that_went_back_began_anew(fleet: Manager) -> None:
    """A rule that left the host and came back; what it counted before stays."""
    hear(fleet, 100, at_ms=1)
    assert hear(fleet, 7, at_ms=2) == 107
    assert hear(fleet, 9, at_ms=3) == 109


async def test_a_host_that_was_booted_counts_from_nothing(fleet: Manager) -> None:
    """Also where it has counted more by then than it had before; what it said before the boot comes too
    late."""
    hear(fleet, 100, at_ms=900)
    assert hear(fleet, 120, at_ms=5, in_boot=2) == 220
    assert hear(fleet, 100, at_ms=900, in_boot=1) == 220
    assert hear(fleet, 121, at_ms=6, in_boot=2) == 221
    for in_boot in range(3, 2 * MAX_BOOTS):
        hear(fleet, 0, in_boot=in_boot)
    assert len(fleet.parts.statistics.hosts[HOST].boots) == MAX_BOOTS


async def test_a_restarted_manager_goes_on_where_it_wrote_down(fleet: Manager) -> None:
    """What it had heard since comes with the host's next report; nothing is counted twice, in whichever
    order."""
    hear(fleet, 10, at_ms=1)
    fleet.parts.statistics.save()
    written = total(fleet)
    hear(fleet, 30, at_ms=2)
    again = Manager(fleet.directory, fleet.admin[1])
    try:
        assert (total(again), written.packets) == (written, 10)
        assert hear(again, 30, at_ms=2) == 30
        assert hear(again, 10, at_ms=1) == 30
    finally:
        await again.close()


async def test_a_host_is_believed_about_its_own_rules_only(fleet: Manager) -> None:
    """A rule that it is not to have, or that is not there, is left out; the rest counts. Of one that it had
    until now the last word counts."""
    await fleet.call("PUT", f"{DOMAIN}/groups/nobody", {})
    scoped = {"id": "far", "action": "DROP", "scope": ["/infra/domains/default/groups/nobody"]}
    await fleet.call("PATCH", SECTION, {"rules": [scoped]})
    numbers = [number(fleet, name) for name in ("web", "far")]
    fleet.parts.statistics.heard(HOST, says(dict.fromkeys([*numbers, 9999], RuleCount(1, 100, 0))))
    assert fleet.parts.statistics.totals.keys() == {numbers[0]}
    fleet.vnics.bound(HOST, Bindings(()))
    assert hear(fleet, 5, at_ms=2) == 5


async def test_a_hit_is_a_flow_where_flows_are_known_and_a_packet_elsewhere(fleet: Manager) -> None:
    """Packets of a flow that was allowed are not asked about again."""
    rules = {name: number(fleet, name) for name in ("web", "no", "seen")}
    rules["bare"] = number(fleet, "bare", f"{PATH}less")
    fleet.parts.statistics.heard(HOST, says(dict.fromkeys(rules.values(), RuleCount(50, 5000, 2))))
    totals = fleet.parts.statistics.totals
    assert {name: totals[rule].hits for name, rule in rules.items()} == {
        "web": 2,
        "no": 50,
        "seen": 50,
        "bare": 50,
    }


async def test_the_last_hit_is_as_old_as_the_host_says(fleet: Manager) -> None:
    """By the manager's clock; of a host that was not looking, when it told. An older one on another host
    does not count, nor one that told nothing new."""
    statistics = fleet.parts.statistics
    statistics.now_ms = lambda: 10_000_000
    rule = number(fleet, "web")
    for host, at_ms, packets, age_s, expected in (
        (HOST, 1, 5, -1, 10_000_000),
        (HOST, 2, 6, 100, 10_000_000),
        (OTHER_HOST, 1, 1, 5, 10_000_000),
    ):
        statistics.heard(host, says({rule: RuleCount(packets, 0, 0, age_s)}, at_ms))
        assert statistics.totals[rule].last_hit_ms == expected
    statistics.now_ms = lambda: 20_000_000
    statistics.heard(HOST, says({rule: RuleCount(6, 0, 0, 0)}, at_ms=3))
    assert statistics.totals[rule].last_hit_ms == 10_000_000
    statistics.heard(HOST, says({rule: RuleCount(7, 0, 0, 1000)}, at_ms=4))
    assert statistics.totals[rule].last_hit_ms == 19_000_000


async def test_a_host_cannot_say_more_than_the_database_holds(fleet: Manager) -> None:
    """The most there is, again and again: it stays at that, and everything is written down."""
    rule = number(fleet, "no")
    for at_ms in range(4):
        most = RuleCount(LARGEST, LARGEST, LARGEST, 2**31 - 1) if at_ms % 2 else RuleCount(1, 1, 1)
        fleet.parts.statistics.heard(HOST, says({rule: most}, at_ms))
    fleet.parts.statistics.save()
    assert total(fleet, "no").packets == LARGEST


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"boot": "now", "at_ms": 1, "rules": {}}, "boot"),
        ({"boot": boot(1), "at_ms": -1, "rules": {}}, "at_ms"),
        ({"boot": boot(1), "at_ms": 1, "rules": {"../x": [1, 1, 1]}}, "rule"),
        ({"boot": boot(1), "at_ms": 1, "rules": {"1001": [1, 1]}}, "rules"),
        ({"boot": boot(1), "at_ms": 1, "rules": {"1001": [-1, 0, 0]}}, "rules"),
        ({"boot": boot(1), "at_ms": 1, "rules": {"1001": [2**63, 0, 0]}}, "rules"),
        (
            {"boot": boot(1), "at_ms": 1, "rules": {str(n): [1, 1, 1] for n in range(1, MAX_COUNTS + 2)}},
            str(MAX_COUNTS),
        ),
    ],
)
def test_what_no_host_can_have_counted_is_refused_whole(body: Any, why: str) -> None:
    """With the field that cannot be."""
    with pytest.raises(BadReport, match=why):
        parse_report(f"host.{HOST}.statistics", HOST, json.dumps(body).encode())


async def test_statistics_of_a_rule_and_of_a_section_in_nsx_shape(fleet: Manager) -> None:
    """RuleStatistics and SecurityPolicyStatistics, for the one enforcement point."""
    hear(fleet, 40)
    hear(fleet, 60, host=OTHER_HOST)
    fleet.parts.statistics.heard(HOST, says({number(fleet, "no"): RuleCount(3, 180, 0)}))
    (of_rule,) = (await fleet.call("GET", f"{SECTION}/rules/web/statistics"))["results"]
    last_hit = of_rule["statistics"].pop("last_hit_time")
    assert last_hit == total(fleet).last_hit_ms
    assert of_rule == {
        "enforcement_point": POINT,
        "statistics": {
            "rule": f"{PATH}/rules/web",
            "internal_rule_id": str(number(fleet, "web")),
            "packet_count": 100,
            "byte_count": 10000,
            "session_count": 10,
            "hit_count": 10,
            "popularity_index": 10,
            "max_popularity_index": 10,
            "max_session_count": 10,
            "total_session_count": 10,
        },
        "unreported_hosts": [],
    }
    answer = await fleet.call("GET", f"{SECTION}/statistics?enforcement_point_path={POINT}")
    of_section = answer["results"][0]["statistics"]
    assert (answer["result_count"], of_section["result_count"]) == (1, 3)
    assert [(each["rule"][-4:], each["packet_count"]) for each in of_section["results"]] == [
        ("/web", 100),
        ("s/no", 3),
        ("seen", 0),
    ]
    assert "last_hit_time" not in of_section["results"][2]


async def test_who_does_not_report_is_named(fleet: Manager) -> None:
    """A host that never did, as one of an older release; and one that did not for some time. One that is not
    to have the rule is none of them."""
    hear(fleet, 1)
    url = f"{SECTION}/rules/web/statistics"

    async def unreported() -> list[str]:
        (found,) = (await fleet.call("GET", url))["results"]
        return [host["display_name"] for host in found["unreported_hosts"]]

    assert await unreported() == ["host2"]
    now = fleet.parts.statistics.now_ms()
    fleet.parts.statistics.now_ms = lambda: now + SILENT_AFTER_S * 1000 + 1000
    assert await unreported() == ["host1", "host2"]
    fleet.vnics.bound(OTHER_HOST, Bindings(()))
    assert await unreported() == ["host1"]


async def test_statistics_begin_at_zero_after_a_reset(fleet: Manager) -> None:
    """NSX's call: hosts count on, and what they counted before does not come back; it stays so after a
    restart. A hit is known still, and so is who did it."""
    hear(fleet, 40)
    before = total(fleet).last_hit_ms
    await fleet.call("POST", f"{INFRA}/settings/firewall/stats?action=reset&category=DFW")
    assert total(fleet) == Total(last_hit_ms=before)
    line, *_ = (await fleet.call("GET", f"{VSFW}/audit-log"))["results"]
    assert (line["user"], line["path"]) == ("admin", "/infra/settings/firewall/stats")
    fleet.parts.statistics.save()
    assert hear(fleet, 45, at_ms=2) == 5
    again = Manager(fleet.directory, fleet.admin[1])
    assert hear(again, 45, at_ms=2) == 5
    await again.close()
    for query in ("action=reset", "action=clear&category=DFW", "action=reset&category=EDGE"):
        assert (await fleet.answer("POST", f"{INFRA}/settings/firewall/stats?{query}")).status_code == 400


async def test_an_auditor_reads_statistics_and_resets_none(fleet: Manager) -> None:
    """And what is not there is not found."""
    await fleet.call("PUT", f"{VSFW}/users/a", {"role": "auditor", "password": "a password of length"})
    fleet.rest.auth = ("a", "a password of length")
    await fleet.call("GET", f"{SECTION}/statistics")
    reset = await fleet.answer("POST", f"{INFRA}/settings/firewall/stats?action=reset&category=DFW")
    assert reset.status_code == 403
    elsewhere = "enforcement_point_path=/infra/other"
    for url in (
        f"{SECTION}x/statistics",
        f"{SECTION}/rules/x/statistics",
        f"{SECTION}/statistics?{elsewhere}",
    ):
        assert (await fleet.answer("GET", url)).status_code == 404


async def test_what_is_gone_is_forgotten(fleet: Manager) -> None:
    """A rule that is deleted, a host that is removed: in memory and in the database."""
    hear(fleet, 40)
    hear(fleet, 2, host=OTHER_HOST)
    fleet.parts.statistics.save()
    fleet.register.remove_host(HOST)
    fleet.parts.statistics.save()
    assert total(fleet).packets == 2
    rule = number(fleet, "web")
    await fleet.call("DELETE", f"{SECTION}/rules/web")
    fleet.parts.statistics.save()
    assert rule not in fleet.parts.statistics.totals
    assert fleet.parts.store.rule_statistics() == []
    assert [row["host"] for row in fleet.parts.store.host_statistics()] == [OTHER_HOST]
