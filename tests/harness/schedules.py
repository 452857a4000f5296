"""What happens in a fault schedule, and when: made from one integer. Pure."""

import random
from dataclasses import dataclass
from typing import Final

HOSTS: Final = 2
STEPS: Final = 12
LONGEST_PAUSE_S: Final = 0.2

WEIGHTS: Final = {
    # the work that goes on meanwhile
    "change": 12,
    # on the wire between one of them and the broker
    "delay": 2,
    "cut": 2,
    "go silent": 1,
    "refuse": 2,
    "lose bytes": 1,
    "repeat bytes": 1,
    "flip a bit": 1,
    # messages, on the broker
    "replay": 3,
    "replay to another": 1,
    "spoil": 2,
    "flood": 1,
    "lose policy": 2,
    "lose reports": 2,
    # the ends
    "kernel refuses": 2,
    "restart host": 2,
    "restart manager": 1,
}
MANAGER: Final = HOSTS
"""The wire of the manager, behind those of the hosts."""
ON_A_WIRE: Final = {
    *("delay", "cut", "go silent", "refuse"),
    *("lose bytes", "repeat bytes", "flip a bit"),
}


@dataclass(frozen=True)
class Step:
    """`who`: a host by number, or MANAGER."""

    what: str
    who: int
    pause_s: float

    def __str__(self) -> str:
        who = "manager" if self.who == MANAGER else f"host {self.who}"
        return f"{self.what} ({who}), {self.pause_s:.2f} s"


def schedule(seed: int) -> list[Step]:
    """The same for the same integer, in every version of Python."""
    chance = random.Random(seed)
    steps = []
    for what in chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        who = chance.randrange(HOSTS + (what in ON_A_WIRE))
        steps.append(Step(what, who, chance.random() * LONGEST_PAUSE_S))
    return steps
