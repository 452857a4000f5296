"""A vsfwd as it runs: its own process, a real kernel, a real broker, one VM on a veth."""

import re
import socket
from contextlib import ExitStack
from itertools import islice

import msgspec
import pytest

from tests.harness.flood import frames
from tests.harness.pairs import Pair
from tests.harness.sockets import listening
from tests.integration.daemon_host import (
    DEVICE,
    HOST_ADDRESS,
    HOST_ADDRESS6,
    HOST_NS,
    NO_PING,
    POLICY,
    QUOTA,
    VM_ADDRESS,
    VM_ADDRESS6,
    VM_MAC,
    VM_NS,
    DaemonHost,
    Setting,
    sh,
)
from tests.unit.policy_messages import APP, WEB, WEB_VM, group, rule, vnic
from vagrant.lab.probe import inside
from vagrant.lab.waiting import wait_until
from vsfwd.protocol.messages import Applied, Bindings, Hello, Reply, Request

pytestmark = pytest.mark.slow


async def test_a_new_vnic_is_closed_until_its_policy_is_in(setting: Setting) -> None:
    """Announced, then plugged: the programs come at once, traffic comes with the policy."""
    await setting.plugged()
    assert not setting.host.ping()
    await setting.manager.policy(setting.host.manager.snapshot(**POLICY))
    applied = await setting.manager.reported(Applied)
    assert (applied.generation, applied.refusals) == (1, ())
    assert applied.digest == setting.host.manager.digest
    wait_until(setting.host.ping, "an answer: ARP asks again once a second")


async def test_a_device_that_is_there_is_closed_when_the_announcement_returns(setting: Setting) -> None:
    """Plugged, then announced."""
    setting.host.plug()
    assert setting.host.ping()
    assert setting.host.announce() == {}
    assert setting.host.hooked()
    assert not setting.host.ping()
    assert f"vsfwd:{WEB}" in sh(f"ip -n {HOST_NS} link show {DEVICE}")


async def test_a_change_is_enforced_and_reported(setting: Setting) -> None:
    """A delta turns the verdict around."""
    await setting.with_policy()
    assert setting.host.ping()
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    applied = await setting.manager.reported(Applied)
    assert applied.generation == 2
    assert not setting.host.ping()


async def test_a_killed_daemon_leaves_enforcement_and_comes_back_without_a_broker(setting: Setting) -> None:
    """SIGKILL: the kernel goes on; the next daemon has its policy from disk and its vNIC from the device."""
    await setting.with_policy()
    await setting.manager.policy(setting.host.manager.delta(rules=NO_PING))
    await setting.manager.reported(Applied)
    setting.host.kill()
    assert not setting.host.ping()
    setting.broker.expel()
    try:
        setting.host.start(setting.config)
        assert not setting.host.ping()
        status = setting.host.ask("status")
        assert (status["generation"], status["broker"]) == (2, None)
        assert [(vnic["state"], vnic["generation"]) for vnic in status["vnics"]] == [("open", 2)]
    finally:
        setting.broker.declare()
    hello = await setting.manager.reported(Hello)
    assert (hello.generation, hello.digest) == (2, setting.host.manager.digest)


async def test_pins_of_daemons_with_other_structs_are_removed(setting: Setting) -> None:
    """At the start, when the programs of now are on every vNIC."""
    await setting.with_policy()
    setting.host.kill()
    older = setting.host.pins / "0123456789abcdef"
    older.mkdir()
    setting.host.start(setting.config)
    assert not older.exists()
    assert setting.host.ping()


async def test_without_a_policy_file_the_status_says_what_the_kernel_has(setting: Setting) -> None:
    """The files are lost, the daemon starts again: the vNIC is still filtered by the old policy, so it is
    open."""
    await setting.with_policy()
    setting.host.kill()
    for path in (setting.host.directory / "state").glob("policy*"):
        path.unlink()
    setting.host.start(setting.config)
    status = setting.host.ask("status")
    assert status["generation"] == 0
    assert setting.host.ping()
    assert [vnic["state"] for vnic in status["vnics"]] == ["open"]


