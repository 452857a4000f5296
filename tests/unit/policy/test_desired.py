"""Policy messages, one after the other: what is applied, what is refused, what stays."""

from typing import Any

import msgspec
import pytest

from tests.harness.policies import (
    Objects,
    after,
    group,
    message,
    objects,
    policy,
    rule,
    vnic,
    vnic_id,
)
from vsfwd.policy.desired import DesiredState, Duplicate, OutOfStep, apply
from vsfwd.policy.model import MAX_RULES
from vsfwd.protocol.envelope import Kind, Refused
from vsfwd.protocol.messages import digest_text

BAD = b'{"name":"bad"}'
"""An object that lacks what every kind needs, except a group; with `more` it is no group either."""
BAD_GROUP = b'{"name":"bad","addresses":["10.0.0.1/8"]}'


@pytest.fixture
def state() -> DesiredState:
    return policy(["allow from web", "drop to db"], {"web": ["10.0.0.1"]}, {"a": "10.0.0.2 web"})


def names(state: DesiredState) -> dict[int, str]:
    return {id: rule.name for id, rule in state.rules.items()}


def refused(state: DesiredState) -> list[tuple[str, str]]:
    return [(refusal.kind, refusal.id) for refusal in state.refusals]


# -- the sequence of messages -----------------------------------------------------------------------------


def test_a_delta_changes_what_it_names(state: DesiredState) -> None:
    """Put, replace, delete; everything else is the same object as before."""
    new = after(state, {"rules": {"1": None, "2": rule("reject"), "7": rule("allow")}})
    assert names(new) == {2: "reject", 7: "allow"}
    assert new.generation == state.generation + 1
    assert new.groups is state.groups
    assert new.vnics is state.vnics
    assert names(state) == {1: "allow from web", 2: "drop to db"}


def test_a_snapshot_replaces_everything(state: DesiredState) -> None:
    """What a snapshot does not name is gone, also what was refused before."""
    state = after(state, {"rules": {"8": BAD}})
    new = after(state, {"rules": {"3": rule("drop")}}, Kind.SNAPSHOT)
    assert (names(new), dict(new.groups), dict(new.vnics), new.refusals) == ({3: "drop"}, {}, {}, ())


def test_a_gap_is_out_of_step(state: DesiredState) -> None:
    """A delta that builds on a generation that never came is not applied; a snapshot at its generation is."""
    with pytest.raises(OutOfStep, match=r"builds on \(1, 2\), here is \(1, 1\)"):
        apply(state, *message(state, {"rules": {}}, base=2, generation=3))
    with pytest.raises(OutOfStep):
        apply(DesiredState(), *message(state, {"rules": {}}))
    assert apply(state, *message(state, {}, Kind.SNAPSHOT, generation=9, base=9)).generation == 9


def test_a_message_that_comes_twice_is_a_duplicate(state: DesiredState) -> None:
    """At-least-once delivery: the second time is told apart from what is wrong."""
    header, json = message(state, {"rules": {"9": rule("drop")}})
    new = apply(state, header, json)
    with pytest.raises(Duplicate):
        apply(new, header, json)


def test_older_messages_are_refused(state: DesiredState) -> None:
    """Re-ordered or replayed, by generation and by epoch, delta and snapshot."""
    first = message(state, {"rules": {"9": rule("drop")}})
    newer = after(after(state, {}), {})
    for header, json in (
        first,
        message(state, {}, Kind.SNAPSHOT),
        message(newer, {}, Kind.SNAPSHOT, epoch=0, generation=99),
    ):
        with pytest.raises(Refused, match="is older than"):
            apply(newer, header, json)


def test_a_new_epoch_begins_with_a_snapshot(state: DesiredState) -> None:
    """A manager restored from a backup begins a new epoch: generations start again, deltas do not carry
    over."""
    with pytest.raises(OutOfStep, match="builds on"):
        apply(state, *message(state, {}, epoch=2, generation=1))
    new = apply(state, *message(state, {"rules": {"1": BAD}}, Kind.SNAPSHOT, epoch=2, generation=1, base=1))
    assert (new.epoch, new.generation, names(new)) == (2, 1, {})
    assert not new.refusals[0].reason.endswith("stays in force"), "rule 1 of another epoch is another rule"


def test_a_digest_that_differs_is_out_of_step(state: DesiredState) -> None:
    """The host has lost something the manager has not: a snapshot helps; a snapshot that differs itself does
    not."""
    with pytest.raises(OutOfStep, match="digest"):
        apply(state, *message(state, {"rules": {"1": None}}, digest="0" * 64))
    with pytest.raises(Refused, match="digest") as caught:
        apply(state, *message(state, {"rules": {}}, Kind.SNAPSHOT, digest="1" * 64))
    assert not isinstance(caught.value, OutOfStep)


def test_a_snapshot_heals_a_state_of_the_same_generation(state: DesiredState) -> None:
    """Host and manager at one generation with different digests: the snapshot of that generation is
    applied."""
    healed = apply(
        state, *message(state, {"rules": {"4": rule("drop")}}, Kind.SNAPSHOT, generation=1, base=1)
    )
    assert names(healed) == {4: "drop"}
    with pytest.raises(OutOfStep):
        apply(state, *message(state, {"rules": {"4": rule("drop")}}, generation=1, base=1))


