"""Whether a condition of a group holds for a name or for tags. Pure.

Letters are compared without their case: tags differ by it, groups do not ask (NSX Administration Guide, "Add
a Group"). What is unknown meets no condition, not even a negative one.
"""

from manager_stub.model import Condition, Tag, pattern


def meets(condition: Condition, name: str | None, tags: list[Tag]) -> bool:
    scope, value = condition.asked
    if condition.key != "Tag":
        return name is not None and _holds(condition.operator or "EQUALS", name, value)
    operator, negative = _positive(condition.operator or "EQUALS")
    if not value and condition.scope_operator == "NOTEQUALS":
        return not any(_holds("EQUALS", tag.scope, scope) for tag in tags)
    differs = condition.scope_operator == "NOTEQUALS"
    found = any(
        (not scope or _holds("EQUALS", tag.scope, scope) != differs)
        and (not value or _holds(operator, tag.tag, value))
        for tag in tags
    )
    return found != negative


def _positive(operator: str) -> tuple[str, bool]:
    """Of several tags none may be the one, where the operator denies."""
    match operator:
        case "NOTEQUALS":
            return "EQUALS", True
        case "NOTIN":
            return "IN", True
    return operator, False


def _holds(operator: str, text: str, value: str) -> bool:
    operator, negative = _positive(operator)
    if operator == "MATCHES":
        return pattern(value).fullmatch(text) is not None
    text, value = text.casefold(), value.casefold()
    match operator:
        case "EQUALS":
            found = text == value
        case "CONTAINS":
            found = value in text
        case "STARTSWITH":
            found = text.startswith(value)
        case "ENDSWITH":
            found = text.endswith(value)
        case "IN":
            found = text in (each.strip() for each in value.split(","))
        case _:
            raise ValueError(f"operator {operator!r}")
    return found != negative


def in_words(condition: Condition) -> str:
    words: list[str] = [condition.member_type, condition.key]
    if condition.scope_operator == "NOTEQUALS":
        words.append("scope NOTEQUALS,")
    return " ".join((*words, condition.operator or "EQUALS", repr(condition.value)))
