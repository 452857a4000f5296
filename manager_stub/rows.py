"""What the register holds as the store keeps it, and back: objects, claims, messages to send. Pure."""

import json
from collections.abc import Iterable, Mapping

from manager_stub.addresses import Claims
from manager_stub.levels import Outgoing, Position
from manager_stub.model import Entity
from manager_stub.plugged import Tenure, Tenures
from manager_stub.transaction import OutboxRow, Row
from manager_stub.world import MODELS, Claimed, Stored, kind_of
from vsfwd.protocol.envelope import Kind, Message
from vsfwd.protocol.messages import Source, is_host_address


def outbox_row(host: str, outgoing: Outgoing) -> OutboxRow:
    to, base, message = outgoing.position, outgoing.base, outgoing.message
    return OutboxRow(
        host,
        to.epoch,
        to.generation,
        to.digest,
        outgoing.kind,
        base.generation,
        base.digest,
        message.header,
        message.signature,
        message.body,
    )


def outgoing(row: OutboxRow) -> Outgoing:
    return Outgoing(
        Position(row.epoch, row.generation, row.digest),
        Kind(row.kind),
        Position(row.epoch, row.base, row.base_digest),
        Message(row.header, row.signature, row.body),
    )


def document_of(stored: Stored[Entity]) -> str:
    return json.dumps(
        stored.body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    )


def object_row(stored: Stored[Entity]) -> Row:
    return {
        "path": stored.path,
        "kind": kind_of(stored.path),
        "unique_id": stored.unique_id,
        "number": stored.number,
        "revision": stored.revision,
        "system_owned": stored.system_owned,
        "created_ms": stored.created_ms,
        "modified_ms": stored.modified_ms,
        "document": document_of(stored),
    }


def stored_object(row: Row) -> Stored[Entity]:
    body = MODELS[row["kind"]].model_validate(row["document"])
    return Stored(
        row["path"],
        body,
        row["unique_id"],
        row["number"],
        row["revision"],
        row["system_owned"],
        row["created_ms"],
        row["modified_ms"],
    )


def claims_by_vnic(rows: Iterable[Row]) -> Claims:
    """Without addresses that an earlier release took, and no vNIC can have."""
    claims: dict[str, dict[str, Claimed]] = {}
    for row in rows:
        if not is_host_address(row["address"]):
            continue
        claim = Claimed(
            Source(row["source"]),
            row["expires"],
            row["host"],
            row["first_seen_ms"],
            row["approved"],
            row["server"],
        )
        claims.setdefault(row["vnic"], {})[row["address"]] = claim
    return claims


def claim_rows(vnic: str, known: Mapping[str, Claimed]) -> list[Row]:
    return [{"vnic": vnic, "address": address, **vars(claim)} for address, claim in known.items()]


def tenures_of(rows: Iterable[Row]) -> dict[str, Tenure]:
    return {
        row["what"]: Tenure(tuple(json.loads(row["hosts"])), row["left_ms"], json.loads(row["raised"]))
        for row in rows
    }


def tenure_rows(tenures: Tenures, before: Tenures) -> list[Row]:
    """Those that are not as before."""
    return [
        {
            "what": what,
            "hosts": json.dumps(tenure.hosts),
            "left_ms": tenure.left_ms,
            "raised": json.dumps(dict(tenure.raised)),
        }
        for what, tenure in tenures.items()
        if before.get(what) != tenure
    ]
