"""Policy in files: read as it was meant, or not at all."""

from typing import Any

import pytest

from vsfwd.ctl.policyfile import MAX_DEPTH, Unreadable, read, write


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_what_was_written_is_read(name: str) -> None:
    """Also texts that look like something else, and the order of keys."""
    texts = [
        "12:30",
        "on",
        "1e3",
        "010",
        "null",
        "~",
        "2026-01-01",
        "10:20:30:40:50:60",
        "",
        " x ",
        "a: b",
        "ü\n",
    ]
    document = {"z": texts, "a": [{"id": text} for text in texts], "n": [1, True, None, {}, []]}
    text = write(document, as_json=name == "p.json")
    assert read(name, text) == document
    assert list(read(name, text)) == ["z", "a", "n"]


def test_words_and_addresses_need_no_quotes() -> None:
    """YAML 1.2: neither truth values nor numbers to base sixty."""
    text = "version: 1\nrules:\n- {id: on, at: 12:30, mac: 10:20:30:40:50:60, day: 2026-01-01}\n"
    assert read("p.yaml", text)["rules"] == [
        {"id": "on", "at": "12:30", "mac": "10:20:30:40:50:60", "day": "2026-01-01"}
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.yaml", "a: 1\nb: [2\nc: 3\n", "p.yaml:3:2: while parsing a flow sequence did not find expected"),
        ("p.yaml", "\n", "p.yaml: is empty"),
        ("p.json", "", "p.json: is empty"),
        ("p.yaml", "a: 1\nb: 2\na: 3\n", "p.yaml:3:1: 'a' is there twice"),
        ("p.yaml", "a: [{b: !!timestamp 2026-01-01}]\n", "p.yaml:1:9: tag:yaml.org,2002:timestamp: a tag;"),
        ("p.yaml", "a: !!timestamp foo\n", "p.yaml:1:4: tag:yaml.org,2002:timestamp: a tag;"),
        ("p.yaml", "a: !!bool foo\n", "p.yaml:1:4: tag:yaml.org,2002:bool: a tag; a policy has none"),
        ("p.yaml", "a: 1\nb: !own {}\n", "p.yaml:2:4: !own: a tag;"),
        ("p.yaml", "a: !!python/object:os.system x\n", "p.yaml:1:4: tag:yaml.org,2002:python/object:os"),
        ("p.yaml", "a: {1: 2}\n", "p.yaml:1:5: a key is a text; put it in quotes"),
        ("p.yaml", "? [a]\n: 1\n", "p.yaml:1:3: a key is a text"),
        ("p.yaml", "a: 1\n~: 2\n", "p.yaml:2:1: a key is a text"),
        ("p.yaml", "a: *b\n", "p.yaml:1:4: *b: an alias; write out"),
        ("p.yaml", "a: &x [*x]\n", "p.yaml:1:8: *x: an alias"),
        ("p.yaml", "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "p.yaml:2:8: *a: an alias"),
        ("p.yaml", "a: 1\nb: " + "[" * 40_000, "p.yaml:2:68: nested deeper than 64"),
        ("p.yaml", "{a: " * 40_000, "p.yaml:1:258: nested deeper than 64"),
        ("p.yaml", "a: 1\n---\nb: 2\n", "p.yaml:3:1: a second document"),
        ("p.yaml", f"a: {'9' * 5000}\n", "p.yaml: Exceeds the limit"),
        ("p.yaml", "a: \x07\n", "p.yaml: "),
        ("p.yaml", "", "p.yaml: is empty"),
        ("p.yaml", "[]", "p.yaml: not a policy"),
        ("p.json", '{"a":' * 5000, "p.json: nested too deeply"),
        ("p.json", '{"a":' * 500 + "1" + "}" * 500, "p.json: nested deeper than 64"),
        ("p.json", '{"a": ["\\ud800"]}', "p.json: a.0: half of a surrogate pair"),
        ("p.json", '{"\\ud800": 1}', "p.json: a key: half"),
        ("p.json", '{\n "a": 1,\n}', "p.json:3:1: "),
        ("p.json", '{"a": {"b": 1, "b": 2}}', "p.json: a.b: is there twice"),
        ("p.json", '{"a": [1, {"b": 1, "\\u0062": 2}]}', "p.json: a.1.b: is there twice"),
        ("p.json", '{"a": NaN}', "p.json: a: nan is no value of a policy"),
    ],
)
def test_what_cannot_be_read_is_said_by_its_place(name: str, text: str, said: str) -> None:
    """File, line and column where there are any, else the keys."""
    with pytest.raises(Unreadable) as error:
        read(name, text)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_one_of_many_keys_that_is_there_twice_is_found_at_once() -> None:
    """Each is counted once: forty thousand take no longer than reading them does."""
    keys = [f'"k{number}": 1' for number in range(40_000)]
    with pytest.raises(Unreadable, match="k39999: is there twice"):
        read("p.json", "{" + ", ".join([*keys, keys[-1]]) + "}")


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_what_the_manager_takes_is_not_too_deep(name: str) -> None:
    """Up to the same depth."""
    document: Any = 1
    for _ in range(MAX_DEPTH):
        document = {"a": document}
    assert read(name, write(document, as_json=name == "p.json")) == document
