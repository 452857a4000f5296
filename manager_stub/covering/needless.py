"""Rules that never decide, and rules that nobody would miss, because of another one, or of several above,
that match all that they match. Rules are tried in the order of their places."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from manager_stub.covering.fields import Sets, by_value, covering, mask_of
from manager_stub.covering.together import Together
from vsfwd.policy.model import APPLICATION, Alg, Rule, Schedule


@dataclass(frozen=True)
class Covered:
    """`never`: rules that decide nothing, and the rule above that leaves them nothing; `together`: where it
    takes several. `spare`: rules without which the one named, below, decides the same. All of them can be
    taken out at once, and no verdict changes."""

    never: Mapping[int, int]
    spare: Mapping[int, int]
    together: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def covered(rules: Mapping[int, Rule], sets: Sets, check: Callable[[], None] = lambda: None) -> Covered:
    """`check` is called for each rule, and may end it by raising."""
    never, spare = dict[int, int](), dict[int, int]()
    together = dict[int, tuple[int, ...]]()
    for ethernet in (True, False):
        layer = [(id, rule) for id, rule in rules.items() if (rule.frames is not None) == ethernet]
        layer.sort(key=lambda item: (item[1].order, item[0]))
        ids, ordered = [id for id, _ in layer], [rule for _, rule in layer]
        covers = covering(ordered, sets, ethernet)
        hidden = _hidden(ordered, covers, Together(ordered, sets, ethernet), check)
        never |= {ids[place]: ids[by[0]] for place, by in hidden.items() if len(by) == 1}
        together |= {
            ids[place]: tuple(ids[each] for each in by) for place, by in hidden.items() if len(by) > 1
        }
        spare |= {ids[place]: ids[by] for place, by in _spare(ordered, covers, hidden).items()}
    return Covered(never, spare, together)


def _hidden(
    rules: Sequence[Rule], covers: Sequence[int], together: Together, check: Callable[[], None]
) -> dict[int, tuple[int, ...]]:
    """Places of rules that never decide, and of the rule that sees to it, or of the several that do. None of
    those is one of these."""
    enforced = mask_of(place for place, rule in enumerate(rules) if not rule.monitored)
    jumps = enforced & mask_of(place for place, rule in enumerate(rules) if rule.jumps)
    late = mask_of(place for place, rule in enumerate(rules) if _is_late(rule))
    # A late rule is sure of the late ones, and of those that stand before everything that could jump over
    # them.
    sure = (late | ((jumps & -jumps) - 1)) & ~jumps
    in_force = _in_force(rules)
    hidden, gone = dict[int, tuple[int, ...]](), 0
    for place, rule in enumerate(rules):
        check()
        above = ((1 << place) - 1) & enforced & ~gone & in_force[rule.schedule]
        if _is_late(rule):
            above &= sure
        one = above & covers[place]
        by = (_lowest(one),) if one else together.hide(place, above)
        if by:
            hidden[place] = by
            gone |= 1 << place
    return hidden


def _spare(rules: Sequence[Rule], covers: Sequence[int], hidden: Collection[int]) -> dict[int, int]:
    """Places of rules behind which another one decides the same, with none between that could say otherwise.
    From the last to the first, so that the other one stays."""
    enforced = mask_of(place for place, rule in enumerate(rules) if not rule.monitored)
    in_force, gone, spare = _in_force(rules), mask_of(hidden), dict[int, int]()
    end = last = len(rules)
    outcome: tuple[object, ...] | None = None
    for place in range(len(rules) - 1, -1, -1):
        rule = rules[place]
        if rule.monitored:
            continue
        if outcome not in (None, _outcome(rule)):
            end = last
        last, outcome = place, _outcome(rule)
        below = covers[place] & ((1 << end) - (1 << place + 1)) & enforced & ~gone & in_force[rule.schedule]
        if below and place not in hidden:
            spare[place] = _lowest(below)
            gone |= 1 << place
    return spare


def _outcome(rule: Rule) -> tuple[object, ...]:
    """What becomes of a packet that the rule decides, and of its flow."""
    return (rule.action, rule.tracking, rule.existing_flows, rule.logged, *map(rule.alg_port, Alg))


def _is_late(rule: Rule) -> bool:
    """Whether no rule jumps over it."""
    return rule.order >= (APPLICATION,)


def _in_force(rules: Sequence[Rule]) -> dict[Schedule | None, int]:
    """By schedule: rules that are in force whenever one with it is."""
    masks = by_value(rule.schedule for rule in rules)
    always = masks.get(None, 0)
    return {schedule: mask | always for schedule, mask in masks.items()}


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
