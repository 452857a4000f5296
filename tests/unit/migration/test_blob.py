"""O32, O36: a round of a VM's state as bytes: small, whole, versioned; anything else is refused."""

import hashlib
import re
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.flows import realistic_flows
from vsfwd.migration import blob
from vsfwd.migration.state import FLOW, KEY, PINHOLE, SIDE, Learned, VmState, VnicState
from vsfwd.protocol.envelope import Refused
from vsfwd.protocol.messages import Source

VM = "00000000-0000-4000-8000-00000000000a"
VNIC = "00000000-0000-4000-8000-000000000001"
TWIN = "00000000-0000-4000-8000-000000000002"
GOLDEN = Path(__file__).parent / "version1.blob"


def pinholes() -> np.ndarray:
    rows = np.zeros(2, PINHOLE)
    rows["key"], rows["rule"], rows["left_ms"] = realistic_flows(2)["key"], 1001, 30_000
    return rows


def state(flows: int = 50, seed: int = 1) -> VmState:
    gone = realistic_flows(3, seed + 1)["key"].copy()
    learned = (Learned("10.0.0.5", Source.ARP), Learned("fd00::5", Source.DHCPV6, 600, "02:00:00:00:00:01"))
    first = VnicState(VNIC, realistic_flows(flows, seed), gone, pinholes(), learned)
    return VmState(VM, 1, True, 3, 44, [first, VnicState(TWIN)])


def plain() -> VmState:
    """What `version1.blob` was made of: every field has another value."""
    flows, ended, pinhole = np.zeros(2, FLOW), np.zeros(1, KEY), np.zeros(1, PINHOLE)
    for keys, first in ((flows["key"], 1), (ended, 3), (pinhole["key"], 4)):
        for number, key in enumerate(keys, first):
            key["remote"], key["local"] = np.arange(16) + number, np.arange(16) + 100 * number
            key["remote_port"], key["local_port"], key["vlan"] = 1000 + number, 2000 + number, number
            key["protocol"] = (6, 17)[number % 2]
    flows["key"]["protocol"], flows["state"] = (6, 17), (3, 10)
    flows["left_ms"], flows["rule"], flows["initiator"], flows["answered"] = (43e6, 30e3), (7, 8), (1, 0), 1
    flows["existing"], flows["stale"], flows["side"]["scale"] = (1, 2), (0, 1), ((0x87, 0x8E), (0, 0))
    pinhole["left_ms"], pinhole["rule"] = 29_000, 9
    for number, field in enumerate(("end", "limit", "acked", "window", "speech")):
        flows["side"][field] = np.array([[1, 2], [3, 4]]) << (0 if field == "speech" else 4 * number)
    flows["packets"], flows["bytes"] = ((1, 2), (3, 4)), ((10**12, 6), (7, 8))
    learned = (Learned("10.0.0.5", Source.DHCP, 600, "02:00:00:00:00:01"),)
    return VmState(VM, 5, True, 3, 44, [VnicState(VNIC, flows, ended, pinhole, learned), VnicState(TWIN)])


def assert_same(one: VmState, other: VmState) -> None:
    assert one[:5] == other[:5]
    for mine, theirs in zip(one.vnics, other.vnics, strict=True):
        assert (mine.vnic, mine.learned) == (theirs.vnic, theirs.learned)
        for a, b in zip(mine[1:4], theirs[1:4], strict=True):
            assert a.tobytes() == b.tobytes()


def whole(content: bytes, version: int = blob.VERSION) -> bytes:
    """Any fields as a blob whose digest is right."""
    body = zstandard.compress(content)
    return b"vsfm" + bytes([version]) + hashlib.sha256(body).digest() + body


def content_of(encoded: bytes) -> bytes:
    return zstandard.decompress(encoded[37:])


@pytest.mark.parametrize("flows", [0, 1, 2, 255, 1000])
def test_what_is_encoded_is_decoded(flows: int) -> None:
    """Every field of every flow, pinhole, ended flow and learned address, of all vNICs."""
    assert_same(blob.decode(blob.encode(state(flows))), state(flows))


@given(st.lists(st.binary(min_size=FLOW.itemsize, max_size=FLOW.itemsize), max_size=8))
def test_any_flow_comes_back_as_it_was_or_not_at_all(rows: list[bytes]) -> None:
    """Random bytes for flows: those no datapath writes are refused, others return bit by bit."""
    flows = np.frombuffer(b"".join(rows), FLOW).copy()
    sent = VmState(VM, 0, False, 0, 0, [VnicState(VNIC, flows)])
    with suppress(Refused):
        assert_same(blob.decode(blob.encode(sent)), sent)


def test_o36_a_realistic_table_takes_less_than_80_bytes_a_flow() -> None:
    """10,000 flows of mixed addresses, ports and counters, on the wire."""
    size = len(blob.encode(VmState(VM, 0, False, 1, 1, [VnicState(VNIC, realistic_flows(10_000))])))
    assert size / 10_000 <= 80


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_o32_every_flipped_bit_is_refused(at: int, bit: int) -> None:
    """Wherever it is."""
    spoilt = bytearray(blob.encode(state(20)))
    spoilt[at % len(spoilt)] ^= 1 << bit
    with pytest.raises(Refused, match=r"^state: "):
        blob.decode(bytes(spoilt))


@given(st.integers(0))
def test_o32_every_truncation_is_refused(at: int) -> None:
    """However much is missing."""
    encoded = blob.encode(state(20))
    with pytest.raises(Refused, match=r"^state: "):
        blob.decode(encoded[: at % len(encoded)])


