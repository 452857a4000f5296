"""What the components of a host and the manager say to each other. `vsfwd` carries it, by the app queue down
and under event keys of its own up, and knows no more of it than stands here.

Bodies are JSON objects, bounded so that no reader on the way has to be careful again. What the manager says
travels as an order (`order`), signed and with an end; what a host says is vouched for by the broker."""

import re
from math import isfinite
from typing import Any, Final

import msgspec

from vsfwd.protocol.envelope import Refused

MAX_BODY: Final = 16 * 1024
"""Bytes of a body, as JSON."""
MAX_DEPTH: Final = 16
MAX_ERROR: Final = 255
MAX_PATIENCE_S: Final = 60
"""The longest that anybody waits for an answer."""
MAX_MESSAGE: Final = 2 * MAX_BODY
"""Bytes of a message on the wire."""
_LARGEST_INTEGER: Final = 2**63

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_TOPIC: Final = re.compile(r"(?=.{1,64}\Z)[a-z][a-z0-9-]*(\.[a-z0-9-]+)*")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Body = dict[str, Any]


class ComponentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """To a component of the host, or from it. `answer_within_s`: it is a call, and whoever sent it waits for
    so long; 0: nobody does. The manager's messages are answered in any case: those that are no calls by
    vsfwd, that it gave them to the component."""

    id: str
    component: str
    topic: str
    body: Body
    answer_within_s: int = 0

    def __post_init__(self) -> None:
        _check_id(self.id)
        check_component(self.component)
        check_topic(self.topic)
        check_body(self.body)
        if not 0 <= self.answer_within_s <= MAX_PATIENCE_S:
            raise ValueError(f"answer_within_s: {self.answer_within_s} is not between 0 and {MAX_PATIENCE_S}")


class ComponentAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`id` is that of the message. `error` is empty when there is an answer, or when the message was given to
    the component."""

    id: str
    body: Body = {}
    error: str = ""

    def __post_init__(self) -> None:
        _check_id(self.id)
        check_body(self.body)
        if len(self.error) > MAX_ERROR or not self.error.isprintable():
            raise ValueError(f"error: at most {MAX_ERROR} characters, all of which can be printed")


ComponentEvent = ComponentMessage | ComponentAnswer
KINDS: Final[dict[str, type[ComponentEvent]]] = {"component": ComponentMessage, "answer": ComponentAnswer}
"""By the kind of an order, or in a host's key."""
KIND_OF: Final = {type_: kind for kind, type_ in KINDS.items()}


def decode(kind: str, message: bytes) -> ComponentEvent:
    """Raises Refused."""
    if kind not in KINDS:
        raise Refused(f"type: {kind!r} is unknown")
    if len(message) > MAX_MESSAGE:
        raise Refused(f"{kind}: {len(message)} bytes are over the limit of {MAX_MESSAGE}")
    try:
        return msgspec.json.decode(message, type=KINDS[kind])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(f"{kind}: {error}") from None


def check_component(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"component: {name[:64]!r} is not up to 32 small letters, digits and hyphens")


def check_topic(topic: str) -> None:
    if not _TOPIC.fullmatch(topic):
        raise ValueError(
            f"topic: {topic[:64]!r} is not words of small letters, digits and hyphens, with dots"
        )


def as_body(said: msgspec.Struct) -> Body:
    """As it is in JSON: `msgspec.to_builtins` would leave tuples, which are no lists."""
    body: Body = msgspec.json.decode(msgspec.json.encode(said))
    return body


def check_body(body: object) -> None:
    """Raises ValueError."""
    if not isinstance(body, dict):
        raise ValueError("body: not a JSON object")
    _check_value(body, 1)
    try:
        size = len(msgspec.json.encode(body))
    except UnicodeEncodeError:
        raise ValueError("body: not Unicode: half of a surrogate pair") from None
    if size > MAX_BODY:
        raise ValueError(f"body: {size} bytes are over the limit of {MAX_BODY}")


def _check_value(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"body: nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_value(each, depth + 1)
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError(f"body: {value} is not a number")
    elif isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
        raise ValueError("body: an integer of more than 64 bits")


def _check_id(id: str) -> None:
    if not _ID.fullmatch(id):
        raise ValueError(f"id: {id[:64]!r} is not a UUID in lower case")
