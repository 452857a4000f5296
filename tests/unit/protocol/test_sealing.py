"""Sealed secrets: the host they are for opens them, for the purpose they are for, and nobody else does."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.sealing import MAX_SECRET, OVERHEAD, open_secret, seal_secret

KEY = ec.generate_private_key(ec.SECP256R1())
HOST = "00000000-0000-4000-8000-000000000005"
OTHER = "00000000-0000-4000-8000-000000000006"
SECRET = b"-----BEGIN PRIVATE KEY-----"
PURPOSE = "control-plane"


def sealed(secret: bytes = SECRET) -> bytes:
    return seal_secret(KEY.public_key(), secret, host=HOST, purpose=PURPOSE)


@pytest.mark.parametrize("secret", [b"", SECRET, bytes(MAX_SECRET)], ids=["empty", "a key", "the largest"])
def test_a_host_opens_what_was_sealed_to_its_key(secret: bytes) -> None:
    """Whatever its length, up to the limit; what travels is longer by a constant."""
    wire = sealed(secret)
    assert open_secret(KEY, wire, host=HOST, purpose=PURPOSE) == secret
    assert len(wire) == len(secret) + OVERHEAD


def test_the_secret_does_not_stand_in_what_travels() -> None:
    """And the same secret never travels as the same bytes: who reads along does not learn that it stayed."""
    first, second = sealed(), sealed()
    assert SECRET not in first
    assert first != second


def test_another_key_opens_nothing() -> None:
    """A host that takes another's message, and this one's own key of an earlier certificate."""
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Refused, match="not sealed to this host's key"):
        open_secret(other, sealed(), host=HOST, purpose=PURPOSE)


@pytest.mark.parametrize(("host", "purpose"), [(OTHER, PURPOSE), (HOST, "context")])
def test_what_is_for_another_host_or_purpose_does_not_open(host: str, purpose: str) -> None:
    """Whoever moves a sealed secret into another message moves nothing."""
    with pytest.raises(Refused):
        open_secret(KEY, sealed(), host=host, purpose=purpose)


def test_where_the_host_s_name_ends_and_the_purpose_begins_is_certain() -> None:
    """Two pairs that read the same one after the other are two."""
    wire = seal_secret(KEY.public_key(), SECRET, host="a", purpose="bc")
    with pytest.raises(Refused):
        open_secret(KEY, wire, host="ab", purpose="c")


@pytest.mark.parametrize("place", [0, 1, 64, 65, OVERHEAD + len(SECRET) - 1])
def test_one_flipped_bit_is_refused(place: int) -> None:
    """In the sender's point, in the text, in the tag."""
    wire = bytearray(sealed())
    wire[place] ^= 1
    with pytest.raises(Refused):
        open_secret(KEY, bytes(wire), host=HOST, purpose=PURPOSE)


@pytest.mark.parametrize("wire", [b"", b"\0" * (OVERHEAD - 1), b"\x04" + bytes(200)])
def test_what_is_no_sealed_secret_is_refused(wire: bytes) -> None:
    """Nothing, too little, and a point that is not on the curve."""
    with pytest.raises(Refused):
        open_secret(KEY, wire, host=HOST, purpose=PURPOSE)


def test_what_is_too_large_is_refused_on_both_sides() -> None:
    """Before any work is done on it."""
    with pytest.raises(ValueError, match="over the limit"):
        sealed(bytes(MAX_SECRET + 1))
    with pytest.raises(Refused, match="over the limit"):
        open_secret(KEY, bytes(MAX_SECRET + OVERHEAD + 1), host=HOST, purpose=PURPOSE)
