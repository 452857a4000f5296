"""Names that a reader takes for one another: equal to the eye, different to a condition, a search or a diff.
Pure.

What looks alike is Unicode's matter (UTS #39, section 4, "skeleton"), by ICU's tables. Names of ASCII alone
are never said to: 1 and l, or rn and m, are told apart by whoever administers hosts. Python's word for what
can be seen is `isprintable`: no controls, no format characters (zero width, bidirectional), no separators but
the space.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import icu

_CHECKER: Final = icu.SpoofChecker()
_IGNORED: Final = dict.fromkeys(map(ord, icu.UnicodeSet("[:Default_Ignorable_Code_Point:]")))
"""Characters that leave no trace. ICU's skeleton keeps them, UTS #39's does not."""


def unseen(name: str) -> str:
    """The first character that a reader cannot see or that moves others, in words; empty: there is none."""
    return next((_told(letter) for letter in name if not letter.isprintable()), "")


def difference(name: str, other: str) -> str:
    """Letters beyond ASCII that only one of them has."""
    letters = set(name) ^ set(other) or {*name, *other}
    return ", ".join(_told(letter) for letter in sorted(letters) if not letter.isascii())


def lookalikes(names: Iterable[str]) -> dict[str, list[str]]:
    """For each name the different ones that look like it, where one of the two has more than ASCII."""
    different = set(names)
    if all(map(str.isascii, different)):
        return {}
    alike = defaultdict(list)
    for name in sorted(different):
        alike[_skeleton(name)].append(name)
    found = {}
    for group in alike.values():
        for name in group:
            others = [other for other in group if other != name and not (name + other).isascii()]
            if others:
                found[name] = others
    return found


def _skeleton(name: str) -> str:
    return str(_CHECKER.getSkeleton(0, name.translate(_IGNORED)))


def _told(letter: str) -> str:
    return f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}"