def test_the_digest_does_not_depend_on_the_way() -> None:
    """Deltas in any order and a snapshot of the result have the same digest; a deleted object leaves
    nothing."""
    sent = objects(["allow from web", "drop"], {}, {"a": "10.0.0.1 web"})
    whole = after(DesiredState(), sent, Kind.SNAPSHOT)
    state = after(DesiredState(), {}, Kind.SNAPSHOT)
    for kind in ("vnics", "rules", "groups"):
        state = after(state, {kind: sent[kind]})
    state = after(after(state, {"rules": {"9": rule("drop")}}), {"rules": {"9": None}})
    assert digest_text(state.digest) == digest_text(whole.digest)
    assert state.raw == whole.raw


# -- messages that are refused whole ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "json",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b'{"rules":{"1":', id="cut off"),
        pytest.param(b'{"rules":{}} {}', id="two values"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"rules":[]}', id="rules as a list"),
        pytest.param(b'{"rules":null}', id="no rules"),
        pytest.param(b'{"rulez":{}}', id="a kind nobody knows"),
        pytest.param(b'{"rules":{"1":' + b"[" * 200_000 + b"]" * 200_000 + b"}}", id="nested without end"),
        pytest.param(b'{"rules":{"\\ud800":{}}}', id="half a character as id"),
    ],
)
def test_a_body_that_is_no_message_is_refused(state: DesiredState, json: bytes) -> None:
    """Whatever the bytes, it is Refused and nothing else, and the state stays."""
    header, _ = message(state, {})
    with pytest.raises(Refused):
        apply(state, header, json)


def test_more_rules_than_a_row_has_bits_are_refused_with_their_number(state: DesiredState) -> None:
    """The limit itself fits; one more refuses the message, in a snapshot and in a delta."""
    one = msgspec.json.encode(rule("drop"))
    full = after(state, {"rules": {str(id): one for id in range(1, MAX_RULES + 1)}}, Kind.SNAPSHOT)
    assert len(full.rules) == MAX_RULES
    with pytest.raises(Refused, match="16385 are over the limit of 16384"):
        after(full, {"rules": {"99999": one}})
    assert len(after(full, {"rules": {"99999": one, "1": None}}).rules) == MAX_RULES


# -- bad objects in a good message ------------------------------------------------------------------------


def test_a_bad_object_keeps_its_last_good_version(state: DesiredState) -> None:
    """Of each kind: the old one is in force, it is reported, and its neighbour in the message is applied."""
    id = vnic_id("a")
    new = after(
        state,
        {"rules": {"1": BAD, "2": rule("reject")}, "groups": {"web": BAD_GROUP}, "vnics": {id: BAD}},
    )
    assert names(new) == {1: "allow from web", 2: "reject"}
    assert (new.groups, new.vnics) == (state.groups, state.vnics)
    assert refused(new) == [("groups", "web"), ("rules", "1"), ("vnics", id)]
    assert all(refusal.reason.endswith("its last good version stays in force") for refusal in new.refusals)


def test_a_bad_object_that_was_never_good_is_left_out(state: DesiredState) -> None:
    """There is nothing to keep; the reason names the field."""
    new = after(state, {"rules": {"5": BAD}, "groups": {"odd": BAD_GROUP}, "vnics": {vnic_id("x"): BAD}})
    assert (names(new), new.groups, new.vnics) == (names(state), state.groups, state.vnics)
    reasons = {refusal.kind: refusal.reason for refusal in new.refusals}
    assert "`section`" in reasons["rules"]
    assert "10.0.0.1/8" in reasons["groups"]
    assert "`name`" in reasons["vnics"]


def test_a_snapshot_keeps_the_last_good_version_too(state: DesiredState) -> None:
    """A rule that goes bad in a snapshot is as dangerous to lose as one that goes bad in a delta."""
    new = after(state, {"rules": {"2": BAD}, "groups": {"db": group()}}, Kind.SNAPSHOT)
    assert names(new) == {2: "drop to db"}
    assert refused(new) == [("rules", "2")]


def test_a_refusal_stays_until_the_object_is_good_or_gone(state: DesiredState) -> None:
    """Other messages do not forget it; mending or deleting the object does."""
    bad = after(state, {"rules": {"5": BAD, "6": BAD}})
    bad = after(bad, {"vnics": {vnic_id("b"): vnic("10.0.0.3")}})
    assert refused(bad) == [("rules", "5"), ("rules", "6")]
    mended = after(bad, {"rules": {"5": rule("drop"), "6": None}})
    assert refused(mended) == []
    assert 5 in mended.rules


@pytest.mark.parametrize(
    "id", ["", "0", "-1", "01", "1.0", "x", " 1", "1\n", "4294967296", "99999999999", "٣"]
)
def test_a_rule_needs_a_number(state: DesiredState, id: str) -> None:
    """Counters and events carry rule ids as 32-bit numbers; anything else is refused under the id it came
    with."""
    new = after(state, {"rules": {id: rule("drop")}})
    assert refused(new) == [("rules", id)]
    assert names(new) == names(state)
    assert refused(after(new, {"rules": {id: None}})) == []


