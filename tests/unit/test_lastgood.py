"""Of policies on disk, in the kernel and in messages: which one counts."""

import pytest

from vsfwd.lastgood import NO_POLICY, Behind, check_floor, last_good, name_of, position_in
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Position

OLD, NEW = DesiredState(1, 8), DesiredState(1, 9)
NOWHERE: Position = (0, 0)
LAST, BEFORE = "policy.json", "policy.previous.json"


@pytest.mark.parametrize(
    ("on_disk", "enforced", "saved", "counts", "lost"),
    [
        ([], NOWHERE, NOWHERE, NO_POLICY, ""),
        ([(LAST, NEW), (BEFORE, OLD)], NEW.position, NEW.position, NEW, ""),
        ([(LAST, NEW)], NOWHERE, NEW.position, NEW, ""),
        ([(LAST, NEW)], OLD.position, NEW.position, NEW, ""),
        (
            [(LAST, "cut"), (BEFORE, OLD)],
            NOWHERE,
            NEW.position,
            OLD,
            "generation 9 was saved, generation 8 was loaded: policy.json: cut",
        ),
        (
            [(LAST, "cut"), (BEFORE, OLD)],
            NEW.position,
            NEW.position,
            NO_POLICY,
            "generation 9 was saved, nothing was loaded, new vNICs stay closed: "
            "policy.json: cut; generation 9 is in force, and stays",
        ),
        (
            [(LAST, OLD)],
            NEW.position,
            OLD.position,
            NO_POLICY,
            "generation 8 was saved, nothing was loaded, new vNICs stay closed: "
            "generation 9 is in force, and stays",
        ),
        (
            [],
            NOWHERE,
            NEW.position,
            NO_POLICY,
            "generation 9 was saved, nothing was loaded, new vNICs stay closed: its file is gone",
        ),
        (
            [(LAST, OLD)],
            NOWHERE,
            NEW.position,
            OLD,
            "generation 9 was saved, generation 8 was loaded: its file is gone",
        ),
    ],
)
def test_o27_o7_the_newest_there_is_counts_unless_a_newer_one_is_in_force(
    on_disk: list[tuple[str, DesiredState | str]],
    enforced: Position,
    saved: Position,
    counts: DesiredState,
    lost: str,
) -> None:
    """What is not as it was saved is said, and nothing older than what was here is taken from then on."""
    found = last_good(on_disk, enforced, saved)
    assert found.state is counts
    assert (found.floor, found.lost) == (max(enforced, saved), lost)


def test_an_epoch_counts_before_all_generations() -> None:
    """A manager that lost its memory begins a newer one; what it said before is older."""
    check_floor((2, 1), (1, 900))
    check_floor((1, 900), (1, 900))
    with pytest.raises(Behind, match=r"\(1, 900\) is older than \(2, 1\), which was here"):
        check_floor((1, 900), (2, 1))


def test_a_name_says_its_position_and_tells_what_it_is_made_of_from_all_else() -> None:
    """It fits into its map (`datapath.inforce`); of a name in another form nothing is known."""
    name = name_of((7, 2**40), ("1.0", 42))
    assert position_in(name) == (7, 2**40)
    assert len(name) == 32
    assert name == name_of((7, 2**40), ("1.0", 42)) != name_of((7, 2**40), ("1.0", 43))
    assert position_in(b"") == position_in(b"\xff" * 32) == NOWHERE
