"""Whether a condition of a group holds for a name or for tags. Pure.

Letters are compared without their case: tags differ by it, groups do not ask (NSX Administration Guide, "Add
a Group"). What is unknown meets no condition, not even a negative one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from manager_stub.model import Condition, Tag, pattern


class Text(NamedTuple):
    raw: str
    folded: str


class Owner(NamedTuple):
    """What a condition asks about: of a VM, a segment, a vNIC, a cluster or a datacenter. `texts` by key;
    what is unknown is not there."""

    texts: Mapping[str, Text]
    tags: tuple[tuple[Text, Text], ...]


Asked = Callable[[Owner], bool]


def owner(texts: Mapping[str, str | None], tags: list[Tag]) -> Owner:
    known = {key: _text(text) for key, text in texts.items() if text is not None}
    return Owner(known, tuple((_text(tag.scope), _text(tag.tag)) for tag in tags))


def asked(condition: Condition) -> Asked:
    """The condition as a question: made once, asked of everybody."""
    scope, value = condition.asked
    operator, negative = _positive(condition.operator or "EQUALS")
    holds = _comparison(operator, value)
    if condition.key == "Tag":
        return _asked_of_tags(
            scope, holds if value else None, negative, condition.scope_operator == "NOTEQUALS"
        )

    def of_text(owner: Owner) -> bool:
        text = owner.texts.get(condition.key)
        return text is not None and holds(text) != negative

    return of_text


def _asked_of_tags(scope: str, holds: Callable[[Text], bool] | None, negative: bool, differs: bool) -> Asked:
    wanted = scope.casefold()
    if holds is None and differs:  # no tag of this scope at all
        return lambda owner: all(has.folded != wanted for has, _ in owner.tags)

    def of_tags(owner: Owner) -> bool:
        for has, tag in owner.tags:
            if (not wanted or (has.folded == wanted) != differs) and (holds is None or holds(tag)):
                return not negative
        return negative

    return of_tags


def _positive(operator: str) -> tuple[str, bool]:
    """Of several tags none may be the one, where the operator denies."""
    match operator:
        case "NOTEQUALS":
            return "EQUALS", True
        case "NOTIN":
            return "IN", True
    return operator, False


def _comparison(operator: str, value: str) -> Callable[[Text], bool]:
    folded = value.casefold()
    match operator:
        case "EQUALS":
            return lambda text: text.folded == folded
        case "CONTAINS":
            return lambda text: folded in text.folded
        case "STARTSWITH":
            return lambda text: text.folded.startswith(folded)
        case "ENDSWITH":
            return lambda text: text.folded.endswith(folded)
        case "IN":
            among = frozenset(each.strip() for each in folded.split(","))
            return lambda text: text.folded in among
        case "MATCHES":
            matches = pattern(value).fullmatch
            return lambda text: matches(text.raw) is not None
    raise ValueError(f"operator {operator!r}")


def _text(text: str) -> Text:
    return Text(text, text.casefold())


def in_words(condition: Condition) -> str:
    words: list[str] = [condition.member_type, condition.key]
    if condition.scope_operator == "NOTEQUALS":
        words.append("scope NOTEQUALS,")
    return " ".join((*words, condition.operator or "EQUALS", repr(condition.value)))
