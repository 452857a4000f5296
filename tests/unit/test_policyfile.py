"""Policy in files: read as it was meant, or not at all."""

import pytest

from vsfwd.policyfile import Unreadable, read, write


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
        ("p.yaml", "a: 1\nb: 2\na: 3\n", "p.yaml:3:1: 'a' is there twice"),
        ("p.yaml", "a: [{b: !!timestamp 2026-01-01}]\n", "p.yaml: a.0.b: datetime.date"),
        ("p.yaml", "a: {1: 2}\n", "p.yaml: a.1: a key is a text"),
        ("p.yaml", "a: !!python/object:os.system x\n", "p.yaml:1:4: could not determine a constructor"),
        ("p.yaml", "a: *b\n", "p.yaml:1:4: found undefined alias"),
        ("p.yaml", "a: \x07\n", "p.yaml: "),
        ("p.yaml", "", "p.yaml: not a policy"),
        ("p.yaml", "[]", "p.yaml: not a policy"),
        ("p.json", '{"a":' * 5000, "p.json: nested too deeply"),
        ("p.json", '{\n "a": 1,\n}', "p.json:3:1: "),
        ("p.json", '{"a": {"b": 1, "b": 2}}', "p.json: 'b' is there twice"),
        ("p.json", '{"a": NaN}', "p.json: a: nan is no value of a policy"),
    ],
)
def test_what_cannot_be_read_is_said_by_its_place(name: str, text: str, said: str) -> None:
    """File, line and column where there are any, else the keys."""
    with pytest.raises(Unreadable) as error:
        read(name, text)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
