"""The AsyncAPI document says what the code does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from vsfwd.protocol import asyncapi, topology
from vsfwd.protocol.components import KINDS
from vsfwd.protocol.messages import EVENTS

COMMITTED = Path(asyncapi.__file__).with_name("asyncapi.json")


def test_everything_a_host_says_and_hears_is_in_it() -> None:
    """Every key has its channel, on its exchange, and a message whose body has a schema."""
    document = asyncapi.document()
    routes = {
        (channel["bindings"]["amqp"]["exchange"]["name"], channel["address"])
        for channel in document["channels"].values()
    }
    host = asyncapi.HOST
    assert routes == {
        (topology.COMMANDS, topology.policy_key(host)),
        (topology.COMMANDS, topology.app_key(host)),
        *((topology.EVENTS, topology.event_key(host, kind)) for kind in (*EVENTS, *KINDS, topology.MOVE)),
    }
    assert {operation["action"] for operation in document["operations"].values()} == {"send", "receive"}


def test_every_reference_leads_somewhere() -> None:
    """Whoever generates code from it finds what it names."""
    document = asyncapi.document()
    for reference in references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_the_readme_names_every_kind() -> None:
    """And every queue and exchange."""
    text = COMMITTED.with_name("README.md").read_text()
    names = (
        topology.COMMANDS,
        topology.EVENTS,
        topology.DEAD,
        topology.MANAGER_QUEUE,
        topology.COMPONENT_QUEUE,
        topology.MOVE_QUEUE,
    )
    assert [name for name in names if f"`{name}`" not in text] == []
    assert [kind for kind in (*EVENTS, *KINDS, topology.MOVE) if f".{kind}`" not in text] == []


def references(value: Any) -> Iterator[str]:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(each)
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"]


def test_it_is_plain_json() -> None:
    """As any language reads it."""
    assert msgspec.json.decode(COMMITTED.read_bytes())["asyncapi"] == "3.0.0"
