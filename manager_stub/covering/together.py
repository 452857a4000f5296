"""Rules to which several above leave nothing together: what each of them matches is taken away, piece by
piece, until nothing is left.

What is said holds whoever is a member of what; what is not said may be so for the members of now. It costs
time where many rules overlap, so all of it ends after so many steps."""

from collections.abc import Iterator, Sequence
from typing import Final

from manager_stub.covering.boxes import Words, without
from manager_stub.covering.corners import corners, holding
from manager_stub.covering.fields import Sets
from vsfwd.policy.model import Rule

MAX_STEPS: Final = 100_000
"""Pieces from which a rule is taken, each some 10 µs; what would take more is not said."""
MAX_PIECES: Final = 64
"""Of what is left of one rule."""


class Together:
    """Of rules in order, all of them Ethernet rules or none."""

    def __init__(self, rules: Sequence[Rule], sets: Sets, ethernet: bool) -> None:
        words = Words(sets, ethernet)
        self._boxes = [words.asked(rule) for rule in rules]
        self._covers = [words.covering(rule) for rule in rules]
        self._corners = holding(self._covers, [corners(boxes) for boxes in self._boxes])
        """For each rule two masks, of the rules that have one of its corners, and the other."""
        self._steps_left = MAX_STEPS

    def hide(self, place: int, above: int) -> tuple[int, ...]:
        """Places of rules, out of those of the mask, that leave nothing of the one at `place`; empty if there
        are none."""
        corners = self._corners[place]
        if not corners or not all(corner & above for corner in corners):
            return ()
        left, by = self._boxes[place], list[int]()
        for other in _places(above):
            self._steps_left -= len(left)
            rest = [piece for box in left for piece in without(box, self._covers[other])]
            if len(rest) > MAX_PIECES or self._steps_left < 0:
                return ()
            if rest != left:
                left = rest
                by.append(other)
            if not left:
                return self._needed(place, by)
        return ()

    def _needed(self, place: int, by: list[int]) -> tuple[int, ...]:
        """Without those that the others do not need, as far as there is time to look."""
        for other in by[::-1]:
            self._steps_left -= len(by)
            if self._steps_left < 0:
                break
            rest = self._boxes[place]
            for each in by:
                if each != other:
                    rest = [piece for box in rest for piece in without(box, self._covers[each])]
            if not rest:
                by = [each for each in by if each != other]
        return tuple(by)


def _places(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
