"""What a host remembers of the addresses its vNICs are seen with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from structlog.testing import capture_logs

from vsfwd.datapath import Datapath
from vsfwd.datapath.schema import constant
from vsfwd.discovery import Discovery, current, duplicates, learn, reports
from vsfwd.policy.model import Vnic
from vsfwd.protocol.messages import MAX_CLAIMS, MAX_CLAIMS_AT_ONCE, MAX_LEASES, Addresses, Claim, Source
from vsfwd.reconciler import Port
from vsfwd.statefile import StateFile

ARP, LEASE = Source.ARP, Source.DHCP


def test_what_all_vnics_of_a_host_may_claim_has_room_in_the_kernel() -> None:
    """Else some of them claim what others' policy is refused for."""
    assert constant("BINDINGS") >= constant("SLOTS") * (MAX_CLAIMS + MAX_LEASES)


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


def test_x33_leases_have_a_share_of_their_own() -> None:
    """Whoever gives a vNIC one address after another fills 16 places, also with addresses that the workload
    has said itself; what it says of itself, and leases that are renewed, find room."""
    given = [("v", Claim(f"10.0.1.{n}", LEASE, 100)) for n in range(1, 100)]
    learned = learn({}, [*given, ("v", Claim("10.0.0.1", ARP)), ("v", Claim("10.0.1.1", LEASE, 200))])
    assert len(learned["v"]) == MAX_LEASES + 1
    assert learned["v"]["10.0.1.1"].expires == 200
    said = [("v", Claim(f"10.0.1.{n}", ARP)) for n in range(1, 100)]
    sources = [claim.source for claim in learn({}, [*said, *given])["v"].values()]
    assert (sources.count(LEASE), sources.count(ARP)) == (MAX_LEASES, 99 - MAX_LEASES)


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
    assert all(sum(map(len, each.vnics.values())) <= MAX_CLAIMS_AT_ONCE for each in told)
    assert {vnic for each in told for vnic in each.vnics} == learned.keys()


class Knowing:
    """A datapath, as far as it is told which addresses are known: by slot, the last word."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def know(self, slot: int, addresses: frozenset[int]) -> None:
        self.known[slot] = len(addresses)


async def test_o27_what_a_full_disk_did_not_take_is_saved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing is learned since; that there is no room is said once."""
    statefile, claim = StateFile(tmp_path), Claim("10.0.0.1", ARP)
    ports = {"v": Port("v", "veth", 1, "02:00:00:00:00:01", 0)}
    discovery = Discovery(statefile, cast(Datapath, Knowing()), AsyncMock(), lambda: ports, Mock())
    with monkeypatch.context() as full, capture_logs() as lines:
        full.setattr(statefile, "save_addresses", Mock(side_effect=OSError(28, "No space left on device")))
        await discovery.take_over("v", [claim])
        await discovery.take([], 1)
    assert len(lines) == 1
    await discovery.take([], 2)
    assert statefile.load_addresses() == Addresses({"v": (claim,)})


async def test_what_the_manager_forgets_is_forgotten_here(tmp_path: Path) -> None:
    """In memory, on disk and in the kernel, so that it is shown again; the manager is told what is left."""
    statefile, datapath, told = StateFile(tmp_path), Knowing(), list[Addresses]()
    left, gone = Claim("10.0.0.1", ARP), Claim("10.0.0.2", ARP)
    statefile.save_addresses(Addresses({"v": (left, gone)}))

    async def at_once(do: Callable[..., object], *arguments: Any) -> object:
        return do(*arguments)

    ports = {"v": Port("v", "veth", 1, "02:00:00:00:00:01", 0)}
    discovery = Discovery(statefile, cast(Datapath, datapath), at_once, lambda: ports, told.append)
    await discovery.forget("v", "10.0.0.2")
    assert discovery.learned == {"v": {"10.0.0.1": left}}
    assert statefile.load_addresses() == Addresses({"v": (left,)})
    assert (datapath.known, told) == ({0: 1}, [Addresses({"v": (left,)})])
    await discovery.forget("v", "10.0.0.2")
    await discovery.forget("w", "10.0.0.2")
    assert len(told) == 1


def test_x33_an_address_of_another_vnic_is_a_duplicate() -> None:
    """In one segment, and not one that is its own as well; the alarm names the owner."""
    policy = {
        "v": Vnic("vm", "web", "02:00:00:00:00:01", 1, ("10.0.0.1",)),
        "w": Vnic("vm", "db", "02:00:00:00:00:02", 1, ("10.0.0.1", "10.0.0.2")),
        "x": Vnic("vm", "far", "02:00:00:00:00:03", 2, ("10.0.0.3",)),
    }
    learned = learn({}, [("v", Claim(f"10.0.0.{last}", ARP)) for last in (1, 2, 3, 4)])
    assert duplicates(learned, policy) == {"v": "it was seen with 10.0.0.2 of db"}
    assert duplicates(learned, {}) == {}
