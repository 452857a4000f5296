"""What an enrolment token looks like: who made it shows it, who has it can see that it was copied whole."""

from typing import Final

TOKEN: Final = r"[0-9a-f]{12}\.[A-Za-z0-9_-]{43}"
"""Its id, by which it may be named, and 256 random bits."""
TOKEN_WORDS: Final = "an enrolment token: 12 of 0-9 and a-f, a dot, and 43 letters, digits, _ or -"
