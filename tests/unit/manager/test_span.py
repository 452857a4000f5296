"""Which host needs what: enough for the same verdicts as the whole policy, and no more than it asks for."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manager_stub.model import Entity
from manager_stub.span import NOTHING, Objects, Realised, realise
from manager_stub.world import MODELS, Stored, World, kind_of
from tests.harness.policies import after
from tests.harness.strategies import HOSTS, PREFIXES, packets
from vsfwd.policy.desired import DesiredState
from vsfwd.policy.evaluate import Packet, evaluate
from vsfwd.policy.model import Direction, Service
from vsfwd.protocol.envelope import Kind
from vsfwd.protocol.messages import KINDS

GROUPS = "/infra/domains/default/groups"
SECTIONS = "/infra/domains/default/security-policies"
SEGMENTS = ("/infra/segments/blue", "/infra/segments/red")
TAGS = ("web", "app", "db")
VNICS = tuple(f"22222222-0000-4000-8000-00000000000{number}" for number in range(5))


def stored(number: int, path: str, body: dict[str, Any]) -> Stored[Entity]:
    """Numbered and named by its place, so that two worlds that share objects agree on them."""
    return Stored(path, MODELS[kind_of(path)].model_validate(body), f"uid-{path}", number, 0, False, 0, 0)


def world(*objects: tuple[str, dict[str, Any]]) -> World:
    return World().changed([stored(number, path, body) for number, (path, body) in enumerate(objects, 1)], ())


def tagged(*tags: str) -> dict[str, Any]:
    """A group of the VMs with any of these tags."""
    expression: list[dict[str, Any]] = []
    for tag in tags:
        if expression:
            expression.append({"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"})
        expression.append(
            {
                "resource_type": "Condition",
                "member_type": "VirtualMachine",
                "key": "Tag",
                "operator": "EQUALS",
                "value": tag,
            }
        )
    return {"expression": expression}


def literal(*addresses: str) -> dict[str, Any]:
    return {"expression": [{"resource_type": "IPAddressExpression", "ip_addresses": list(addresses)}]}


def vm(
    number: int, tags: list[str], addresses: list[str], segment: str | None = None
) -> tuple[str, dict[str, Any]]:
    vnic = {"id": VNICS[number], "mac": f"02:00:00:00:00:0{number}", "addresses": addresses}
    if segment:
        vnic["segment_path"] = segment
    body = {"display_name": f"vm{number}", "tags": [{"tag": tag} for tag in tags], "vnics": [vnic]}
    return f"/vsfw/vms/11111111-0000-4000-8000-00000000000{number}", body


def path(name: str) -> str:
    return f"{GROUPS}/{name}"


def three_tiers(**rule: Any) -> World:
    """web, app and db with a VM each (slots 0, 1, 2), and one rule: to db from app, applied to db."""
    fields = {"source_groups": [path("app")], "destination_groups": [path("db")], "scope": [path("db")]}
    return world(
        *((path(tag), tagged(tag)) for tag in TAGS),
        (f"{SECTIONS}/s", {}),
        (f"{SECTIONS}/s/rules/r", {"action": "ALLOW", **fields, **rule}),
        *(vm(number, [tag], [f"10.0.0.{number + 1}"]) for number, tag in enumerate(TAGS)),
    )


def whole(realised: Realised) -> Objects:
    """Everything there is, with every membership."""
    everything = frozenset(realised.groups)
    return {
        "rules": {rule.id: rule.raw for rule in realised.rules.by_path.values()},
        "groups": realised.groups,
        "vnics": {vnic: card.raw(everything, here=True) for vnic, card in realised.cards.items()},
    }


def state(objects: Objects) -> DesiredState:
    """As a host reads it; nothing of it is refused."""
    read = after(DesiredState(), {kind: dict(objects[kind]) for kind in KINDS}, Kind.SNAPSHOT)
    assert read.refusals == ()
    return read


def test_a_host_gets_the_rules_of_its_vnics_and_the_members_they_need() -> None:
    """The host of db: the rule, its groups, db itself and app, whom the rule names, but not web."""
    needs = realise(three_tiers()).needs([VNICS[2]])
    assert len(needs["rules"]) == 1
    assert set(needs["groups"]) == {f"uid-{path('app')}", f"uid-{path('db')}"}
    assert set(needs["vnics"]) == {VNICS[1], VNICS[2]}


def test_a_host_without_a_vnic_in_scope_gets_no_rule() -> None:
    """The host of web gets its own vNIC and nothing else: no rule applies there, no membership is told."""
    needs = realise(three_tiers()).needs([VNICS[0]])
    assert (needs["rules"], needs["groups"], set(needs["vnics"])) == ({}, {}, {VNICS[0]})
    assert state(needs).vnics[VNICS[0]].groups == ()


def test_an_empty_host_needs_nothing() -> None:
    """Also when the one vNIC plugged there is one the inventory does not know."""
    empty = {"rules": {}, "groups": {}, "vnics": {}}
    assert realise(three_tiers()).needs([]) == empty
    assert realise(three_tiers()).needs(["22222222-0000-4000-8000-00000000000f"]) == empty


def test_a_disabled_rule_is_not_sent() -> None:
    """And what only it needed is not either."""
    needs = realise(three_tiers(disabled=True)).needs([VNICS[2]])
    assert (needs["rules"], set(needs["vnics"])) == ({}, {VNICS[2]})


def test_a_host_is_told_the_label_of_a_rule() -> None:
    """Its first 32 characters, as NSX logs them."""
    (rule,) = state(realise(three_tiers(tag="x" * 40)).needs([VNICS[2]])).rules.values()
    assert rule.log_label == "x" * 32


def test_members_of_a_scope_elsewhere_are_not_sent() -> None:
    """A group that only says where a rule applies has no members that other hosts must know."""
    objects = three_tiers(source_groups=["ANY"], destination_groups=["ANY"], scope=[path("app"), path("db")])
    assert set(realise(objects).needs([VNICS[2]])["vnics"]) == {VNICS[2]}


def test_a_scope_selects_by_address_too() -> None:
    """A vNIC with an address that the scope's group lists gets the rule; its neighbour does not."""
    objects = three_tiers(source_groups=["ANY"], destination_groups=["ANY"]).changed(
        [stored(3, path("db"), literal("10.0.0.1-10.0.0.2"))], ()
    )
    rules = [len(realise(objects).needs([vnic])["rules"]) for vnic in VNICS[:3]]
    assert rules == [1, 1, 0]


