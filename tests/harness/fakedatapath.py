"""A datapath without a kernel: what would be there, and failures where a test says so."""

from vsfwd.datapath import DatapathError
from vsfwd.datapath.inforce import NEVER
from vsfwd.image import Flip, Image, InPlace, Nothing, Plan
from vsfwd.policy.model import SessionTimers


class FakeDatapath:
    """`failures`: how many of the next installs fail."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.image: Image | None = None
        self.failures = 0
        self.unattachable: set[str] = set()
        self.taken_off: set[str] = set()
        self.overtaken: set[str] = set()
        self.belated: set[str] = set()
        self.emptied: set[int] = set()
        self.remembered = b""
        self.sequence, self.remembered_with = 0, NEVER
        """Of what may alter a verdict, as `policy_seq`; and the one that `remembered` counts under."""
        self.timers: dict[str, SessionTimers] = {}

    @property
    def places(self) -> dict[str, int]:
        return {**self.reserved, **self.slots}

    def reserve(self, vnic_id: str) -> None:
        self.reserved[vnic_id] = len(self.places)

    def give_up(self, vnic_id: str) -> None:
        self.reserved.pop(vnic_id, None)

    def attach(self, vnic_id: str, ifindex: int, mac: str) -> int:
        if vnic_id in self.unattachable:
            raise DatapathError(f"{vnic_id}: no such device")
        if vnic_id not in self.slots:
            free = min(set(range(len(self.slots) + 1)) - set(self.slots.values()))
            self.slots[vnic_id] = self.reserved.pop(vnic_id, free)
        self.taken_off.discard(vnic_id)
        self.belated.discard(vnic_id)
        return self.slots[vnic_id]

    def detach(self, vnic_id: str) -> None:
        self.emptied.add(self.slots.pop(vnic_id))

    def forget(self, vnic_id: str) -> None:
        self.emptied.add(self.slots.pop(vnic_id))

    def behind(self) -> set[str]:
        return set(self.overtaken)

    def late(self) -> set[str]:
        return set(self.belated)

    def bare(self) -> set[str]:
        return set(self.taken_off)

    def in_force(self) -> bytes:
        return self.remembered if self.remembered_with == self.sequence else b""

    def last_in_force(self) -> bytes:
        return self.remembered

    def remember(self, name: bytes, *, ahead: bool = False) -> None:
        self.remembered, self.remembered_with = name, NEVER if ahead else self.sequence

    def set_timers(self, profiles: dict[str, SessionTimers]) -> None:
        self.timers = profiles

    def install(self, plan: Plan) -> None:
        assert not isinstance(plan, Nothing), "there is nothing to install"
        if self.failures:
            self.failures -= 1
            raise DatapathError("bank 1: no memory")
        if isinstance(plan, InPlace):
            assert self.image is not None
            assert self.image.rows == plan.image.rows[: len(self.image.rows)], "rows were renumbered in place"
        self.sequence += not (isinstance(plan, Flip) and plan.same_policy)
        self.image = plan.image
        if isinstance(plan, Flip):
            self.emptied.clear()


class RecordingDatapath(FakeDatapath):
    """`calls` is everything that was done to it, in order; `plans` what was installed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.plans: list[Plan] = []

    def attach(self, vnic_id: str, ifindex: int, mac: str) -> int:
        slot = super().attach(vnic_id, ifindex, mac)
        self.calls.append(f"attach {vnic_id} {ifindex} {mac}")
        return slot

    def detach(self, vnic_id: str) -> None:
        super().detach(vnic_id)
        self.calls.append(f"detach {vnic_id}")

    def forget(self, vnic_id: str) -> None:
        super().forget(vnic_id)
        self.calls.append(f"forget {vnic_id}")

    def install(self, plan: Plan) -> None:
        super().install(plan)
        self.plans.append(plan)
        self.calls.append("flip" if isinstance(plan, Flip) else "in place")
