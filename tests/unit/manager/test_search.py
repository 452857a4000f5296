"""Search queries: what they find, and which are none."""

import time

import pytest

from manager_stub.search import MAX_DEPTH, MAX_QUERY, MAX_TERMS, MAX_WILDCARDS, BadQuery, parse

GROUP = {
    "resource_type": "Group",
    "id": "web-1",
    "display_name": "Web servers (old)",
    "_revision": 3,
    "_system_owned": False,
    "tags": [{"scope": "os/project", "tag": "a"}, {"scope": "tier", "tag": "web*"}],
    "expression": [{"key": "Tag", "value": "tier|web"}],
}


@pytest.mark.parametrize(
    "query",
    [
        "resource_type:Group",
        "resource_type:group AND tags.scope:tier AND tags.tag:a",
        "tags.scope:os\\/project",
        'display_name:"Web servers (old)"',
        "id:(x OR web-1)",
        "id:(x OR y) OR _revision:3",
        "NOT id:x NOT id:y",
        "id:web-?",
        "id:*",
        "tags.tag:web\\*",
        'tags.tag:"web*"',
        "tags.tag:w*\\*",
        "id:W?B-*",
        "expression.value:tier|web",
        "_system_owned:false",
        "web-1",
    ],
)
def test_a_query_finds_what_it_describes(query: str) -> None:
    """Fields, also of lists; AND, OR, NOT; values in parentheses, quoted, escaped, with wildcards."""
    assert parse(query)(GROUP)


@pytest.mark.parametrize(
    "query",
    [
        "resource_type:Service",
        "resource_type:Group AND id:x",
        "tags.scope:a",
        "id:web",
        "id:web-1?",
        "tags.tag:web\\?",
        "id:w.b*",
        "id:*-[1]",
        "NOT id:web-1",
        "no.such.field:*",
        "servers",
    ],
)
def test_a_query_does_not_find_what_is_otherwise(query: str) -> None:
    """Values are matched whole; a field that is not there has none."""
    assert not parse(query)(GROUP)


@pytest.mark.parametrize(
    "query",
    [
        *("", "(", "id:(a", "id:", "AND", "id:a AND", ")", '"', "id:a)", "NOT", "\\"),
        "x" * (MAX_QUERY + 1),
        "(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1),
        "NOT " * (MAX_DEPTH + 1) + "a",
        "a " * (MAX_TERMS + 1),
        f"id:({' OR '.join('a' * (MAX_TERMS + 1))})",
        "id:" + "*a" * (MAX_WILDCARDS + 1),
    ],
)
def test_what_is_no_query_is_refused(query: str) -> None:
    """Cut off, without operands, not closed, too long, nested too deep, too many terms or wildcards."""
    with pytest.raises(BadQuery):
        parse(query)


def test_wildcards_cannot_be_made_slow() -> None:
    """The pattern that makes a backtracking matcher take for ever: as long as any other."""
    begin = time.thread_time()
    assert not parse("id:" + "*a" * MAX_WILDCARDS + "b")({"id": "a" * 100_000})
    assert time.thread_time() - begin < 2.0