def test_who_claims_the_same_address_as_a_member_is_sent_as_well() -> None:
    """An address that two claim is nobody's: the host has to see both, or it would let one of them in."""
    rival = stored(9, *vm(3, [], ["10.0.0.2"]))
    needs = realise(three_tiers().changed([rival], ())).needs([VNICS[2]])
    assert set(needs["vnics"]) == {VNICS[1], VNICS[2], VNICS[3]}


def test_a_sections_scope_takes_the_place_of_its_rules() -> None:
    """NSX: applied-to of the section wins."""
    objects = three_tiers().changed([stored(9, f"{SECTIONS}/s", {"scope": [path("web")]})], ())
    assert realise(objects).needs([VNICS[2]])["rules"] == {}
    assert len(realise(objects).needs([VNICS[0]])["rules"]) == 1


def test_rules_stand_in_the_order_of_category_section_and_number() -> None:
    """Emergency before Application before the default section, whatever their numbers say."""
    objects = world(
        (f"{SECTIONS}/default-layer3-section", {"sequence_number": 0}),
        (f"{SECTIONS}/default-layer3-section/rules/z", {"action": "ALLOW", "sequence_number": 0}),
        (f"{SECTIONS}/app", {"sequence_number": 5}),
        (f"{SECTIONS}/app/rules/second", {"action": "ALLOW", "sequence_number": 2}),
        (f"{SECTIONS}/app/rules/first", {"action": "ALLOW", "sequence_number": 1}),
        (f"{SECTIONS}/late", {"sequence_number": 6}),
        (f"{SECTIONS}/late/rules/third", {"action": "ALLOW", "sequence_number": 0}),
        (f"{SECTIONS}/now", {"category": "Emergency", "sequence_number": 9}),
        (f"{SECTIONS}/now/rules/a", {"action": "ALLOW", "sequence_number": 9}),
        vm(0, [], []),
    )
    rules = state(realise(objects).needs([VNICS[0]])).rules
    names = [rule.name for _, rule in sorted(rules.items(), key=lambda item: (item[1].order, item[0]))]
    assert names == ["a", "first", "second", "third", "z"]


def test_what_does_not_concern_a_host_leaves_its_bytes_alone() -> None:
    """A tag that moves a VM between groups its host never hears of changes nothing there."""
    before = realise(three_tiers())
    moved = before.world.changed([stored(6, *vm(0, ["app", "other"], ["10.0.0.1"]))], ())
    after_change = realise(moved, before)
    assert after_change.needs([VNICS[0]]) == before.needs([VNICS[0]])
    assert after_change.needs([VNICS[2]]) != before.needs([VNICS[2]])
    assert after_change.needs([VNICS[2]])["rules"] is before.needs([VNICS[2]])["rules"]


def test_a_change_of_a_segment_reaches_the_groups_that_ask_for_it() -> None:
    """The segment gets the name the group waits for: its vNICs are members, also step by step."""
    red = {"resource_type": "Condition", "member_type": "Segment", "key": "Name", "operator": "EQUALS"}
    objects = world(
        (path("on-red"), {"expression": [{**red, "value": "red"}]}),
        (SEGMENTS[0], {"display_name": "blue"}),
        vm(0, [], [], SEGMENTS[0]),
    )
    before = realise(objects)
    renamed = realise(objects.changed([stored(2, SEGMENTS[0], {"display_name": "red"})], ()), before)
    assert (before.members, renamed.members) == (
        {f"uid-{path('on-red')}": frozenset()},
        {f"uid-{path('on-red')}": {VNICS[0]}},
    )


