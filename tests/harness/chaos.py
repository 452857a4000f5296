"""What is done in a schedule of chaos, and when: made from one integer. Pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STEPS: Final = 8
LONGEST_PAUSE_S: Final = 0.3

ON_A_HOST: Final = {
    # what the manager wants
    "rules": 6,
    "members": 6,
    "snapshot": 1,
    "many": 2,
    # the daemon
    "kill": 3,
    "kill at the start": 1,
    "stop for a while": 2,
    "restart": 1,
    # the wire to the broker
    "cut": 2,
    "go silent": 1,
    "refuse": 1,
    "delay": 1,
    "lose bytes": 1,
    "repeat bytes": 1,
    "flip a bit": 1,
    # the vNIC
    "plug anew": 2,
    "take programs off": 2,
}
IN_A_LAB: Final = {
    # what the manager wants
    "rules": 3,
    "tags": 4,
    # the VM
    "move": 6,
    "move unannounced": 3,
    # one of the daemons
    "kill": 3,
    # the broker
    "broker hangs": 1,
    "broker hangs up": 1,
}


@dataclass(frozen=True)
class Step:
    """`pause_s`: until the next one. `amount` is how much of it, from 0 to 1."""

    what: str
    pause_s: float
    amount: float

    def __str__(self) -> str:
        return f"{self.what} ({self.amount:.2f}), {self.pause_s:.2f} s"


def schedule(seed: int, weights: Mapping[str, int] = ON_A_HOST) -> list[Step]:
    """The same for the same integer, in every version of Python."""
    chance = random.Random(seed)
    return [
        Step(what, chance.random() * LONGEST_PAUSE_S, chance.random())
        for what in chance.choices(list(weights), list(weights.values()), k=STEPS)
    ]