@pytest.mark.parametrize("id", ["", "a", "{00000000-0000-0000-0000-000000000001}", "0" * 32])
def test_a_vnic_needs_a_uuid(state: DesiredState, id: str) -> None:
    """Names are labels; a vNIC is known by its UUID, in the one form."""
    assert refused(after(state, {"vnics": {id: vnic("10.0.0.9")}})) == [("vnics", id)]


# -- groups that come and go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "named", ["allow from web,new", "allow to new", "allow from not new", "allow on new"]
)
def test_a_rule_that_names_an_unknown_group_waits_for_it(state: DesiredState, named: str) -> None:
    """Refused with the group's name while the last good version stays; in force as soon as the group
    comes."""
    waiting = after(state, {"rules": {"1": rule(named), "5": rule(named)}})
    assert names(waiting) == names(state)
    assert {refusal.id: "groups: new unknown" in refusal.reason for refusal in waiting.refusals} == {
        "1": True,
        "5": True,
    }
    there = after(waiting, {"groups": {"new": group()}})
    assert (there.rules[1].name, there.rules[5].name, there.refusals) == (named, named, ())


def test_a_rule_whose_group_goes_is_left_out(state: DesiredState) -> None:
    """Also in the message that deletes the group; an older version that can do without it does."""
    gone = after(state, {"groups": {"db": None}})
    assert (names(gone), refused(gone)) == ({1: "allow from web"}, [("rules", "2")])
    same = after(
        state, {"groups": {"db": None}, "rules": {"1": rule("allow from db"), "6": rule("drop to db")}}
    )
    assert (names(same), refused(same)) == ({1: "allow from web"}, [("rules", id) for id in "126"])


def test_a_vnic_that_names_an_unknown_group_waits_for_it(state: DesiredState) -> None:
    """A vNIC with half its groups would be open where a drop rule names the other half."""
    waiting = after(
        state, {"vnics": {vnic_id("a"): vnic("10.0.0.7 web new"), vnic_id("b"): vnic("10.0.0.3 new")}}
    )
    assert waiting.vnics == state.vnics
    assert len(waiting.refusals) == 2
    there = after(waiting, {"groups": {"new": group()}})
    assert there.vnics[vnic_id("a")].groups == ("web", "new")
    assert (there.vnics.keys(), there.refusals) == ({vnic_id("a"), vnic_id("b")}, ())
    gone = after(there, {"groups": {"web": None}})
    assert gone.vnics.keys() == {vnic_id("b")}


def test_a_bad_group_is_unknown_only_if_it_was_never_good(state: DesiredState) -> None:
    """Rules go on with the last good version of a group."""
    assert names(after(state, {"groups": {"web": BAD_GROUP}})) == names(state)
    new = after(state, {"groups": {"odd": BAD_GROUP}, "rules": {"5": rule("drop from odd")}})
    assert refused(new) == [("groups", "odd"), ("rules", "5")]


def test_what_a_message_does_not_touch_is_the_same_object(state: DesiredState) -> None:
    """The compiler tells by identity what changed, also when a group nobody names comes or the message is
    void."""
    changes: list[Objects] = [{}, {"groups": {"more": group()}}, {"rules": {"1": rule("allow from web", 1)}}]
    for change in changes:
        new = after(state, change)
        assert new.rules is state.rules
        assert new.vnics is state.vnics
        assert all(new.groups[id] is state.groups[id] for id in state.groups)


def test_every_field_of_every_kind_is_checked(state: DesiredState) -> None:
    """An unknown field, a field missing, a wrong type: each refuses the object, none the message."""
    good: dict[str, tuple[str, dict[str, Any]]] = {
        "rules": ("5", msgspec.to_builtins(rule("drop from web service tcp/80 on web logged"))),
        "groups": ("web", msgspec.to_builtins(group("10.0.0.1"))),
        "vnics": (vnic_id("a"), msgspec.to_builtins(vnic("10.0.0.1 web segment=3"))),
    }
    for kind, (id, fields) in good.items():
        assert refused(after(state, {kind: {id: fields}})) == []
        for name in fields:
            for wrong in (1.5, [[1.5]], {"odd": 1}):
                assert refused(after(state, {kind: {id: fields | {name: wrong}}})) == [(kind, id)], (
                    name,
                    wrong,
                )
        assert refused(after(state, {kind: {id: fields | {"more": 1}}})) == [(kind, id)]
        assert refused(after(state, {kind: {id: [fields]}})) == [(kind, id)]


def test_more_lines_than_a_host_holds_are_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule is a line for each set of source ports it has."""
    monkeypatch.setattr("vsfwd.policy.desired.MAX_RULES", 3)
    state = policy(["allow service tcp/80@1,tcp/81@2", "drop"])
    assert len(state.rules) == 2
    with pytest.raises(Refused, match="rules: 4 lines are over the limit of 3"):
        after(state, {"rules": {"2": rule("drop service tcp/80@1,udp")}})