def test_a_change_of_a_service_reaches_the_rules_that_name_it() -> None:
    """The rule is sent anew with the new port; a rule with entries of its own stays as it was."""
    entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["80"]}
    objects = world(
        ("/infra/services/web", {"service_entries": [entry]}),
        (f"{SECTIONS}/s", {}),
        (f"{SECTIONS}/s/rules/named", {"action": "ALLOW", "services": ["/infra/services/web"]}),
        (f"{SECTIONS}/s/rules/inline", {"action": "ALLOW", "service_entries": [entry]}),
        vm(0, [], []),
    )
    entries = {"service_entries": [{**entry, "destination_ports": ["8000-8010"]}]}
    changed = realise(objects.changed([stored(1, "/infra/services/web", entries)], ()), realise(objects))
    rules = {rule.name: rule for rule in state(changed.needs([VNICS[0]])).rules.values()}
    assert rules["named"].services == (Service(6, ports=((8000, 8010),)),)
    assert rules["inline"].services == (Service(6, ports=((80, 80),)),)


# Random worlds

_addresses = st.lists(st.sampled_from(HOSTS), max_size=2, unique=True)
_tags = st.lists(st.sampled_from(TAGS), max_size=2, unique=True)
_names = st.sampled_from(("g0", "g1", "g2", "g3"))
_named = st.lists(_names.map(path), min_size=1, max_size=2, unique=True)
_ends = st.just(["ANY"]) | st.lists(
    _names.map(path) | st.sampled_from(PREFIXES), min_size=1, max_size=2, unique=True
)
_scope = st.just(["ANY"]) | _named
_group = _tags.map(lambda tags: tagged(*tags)) | st.sampled_from(PREFIXES).map(literal)


@st.composite
def _rules(draw: Callable[[Any], Any]) -> dict[str, Any]:
    sources, destinations = draw(_ends), draw(_ends)
    return {
        "action": draw(st.sampled_from(("ALLOW", "DROP", "REJECT"))),
        "direction": draw(st.sampled_from(("IN", "OUT", "IN_OUT"))),
        "ip_protocol": draw(st.sampled_from(("IPV4", "IPV6", "IPV4_IPV6"))),
        "source_groups": sources,
        "sources_excluded": sources != ["ANY"] and draw(st.booleans()),
        "destination_groups": destinations,
        "destinations_excluded": destinations != ["ANY"] and draw(st.booleans()),
        "scope": draw(_scope),
        "disabled": draw(st.integers(0, 5)) == 0,
        "sequence_number": draw(st.integers(0, 3)),
    }


@st.composite
def worlds(draw: Callable[[Any], Any]) -> World:
    """Four groups, two sections with a few rules, two segments, up to five VMs."""
    objects = [(path(name), draw(_group)) for name in ("g0", "g1", "g2", "g3")]
    for section in ("s0", "s1"):
        objects.append((f"{SECTIONS}/{section}", {"scope": draw(_scope)}))
        for number in range(draw(st.integers(0, 3))):
            objects.append((f"{SECTIONS}/{section}/rules/r{number}", draw(_rules())))
    objects += [(segment, {}) for segment in SEGMENTS]
    for number in range(draw(st.integers(1, 5))):
        segment = draw(st.sampled_from((None, *SEGMENTS)))
        objects.append(vm(number, draw(_tags), draw(_addresses), segment))
    return world(*objects)


@given(worlds(), st.sets(st.sampled_from(VNICS), min_size=1), st.lists(packets(), min_size=1, max_size=8))
def test_a_host_decides_as_the_whole_policy_would(world: World, here: set[str], sent: list[Packet]) -> None:
    """On every vNIC of the host, in and out: the same verdict by the same rule."""
    realised = realise(world)
    part, all_of_it = state(realised.needs(here)), state(whole(realised))
    for vnic in here & realised.cards.keys():
        for packet in sent:
            for direction in (Direction.IN, Direction.OUT):
                expected = evaluate(all_of_it, packet, vnic, direction)
                assert evaluate(part, packet, vnic, direction) == expected


@given(worlds(), worlds(), st.sets(st.sampled_from(VNICS)))
def test_a_world_realised_after_another_is_as_realised_from_nothing(
    first: World, second: World, here: set[str]
) -> None:
    """Whatever changed between the two, in one step: what is kept from the first is what is still right."""
    gone = {path for kind in first.kinds for path in first.kinds[kind]}
    put = [each for kind in second.kinds.values() for each in kind.values()]
    kept = [before if before == each else each for each in put for before in (first.get(each.path),)]
    step = first.changed(kept, gone - {each.path for each in put})
    incremental, fresh = realise(step, realise(first)), realise(step, NOTHING)
    assert whole(incremental) == whole(fresh)
    assert incremental.members == fresh.members
    assert incremental.needs(here) == fresh.needs(here)
