"""Images against images: which plan leads from one to the other, and when two mean the same."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings

from tests.harness import strategies
from tests.harness.policies import Objects, after
from vsfwd.image import (
    POINTS,
    POINTS_ETHERTYPE,
    POINTS_SOURCE,
    Flip,
    Guard,
    HostEntry,
    HostKey,
    Image,
    InPlace,
    Nothing,
    PrefixEntry,
    PrefixKey,
    RuleEntry,
    ServiceRange,
    VnicRows,
    canonical,
    diff,
)
from vsfwd.policy.compile import compile
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.model import Action
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import Refusal

A, B = HostKey(0, 0xA), HostKey(0, 0xB)
IMAGE = Image(
    rows=(0b00, 0b01, 0b11),
    hosts={A: HostEntry(1, 2, 0, 1), B: HostEntry(2, 2, 2)},
    prefixes={PrefixKey(4, 0, 0xFFFF << 32): PrefixEntry(1, 1), PrefixKey(6, 0, 0): PrefixEntry(1, 1)},
    services=(ServiceRange(0, 79, 0), ServiceRange(80, 80, 2), ServiceRange(81, 262399, 0)),
    vnics={0: VnicRows(1, 1, 2, 2)},
    rules=(RuleEntry(1, Action.ALLOW, False), RuleEntry(2, Action.DROP, False)),
)


def with_host(image: Image, key: HostKey, entry: HostEntry | None, *rows: int) -> Image:
    hosts = {other: there for other, there in image.hosts.items() if other != key}
    return replace(image, rows=(*image.rows, *rows), hosts=hosts | ({key: entry} if entry else {}))


def test_an_empty_bank_is_flipped() -> None:
    """Nothing is known of what a bank holds before the first image."""
    assert diff(None, IMAGE) == Flip(IMAGE)


@pytest.mark.parametrize(
    ("key", "entry", "rows"),
    [
        pytest.param(B, HostEntry(1, 2, 2), (), id="other rows"),
        pytest.param(B, HostEntry(3, 4, 2), (0b10, 0b111), id="new rows"),
        pytest.param(B, HostEntry(2, 2, 2, 1), (), id="another owner"),
        pytest.param(HostKey(0, 0xC), HostEntry(1, 1, 1), (), id="a new address"),
        pytest.param(HostKey(3, 0xA), HostEntry(1, 1, 1), (), id="the address on a segment"),
        pytest.param(A, None, (), id="an address goes"),
        pytest.param(A, None, (0b100,), id="an address goes, and a row nobody needs comes"),
    ],
)
def test_one_host_entry_is_changed_in_place(
    key: HostKey, entry: HostEntry | None, rows: tuple[int, ...]
) -> None:
    """Rows are appended, one entry commits."""
    wanted = with_host(IMAGE, key, entry, *rows)
    assert diff(IMAGE, wanted) == InPlace(wanted, rows, key, entry)


def test_two_host_entries_flip() -> None:
    """Changed, new and gone, in any mix."""
    for first, second in ((HostEntry(1, 1, 1), None), (HostEntry(1, 1, 1), HostEntry(1, 1, 1)), (None, None)):
        wanted = with_host(with_host(IMAGE, A, first), B, second)
        assert diff(IMAGE, wanted) == Flip(wanted)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"rows": (0b00, 0b10, 0b11)}, id="a row in use"),
        pytest.param({"prefixes": {**IMAGE.prefixes, PrefixKey(6, 64, 0): PrefixEntry(2, 2)}}, id="a prefix"),
        pytest.param({"services": (ServiceRange(0, 262399, 0),)}, id="services"),
        pytest.param({"vnics": {}}, id="a vNIC goes"),
        pytest.param({"vnics": {0: VnicRows(1, 1, 2, 2, 5)}}, id="a segment"),
        pytest.param({"rules": IMAGE.rules[:1]}, id="a rule goes"),
        pytest.param({"rules": (IMAGE.rules[0], RuleEntry(2, Action.REJECT, False))}, id="an action"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_anything_but_hosts_flips(changes: dict[str, object], beside: bool) -> None:
    """Alone, and beside one changed host entry."""
    wanted = replace(with_host(IMAGE, B, HostEntry(1, 1, 1)) if beside else IMAGE, **changes)  # type: ignore[arg-type]
    assert diff(IMAGE, wanted) == Flip(wanted)


def test_a_guard_alone_flips() -> None:
    """SpoofGuard turned on, another address bound: no rule changes, and the kernel must hear of it."""
    guarded = replace(IMAGE, guards={0: Guard(spoof=True, addresses=frozenset({0xA}))})
    assert diff(IMAGE, guarded) == Flip(guarded)
    assert diff(guarded, IMAGE) == Flip(IMAGE)
    assert isinstance(diff(guarded, replace(guarded)), Nothing)


def test_the_same_needs_nothing() -> None:
    """The same object, an equal one, and one with warnings; what the bank holds stays what it holds."""
    for wanted in (
        IMAGE,
        replace(IMAGE, hosts=dict(IMAGE.hosts)),
        replace(IMAGE, warnings=(Refusal("", "", ""),)),
    ):
        plan = diff(IMAGE, wanted)
        assert isinstance(plan, Nothing)
        assert plan.image is IMAGE


def test_the_same_by_other_numbers_needs_nothing() -> None:
    """Rows in another order, unused rows, split ranges: the bank keeps its own numbers, for what comes
    after."""
    wanted = Image(
        rows=(0b00, 0b11, 0b01, 0b1111),
        hosts={B: HostEntry(1, 1, 1), A: HostEntry(2, 1, 0, 1)},
        prefixes={key: PrefixEntry(2, 2) for key in reversed(IMAGE.prefixes)},
        services=(
            *(ServiceRange(0, 9, 0), ServiceRange(10, 79, 0), ServiceRange(80, 80, 1)),
            ServiceRange(81, 262399, 0),
        ),
        vnics={0: VnicRows(2, 2, 1, 1)},
        rules=IMAGE.rules,
    )
    plan = diff(IMAGE, wanted)
    assert isinstance(plan, Nothing)
    assert plan.image is IMAGE
    # One entry differs, but the numbers in it mean other rows in the bank.
    assert isinstance(diff(IMAGE, with_host(wanted, A, HostEntry(1, 1, 1))), Flip)


def test_a_bank_with_fewer_rows_wanted_flips_or_needs_nothing() -> None:
    """Rows do not go in place; unused ones may stay."""
    longer = replace(IMAGE, rows=(*IMAGE.rows, 0b10))
    assert isinstance(diff(longer, IMAGE), Nothing)
    assert isinstance(diff(longer, with_host(IMAGE, B, None)), Flip)


@settings(max_examples=100, deadline=None)
@given(start=strategies.policies, here=strategies.slots)
def test_canonical_images_are_of_a_kind(start: Objects, here: dict[str, int]) -> None:
    """Canonical twice is canonical once; services cover every point once, source ports only where a rule
    names them; row 0 is empty, no row stands twice."""
    image = compile(after(DesiredState(), start, Kind.SNAPSHOT), here)
    once = canonical(image)
    assert canonical(once) == once
    assert isinstance(diff(image, once), Nothing)
    for one in (image, once):
        assert one.rows[0] == 0
        assert len(set(one.rows)) == len(one.rows)
        packets = [points for points in one.services if points.first < POINTS_ETHERTYPE]
        sources = [points for points in one.services if points.first >= POINTS_SOURCE]
        assert [*packets, *sources] == list(one.services)
        assert (packets[0].first, packets[-1].last) == (0, POINTS_ETHERTYPE - 1)
        assert all(low.last + 1 == high.first for part in (packets, sources) for low, high in pairwise(part))
        asked = any(rows.source_ports for rows in one.vnics.values())
        assert not asked or (sources[0].first, sources[-1].last) == (POINTS_SOURCE, POINTS - 1)