async def test_a_stopped_daemon_ends_in_order_and_leaves_enforcement(setting: Setting) -> None:
    """SIGTERM: exit status 0, the programs stay."""
    await setting.with_policy()
    assert setting.host.stop() == 0
    assert setting.host.hooked()
    assert setting.host.ping()


@pytest.mark.parametrize("net", [0, 1], ids=["ipv4", "ipv6"])
async def test_x21_a_daemon_that_hangs_is_not_missed_under_a_flood(setting: Setting, net: int) -> None:
    """SIGSTOP: three quotas of short connections pass, before each of them four SYNs of a flood that nobody
    answers, and nothing is dropped for want of a place; a connection from before goes on."""
    await setting.with_policy()
    mac = setting.host.device_mac()
    flood = frames("syn", (VM_MAC, mac), "", (HOST_ADDRESS, HOST_ADDRESS6)[net], 12 * QUOTA)
    with ExitStack() as stack:
        with inside(VM_NS):
            flooder = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            flooder.bind(("eth0", 0))
        pair = Pair(HOST_NS, VM_NS, (VM_ADDRESS, VM_ADDRESS6)[net])
        before = pair.connect()
        for closing in pair, before:
            stack.callback(closing.close)
        with setting.host.held():
            for _ in range(3 * QUOTA):
                for frame in islice(flood, 4):
                    flooder.send(frame)
                connection = pair.connect()
                connection.speak()
                connection.close()
            before.speak()
    (web,) = setting.host.ask("stats")["drops"]
    assert not {"table_full", "no_state", "tcp_state"} & web["reasons"].keys()


async def test_o4_programs_that_somebody_takes_off_come_back(setting: Setting) -> None:
    """Attached again within seconds, with the policy that was there."""
    await setting.with_policy()
    setting.host.take_off()
    wait_until(setting.host.hooked, "the programs back on the device")
    assert setting.host.ping()


async def test_a_vnic_that_is_unplugged_is_forgotten_and_reported(setting: Setting) -> None:
    """The device goes, the binding goes; when the device comes back it is the same vNIC, under its policy."""
    await setting.with_policy()
    setting.host.unplug()
    await setting.manager.reported(Bindings, lambda event: event.vnics == ())
    assert setting.host.ask("status")["vnics"] == []
    setting.host.plug()
    wait_until(setting.host.hooked, "the programs on the device that came back")
    wait_until(setting.host.ping, "traffic under the policy")


async def test_what_is_refused_changes_nothing_and_the_next_message_counts(setting: Setting) -> None:
    """Garbage, a forged signature, a gap: reported each, the policy stays; then a snapshot is taken."""
    await setting.with_policy()
    good = setting.host.manager.delta(groups={"g": group()})
    for message, resync in (
        (msgspec.structs.replace(good, body=b"garbage"), False),
        (msgspec.structs.replace(good, signature=bytes(64)), False),
        (setting.host.manager.delta(groups={"h": group()}), True),
    ):
        await setting.manager.policy(message)
        applied = await setting.manager.reported(Applied)
        assert (applied.generation, applied.resync) == (1, resync)
        assert [refusal.kind for refusal in applied.refusals] == ["message"]
    assert setting.host.ping()
    await setting.manager.policy(setting.host.manager.snapshot(**{**POLICY, "rules": NO_PING}))
    applied = await setting.manager.reported(Applied)
    assert applied.refusals == ()
    assert not setting.host.ping()


async def test_the_manager_may_ask_for_a_report(setting: Setting) -> None:
    """Hello, bindings that are said to be the answer, and the reply with the id of the request."""
    await setting.plugged()
    await setting.manager.app(setting.host.manager.request(Request("r1", "report")))
    assert (await setting.manager.reported(Hello)).vsfwd
    said = await setting.manager.reported(Bindings)
    assert ([binding.vnic for binding in said.vnics], said.answers) == ([WEB], "r1")
    assert await setting.manager.reported(Reply) == Reply("r1")
    await setting.manager.app(setting.host.manager.request(Request("r2", "dance")))
    assert "dance" in (await setting.manager.reported(Reply)).error


