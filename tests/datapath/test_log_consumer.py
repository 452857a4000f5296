"""Nobody reads what the programs log: they do not wait for it."""

from tests.harness.datapath import Host
from tests.harness.packets import Net, udp
from vsfwd.datapath import Limit, bpf

PACKETS = 5000
"""More than the ring holds."""


def test_o39_a_full_ring_costs_events_and_nothing_else(host: Host, net: Net) -> None:
    """Every packet is judged and counted; events without room are counted as lost. When somebody reads again,
    there are new ones."""
    here = host.port("here")
    with host.configured(log_limit=Limit(10**6, 10**6)):
        host.install(["drop logged"], vnics={"here": "10.0.0.1 fd00::1 web"})
        before, lost = host.datapath.rule_counters()[1], int(host.datapath.status()["events_lost"])
        frame = bytes(here.frame_in(udp(net.peer, net.here)))
        verdict, *_ = bpf.run_program(host.datapath.vnic_in, frame, ifindex=here.ifindex, repeat=PACKETS)
        assert verdict == 2
        assert here.drops() == {"rule_drop": PACKETS}
        after = host.datapath.rule_counters()[1]
        assert after.packets - before.packets == PACKETS
        read = sum(map(len, iter(host.datapath.poll_events, [])))
        lost = int(host.datapath.status()["events_lost"]) - lost
        assert (read + lost + after.suppressed - before.suppressed, lost > 0) == (PACKETS, True)
        assert len(here.receive(udp(net.peer, net.here)).events) == 1
