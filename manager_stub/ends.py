"""The two ends of a packet, as the inventory knows them: whose address it is, and what stands for a router.
Pure."""

from typing import Final

from manager_stub.span import Card, Realised

ROUTERS_MAC: Final = "00:00:00:00:00:00"
"""Stands for the MAC address of a router, which nobody knows here: no rule names it."""


def claimants(realised: Realised, address: str) -> list[Card]:
    return [realised.cards[vnic] for vnic in realised.claims.get(address, ())]


def owner(realised: Realised, address: str, near: Card) -> Card | None:
    """As `evaluate.owner_of`: the only vNIC that has it, or the only one of the segment it is seen from."""
    having = claimants(realised, address)
    if len(having) > 1:
        having = [card for card in having if near.segment and not are_apart(card, near)]
    return having[0] if len(having) == 1 else None


def are_apart(one: Card, other: Card) -> bool:
    """A router is between them. Whose segment nobody knows are together."""
    return _segment(one) != _segment(other)


def _segment(card: Card) -> str | None:
    return card.segment.path if card.segment else None