@given(st.integers(0), st.binary(max_size=6))
def test_o32_fields_that_are_spoilt_under_a_right_digest_are_refused_or_read(at: int, junk: bytes) -> None:
    """Whoever exports may be wrong: whatever the fields say, there is a state or a refusal, and no other
    end."""
    content = content_of(blob.encode(state(5)))
    at %= len(content)
    with suppress(Refused):
        blob.decode(whole(content[:at] + junk + content[at + len(junk) :]))


def test_o31_another_version_is_refused_by_its_number() -> None:
    """Also when all else is right."""
    with pytest.raises(Refused, match="format is version 2, this vsfwd knows version 1"):
        blob.decode(whole(content_of(blob.encode(state())), version=2))


def test_o36_fields_nobody_knows_are_passed_over() -> None:
    """A later vsfwd may say more, of the move and of a vNIC."""
    content = content_of(blob.encode(VmState(VM, 0, False, 1, 2, [VnicState(VNIC, realistic_flows(3))])))
    more = struct.pack("<HI", 999, 5) + b"later"
    at = content.index(struct.pack("<H", 2))
    type_, size = struct.unpack_from("<HI", content, at)
    longer = (
        more
        + content[:at]
        + struct.pack("<HI", type_, size + len(more))
        + content[at + 6 :]
        + more
        + more[:0]
    )
    assert len(blob.decode(whole(longer)).vnics[0].flows) == 3


def test_o36_a_blob_of_version_1_is_read_for_ever() -> None:
    """One that was made when the format was new: hosts are upgraded one by one."""
    assert_same(blob.decode(GOLDEN.read_bytes()), plain())


def test_o36_the_numbers_in_it_are_those_of_the_kernel() -> None:
    """Types of fields have the sizes of types.h, whose numbers go onto the wire as they are: another number
    is another version."""
    types = (Path(__file__).parents[3] / "bpf/types.h").read_text()
    states = re.search(r"enum state \{(.*?)\};", types, re.DOTALL)
    assert states
    of_flows = "NONE SYN_SENT SYN_RECV ESTABLISHED CLOSING_INITIATOR CLOSING_RESPONDER FIN_WAIT CLOSED"
    assert re.findall(r"STATE_(\w+),", states[1])[:12] == f"{of_flows} FIRST SINGLE MULTIPLE ECHO".split()
    assert re.findall(r"\tEXISTING_(\w+),", types) == ["RECHECK", "KEEP", "CUT"]
    assert re.findall(r"\tDIRECTION_(\w+),", types) == ["IN", "OUT"]
    assert re.findall(r"\tSPEECH_(\w+),", types) == [
        "NONE",
        "FTP_CLIENT",
        "FTP_SERVER",
        "TFTP_CLIENT",
        "DHCP",
    ]
    assert (KEY.itemsize, SIDE.itemsize) == (40, 16)


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", 12), ("state", 0), ("initiator", 2), ("answered", 2), ("existing", 3), ("stale", 2)],
)
def test_a_flow_that_no_datapath_writes_is_refused(field: str, value: int) -> None:
    """With its number and field; the others are refused with it."""
    flows = realistic_flows(5)
    flows[field][3] = value
    with pytest.raises(Refused, match=f"{field} of number 3"):
        blob.decode(blob.encode(VmState(VM, 0, False, 1, 1, [VnicState(VNIC, flows)])))


def test_a_state_of_udp_is_none_of_tcp() -> None:
    """What the programs would make of it, nobody knows."""
    flows = realistic_flows(5)
    flows["state"] = np.where(flows["key"]["protocol"] == 6, 10, 3)
    with pytest.raises(Refused, match="state of number 0"):
        blob.decode(blob.encode(VmState(VM, 0, False, 1, 1, [VnicState(VNIC, flows)])))


def test_what_is_too_large_is_refused_before_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the source, and at the target by what the frame says of itself."""
    encoded = blob.encode(state(1000))
    monkeypatch.setattr(blob, "MAX_DECODED", 10_000)
    with pytest.raises(Refused, match="at most 10000 bytes"):
        blob.decode(encoded)
    with pytest.raises(Refused, match="over the limit of 10000"):
        blob.encode(state(1000))
    monkeypatch.setattr(blob, "MAX_BLOB", 9_000)
    with pytest.raises(Refused, match="over the limit"):
        blob.decode(encoded)
    monkeypatch.setattr(blob, "MAX_DECODED", 1_000_000)
    with pytest.raises(Refused, match="compressed, are over the limit of 9000"):
        blob.encode(state(1000))


def test_addresses_that_nobody_can_have_are_refused() -> None:
    """And more than a vNIC may be seen with."""
    for learned, why in (
        ((Learned("10.0.0.300", Source.ARP),), "300"),
        ((Learned("10.0.0.1", Source.ARP),) * 145, "145"),
        ((Learned("224.0.0.1", Source.ARP),), "224.0.0.1"),
        ((Learned("fe80::1%eth0", Source.ARP),), "eth0"),
        ((Learned("10.0.0.1", Source.DHCP, 2**53 - 1),), "4294967295"),
    ):
        with pytest.raises(Refused, match=why):
            blob.decode(blob.encode(VmState(VM, 0, False, 1, 1, [VnicState(VNIC, learned=learned)])))


def test_more_pinholes_than_a_vnic_has_places_are_refused() -> None:
    many = VnicState(VNIC, pinholes=np.repeat(pinholes(), 33))
    with pytest.raises(Refused, match="66 are over the limit of 64"):
        blob.decode(blob.encode(VmState(VM, 0, False, 1, 1, [many])))