async def test_an_announcement_that_contradicts_is_refused(setting: Setting) -> None:
    """A device that is one vNIC is not made another by saying so; what is malformed is named."""
    setting.host.plug()
    assert setting.host.announce() == {}
    answer = setting.host.announce(vnic=APP)
    assert answer["error"] == "io.vsfwd.Host.Refused"
    assert WEB in answer["parameters"]["reason"]
    assert "mac" in setting.host.announce(mac="02-00-00-00-00-01")["parameters"]["reason"]
    assert "lo is of kind loopback" in setting.host.announce(vnic=APP, device="lo")["parameters"]["reason"]


async def test_a_withdrawn_vnic_is_let_go(setting: Setting) -> None:
    """An explicit command opens the device; the manager hears of it."""
    await setting.plugged()
    assert setting.host.call("WithdrawVnic", {"vnic": WEB}) == {}
    assert not setting.host.hooked()
    assert setting.host.ping()
    await setting.manager.reported(Bindings, lambda event: event.vnics == ())
    assert setting.host.call("WithdrawVnic", {"vnic": WEB})["error"] == "io.vsfwd.Host.NotFound"


async def test_vsfwctl_shows_what_is_enforced(setting: Setting) -> None:
    """Rules in order with their hits, groups, flows, timers, drops, and the rule that would decide."""
    await setting.with_policy()
    assert setting.host.ping()
    (shown,) = setting.host.ask("rules", "--vnic", "web")
    assert [(row["position"], row["id"], row["name"]) for row in shown["rules"]] == [
        (1, 1, "ping"),
        (2, 2, "no web"),
        (3, 3, "rest"),
    ]
    assert shown["rules"][0]["sessions"] == 1
    assert [one["name"] for one in setting.host.ask("addrsets")] == ["clients"]
    (flow,) = setting.host.ask("flows", "--vnic", WEB_VM)
    assert (flow["protocol"], flow["local"], flow["remote"], flow["rule"]) == (
        "icmp",
        VM_ADDRESS,
        HOST_ADDRESS,
        1,
    )
    (timers,) = setting.host.ask("timers")
    assert (timers["profile"], timers["timers"]["icmp_first_packet"]) == ("default", 20)
    assert "icmp_first_packet" in setting.host.ctl("timers", "--vnic", "web").stdout
    assert setting.host.ask("stats")["rules"][0]["packets"] == 2
    question = ("--vnic", "web", "--in", "--proto", "tcp", "--src", HOST_ADDRESS, "--dst", VM_ADDRESS)
    answer = setting.host.ask("explain", *question, "--dport", "80")
    assert (answer["action"], answer["rule"]) == ("drop", 2)
    answer = setting.host.ask("explain", *question, "--dport", "81", "--midstream")
    assert (answer["action"], answer["rule"]) == ("drop", 3)
    assert "begins no connection" in answer["name"]
    assert (shown["rules"][0]["tracking"], shown["rules"][0]["existing_flows"]) == ("strict", "recheck")
    assert 'event="0 INET match PASS mainrs/1 IN' in setting.host.log.read_text()
    mistyped = setting.host.ctl("flows", "--vnic", "wbe")
    assert (mistyped.returncode, "plugged here; did you mean web?" in mistyped.stderr) == (1, True)


