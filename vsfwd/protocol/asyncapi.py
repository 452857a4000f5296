"""The protocol as an AsyncAPI 3.0 document, made from the code that reads and writes it: asyncapi.json.

For people and tools that speak with a manager or a host without this code. It says what README.md says of
exchanges, keys and messages, as far as AsyncAPI has words for it; signatures and order it has not. Pure.
"""

import inspect
from typing import Any, Final, get_args

import msgspec

from vsfwd.policy.model import type_of
from vsfwd.protocol import migration, topology
from vsfwd.protocol.components import KINDS as COMPONENT_KINDS
from vsfwd.protocol.envelope import HEADER, SIGNATURE, Header
from vsfwd.protocol.messages import EVENTS, KINDS, Changes, Request
from vsfwd.protocol.order import REQUEST, Order

HOST: Final = "{host}"
_SCHEMA: Final = "#/components/schemas/{name}"
_ORDERS: Final[dict[str, type[msgspec.Struct]]] = {REQUEST: Request, **COMPONENT_KINDS}
_REPORTS: Final[dict[str, type[msgspec.Struct]]] = {**EVENTS, **COMPONENT_KINDS}

_MOVES: Final[tuple[type[msgspec.Struct], ...]] = get_args(migration.Move)
"""What is said of moves, in MessagePack."""

Json = dict[str, Any]


def document() -> Json:
    """As a host sees it: it receives what `vsfw.cmd` carries, and sends what `vsfw.evt` does."""
    schemas = _schemas()
    messages = {"policy": _signed("policy", Changes, Header)}
    messages |= {f"order.{kind}": _signed(kind, type_, Order) for kind, type_ in _ORDERS.items()}
    messages |= {f"report.{kind}": _message(kind, type_) for kind, type_ in _REPORTS.items()}
    messages |= {"order.move": _move() | _signatures(Order), "report.move": _move()}
    channels = {
        "policy": _channel(topology.policy_key(HOST), topology.COMMANDS, ["policy"]),
        "app": _channel(
            topology.app_key(HOST), topology.COMMANDS, [f"order.{kind}" for kind in (*_ORDERS, topology.MOVE)]
        ),
        **{
            f"report.{kind}": _channel(topology.event_key(HOST, kind), topology.EVENTS, [f"report.{kind}"])
            for kind in (*_REPORTS, topology.MOVE)
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "vsfwd, between a manager and its hosts",
            "version": "1",
            "description": "README.md beside this file says what is not in it: who may do what, what is "
            "signed, in which order messages count, and what becomes of a bad one.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{broker}",
                "protocol": "amqps",
                "protocolVersion": "0-9-1",
                "pathname": f"/{topology.VHOST}",
                "variables": {"broker": {"description": "HOST:PORT of one of the host's broker_urls"}},
                "security": [{"type": "X509", "description": "SASL EXTERNAL, the certificate of enrolment"}],
            }
        },
        "channels": channels,
        "operations": {
            name: {
                "action": "receive" if name in ("policy", "app") else "send",
                "channel": {"$ref": f"#/channels/{name}"},
            }
            for name in channels
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel(address: str, exchange: str, messages: list[str]) -> Json:
    return {
        "address": address,
        "parameters": {"host": {"description": "UUID that the manager gave the host"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": exchange,
                    "type": "topic",
                    "durable": True,
                    "autoDelete": False,
                    "vhost": topology.VHOST,
                },
                "bindingVersion": "0.3.0",
            }
        },
    }


def _message(kind: str, type_: type[msgspec.Struct]) -> Json:
    return {
        "name": kind,
        "summary": _said(type_),
        "contentType": "application/json",
        "payload": {"$ref": _SCHEMA.format(name=type_.__name__)},
    }


def _move() -> Json:
    """One of several."""
    return {
        "name": topology.MOVE,
        "summary": "A VM changes its host",
        "contentType": "application/msgpack",
        "payload": {"oneOf": [{"$ref": _SCHEMA.format(name=type_.__name__)} for type_ in _MOVES]},
    }


def _signed(kind: str, type_: type[msgspec.Struct], header: type[msgspec.Struct]) -> Json:
    return _message(kind, type_) | _signatures(header)


def _signatures(header: type[msgspec.Struct]) -> Json:
    """Header and signature stand in the message's headers, each as bytes."""
    inside = {
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": _SCHEMA.format(name=header.__name__)},
    }
    headers = {
        "type": "object",
        "required": [HEADER, SIGNATURE],
        "properties": {
            HEADER: {"type": "string", **inside},
            SIGNATURE: {"type": "string", "description": "Ed25519, 64 bytes, over the header"},
        },
    }
    return {"headers": headers}


def _schemas() -> Json:
    types = [Header, Order, Changes, *_ORDERS.values(), *EVENTS.values(), *_MOVES, *type_of.values()]
    _, schemas = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_SCHEMA)
    for kind in KINDS:
        # The code leaves objects raw until each is read by itself.
        object = {"$ref": _SCHEMA.format(name=type_of[kind].__name__)}
        schemas["Changes"]["properties"][kind]["additionalProperties"] = {"anyOf": [object, {"type": "null"}]}
    return dict(sorted(schemas.items()))


def _said(type_: type[msgspec.Struct]) -> str:
    """The first sentence of its docstring."""
    return " ".join((inspect.getdoc(type_) or "").split()).split(". ")[0].rstrip(".")


def text() -> str:
    return msgspec.json.format(msgspec.json.encode(document()), indent=1).decode() + "\n"
