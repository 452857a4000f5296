"""Which name somebody meant who mistyped one. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(said: str, names: Iterable[str]) -> str:
    """What to say behind "there is no ...": the name that is nearest, or nothing where none is near."""
    folded = {name.lower(): name for name in names}
    near = get_close_matches(said.lower(), folded, n=1)
    return f"; did you mean {folded[near[0]]}?" if near else ""
