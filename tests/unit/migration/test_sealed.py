"""O32: what a VM takes along opens at one host, for one round of one move, and only from the hand of its
source."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsfwd.identity import new_key
from vsfwd.migration.sealed import Bound, load_public, public_der, seal, unseal
from vsfwd.protocol.envelope import Refused

SOURCE, TARGET, STRANGER = new_key(), new_key(), new_key()
BOUND = Bound("move", "vm", "source", "target", 2)
SEALED = seal(b"state", BOUND, SOURCE, TARGET.public_key())


def test_the_target_reads_what_the_source_has_sealed() -> None:
    """Twice the same state never looks the same."""
    assert unseal(SEALED, BOUND, TARGET, SOURCE.public_key()) == b"state"
    assert seal(b"state", BOUND, SOURCE, TARGET.public_key()) != SEALED


@pytest.mark.parametrize("field", Bound._fields)
def test_o32_what_is_for_another_is_refused(field: str) -> None:
    """Another move, VM, source, target or round: replayed or re-addressed, it opens nowhere."""
    other = BOUND._replace(**{field: 3 if field == "round" else "other"})
    with pytest.raises(Refused, match="not signed by host"):
        unseal(SEALED, other, TARGET, SOURCE.public_key())


def test_o32_what_another_host_signs_is_refused() -> None:
    """It may know the target's key, as everybody does."""
    forged = seal(b"foreign", BOUND, STRANGER, TARGET.public_key())
    with pytest.raises(Refused, match="not signed by host source"):
        unseal(forged, BOUND, TARGET, SOURCE.public_key())


def test_o32_what_is_sealed_for_another_host_is_refused() -> None:
    """Though the right one has signed it."""
    with pytest.raises(Refused, match="not sealed to this host's key"):
        unseal(seal(b"state", BOUND, SOURCE, STRANGER.public_key()), BOUND, TARGET, SOURCE.public_key())


@settings(max_examples=60)
@given(at=st.integers(0), bit=st.integers(0, 7))
def test_o32_every_flipped_bit_is_refused(at: int, bit: int) -> None:
    """Of the signature as of what it is of."""
    spoilt = bytearray(SEALED)
    spoilt[at % len(spoilt)] ^= 1 << bit
    with pytest.raises(Refused, match=r"^state: "):
        unseal(bytes(spoilt), BOUND, TARGET, SOURCE.public_key())


@given(st.integers(0))
def test_o32_every_truncation_is_refused(at: int) -> None:
    """However much is missing."""
    with pytest.raises(Refused, match=r"^state: "):
        unseal(SEALED[: at % len(SEALED)], BOUND, TARGET, SOURCE.public_key())


def test_a_key_is_one_of_a_host_or_refused() -> None:
    """In the form in which an offer has it."""
    key = SOURCE.public_key()
    assert load_public(public_der(key), "source") == key
    with pytest.raises(Refused, match="key of the source"):
        load_public(b"no key", "source")