async def test_an_ethernet_rule_decides_before_all_others(setting: Setting) -> None:
    """It is the first that is shown, whatever its order; it drops what others allow, and counts."""
    await setting.with_policy()
    ipv4, logged = {"ethertypes": [0x0800]}, {"logged": True, "log_label": "t-4711"}
    no_ipv4 = rule("no IPv4", action="drop", order=[99], frames=ipv4, **logged)
    await setting.manager.policy(setting.host.manager.delta(rules={"9": no_ipv4}))
    await setting.manager.reported(Applied, lambda event: event.generation == 2)
    assert not setting.host.ping()
    (shown,) = setting.host.ask("rules", "--vnic", "web")
    assert [row["id"] for row in shown["rules"]] == [9, 1, 2, 3]
    assert (shown["rules"][0]["services"], shown["rules"][0]["packets"] > 0) == ("ethertype 0x0800", True)
    question = ("--vnic", "web", "--in", "--proto", "tcp", "--src", HOST_ADDRESS, "--dst", VM_ADDRESS)
    answer = setting.host.ask("explain", *question, "--dport", "80")
    assert (answer["action"], answer["rule"], answer["passed_over"]) == ("drop", 9, [])
    assert "no IPv4" in setting.host.ctl("explain", *question, "--dport", "80").stdout
    refused = setting.host.ctl("explain", *question, "--dport", "80", "--src-mac", "web")
    assert (refused.returncode, "--src-mac" in refused.stderr) == (2, True)
    line = re.compile("ETHERNET match DROP mainrs/9 IN .* t-4711")
    wait_until(lambda: line.search(setting.host.log.read_text()) is not None, "the log line")
    await setting.manager.policy(setting.host.manager.delta(rules={"9": None}))
    await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert setting.host.ping()


async def test_an_excluded_vnic_is_shown_as_such(setting: Setting) -> None:
    """In status, rules, explain and stats; and what a rule would drop passes."""
    await setting.with_policy()
    denied = setting.host.manager.delta(rules=NO_PING, vnics={WEB: {**vnic(VM_ADDRESS), "excluded": True}})
    await setting.manager.policy(denied)
    await setting.manager.reported(Applied, lambda event: event.generation == 2)
    assert setting.host.ping()
    assert [one["state"] for one in setting.host.ask("status")["vnics"]] == ["excluded"]
    assert [one["excluded"] for one in setting.host.ask("rules")] == [True]
    question = ("--vnic", "web", "--in", "--proto", "icmp", "--src", HOST_ADDRESS, "--dst", VM_ADDRESS)
    answer = setting.host.ask("explain", *question, "--icmp-type", "8")
    assert (answer["action"], answer["rule"], answer["name"][:8]) == ("allow", None, "excluded")
    (unfiltered,) = setting.host.ask("stats")["unfiltered"]
    assert (unfiltered["vm_name"], unfiltered["packets"] >= 2) == ("web", True)
    await setting.manager.policy(setting.host.manager.delta(vnics={WEB: vnic(VM_ADDRESS)}))
    await setting.manager.reported(Applied, lambda event: event.generation == 3)
    assert not setting.host.ping()


async def test_a_hostile_client_hurts_only_itself(setting: Setting) -> None:
    """Garbage, an endless message, a flood of requests nobody reads: cut off, and others are answered."""
    request = b'{"method":"io.vsfwd.Host.Status"}\0'
    for attack in (b"\0" * 10, b"not json\0", b"x" * 1_000_000, request * 50_000):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(setting.host.socket))
            assert cut_off(client, attack)
        assert setting.host.ask("status")["generation"] == 0
    idle = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for client in idle:
        client.connect(str(setting.host.socket))
    assert setting.host.ask("status")["generation"] == 0
    for client in idle:
        client.close()


def cut_off(client: socket.socket, attack: bytes) -> bool:
    """Whether the daemon ends the connection of a client that goes on and on."""
    for _ in range(1000):
        try:
            client.sendall(attack)
        except ConnectionError:
            return True
    return False


async def test_nothing_listens_but_the_local_socket(setting: Setting) -> None:
    """GHSA-v5mh-h5hx-7v92, CVE-2026-32254: no port of any kind, with a policy in force and a vNIC plugged."""
    await setting.with_policy()
    assert setting.host.process is not None
    assert listening(setting.host.process.pid) == {f"unix {setting.host.socket}"}


async def test_two_daemons_with_one_state_do_not_run(setting: Setting) -> None:
    """The second says why and ends; the first goes on."""
    second = DaemonHost(setting.host.directory)
    with pytest.raises(AssertionError, match="another vsfwd is running"):
        second.start(setting.config)
    assert setting.host.ask("status")["generation"] == 0
