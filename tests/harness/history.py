"""Which policies may be in force at a moment, as somebody knows who tells a host of them and hears of what it
has applied. Pure."""

from dataclasses import dataclass, field


@dataclass
class History:
    """`lets`: by policy, in order, whether it lets a flow pass. `told`, `confirmed`: when, by the same
    number. Between the two the policy before may still decide, or any since."""

    lets: list[bool] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    confirmed: dict[int, float] = field(default_factory=dict)

    def tell(self, lets: bool, at: float) -> int:
        """Number of a policy that is about to be sent."""
        self.lets.append(lets)
        self.told.append(at)
        return len(self.lets) - 1

    def confirm(self, number: int, at: float) -> None:
        self.confirmed.setdefault(number, at)

    def admissible(self, begun: float, ended: float) -> set[bool]:
        """What may become of a packet that came to the host between these moments: it is judged by the last
        policy that was confirmed before, or by one that was told since."""
        oldest = max((number for number, at in self.confirmed.items() if at <= begun), default=0)
        return {
            lets for lets, told in zip(self.lets[oldest:], self.told[oldest:], strict=True) if told <= ended
        }
