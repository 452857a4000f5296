"""What a host remembers of the addresses its vNICs are seen with."""

from vsfwd.discovery import IN_ONE_REPORT, MAX_CLAIMS, current, learn, reports
from vsfwd.protocol.messages import Claim, Source

ARP, LEASE = Source.ARP, Source.DHCP


def test_what_is_seen_again_changes_nothing() -> None:
    """The first word of a workload stands; a lease replaces it, and the next lease replaces that."""
    first = learn({}, [("v", Claim("10.0.0.1", ARP))])
    assert first == {"v": {"10.0.0.1": Claim("10.0.0.1", ARP)}}
    assert learn(first, [("v", Claim("10.0.0.1", ARP))]) == first
    leased = learn(first, [("v", Claim("10.0.0.1", LEASE, 100))])
    assert leased == {"v": {"10.0.0.1": Claim("10.0.0.1", LEASE, 100)}}
    assert learn(leased, [("v", Claim("10.0.0.1", ARP))]) == leased
    assert learn(leased, [("v", Claim("10.0.0.1", LEASE, 200))])["v"]["10.0.0.1"].expires == 200


def test_x33_a_workload_that_claims_a_network_fills_its_own_share() -> None:
    """128 addresses a vNIC, the first ones; its neighbour still learns."""
    flood = [("v", Claim(f"10.0.{n // 250}.{n % 250 + 1}", ARP)) for n in range(1000)]
    learned = learn({}, [*flood, ("w", Claim("10.1.0.1", ARP))])
    assert len(learned["v"]) == MAX_CLAIMS
    assert "10.0.0.1" in learned["v"]
    assert set(learned["w"]) == {"10.1.0.1"}


def test_leases_end_and_vnics_go() -> None:
    """At its last second a lease is over; what never ends stays."""
    learned = learn(
        {},
        [("v", Claim("10.0.0.1", LEASE, 100)), ("v", Claim("10.0.0.2", ARP)), ("w", Claim("10.0.0.3", ARP))],
    )
    assert set(current(learned, ["v"], 99)["v"]) == {"10.0.0.1", "10.0.0.2"}
    assert current(learned, ["v"], 100) == {"v": {"10.0.0.2": Claim("10.0.0.2", ARP)}}


def test_reports_are_of_a_size_the_manager_takes() -> None:
    """Many vNICs are told in several messages, each vNIC whole."""
    share = {f"10.0.0.{n}": Claim(f"10.0.0.{n}", ARP) for n in range(1, MAX_CLAIMS + 1)}
    learned = {f"v{n}": share for n in range(100)}
    told = list(reports(learned))
    assert len(told) > 1
    assert all(sum(map(len, each.vnics.values())) <= IN_ONE_REPORT for each in told)
    assert {vnic for each in told for vnic in each.vnics} == learned.keys()
