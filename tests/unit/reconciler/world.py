"""One host around a reconciler: a manager, a datapath that is none, a disk."""

import time
from datetime import datetime
from pathlib import Path

from tests.harness.fakedatapath import RecordingDatapath
from tests.unit.policy_messages import APP, HOST, WEB, Manager, group, rule, vnic
from vsfwd.image import Flip
from vsfwd.incidents import Incidents
from vsfwd.policy.schedule import Now
from vsfwd.protocol import envelope
from vsfwd.reconciler import Outcome, Port, Reconciler
from vsfwd.rows import applied
from vsfwd.statefile import StateFile

PORT = Port(WEB, "veth-web", 7, "02:00:00:00:00:01")
OTHER = Port(APP, "veth-app", 8, "02:00:00:00:00:02")


class World:
    """One host: a manager, a datapath, a disk, and the reconciler between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manager = Manager()
        self.datapath = RecordingDatapath()
        self.statefile = StateFile(directory)
        self.clock = datetime(2026, 11, 22, 7, 59, 59)
        self.incidents = Incidents()
        self.reconciler = self._reconciler()

    def _reconciler(self) -> Reconciler:
        key = self.manager.key.public_key()
        return Reconciler(HOST, key, self.datapath, self.statefile, "1.0", self._now, self.incidents)

    def _now(self) -> Now:
        return Now(self.clock, self.clock)

    def incident(self) -> tuple[str, str]:
        """The one since the last call: event, and what it is about."""
        ((cause, _),) = self.incidents.take().items()
        return cause.event_type, cause.entity

    def at(self, clock: str) -> list[int]:
        """Somebody looks at the clock; the rules that are then in force on the first vNIC."""
        self.clock = datetime.fromisoformat(f"2026-11-22T{clock}")
        self.reconciler.follow_schedules()
        return applied(self.datapath.image, 0)

    def restart(self) -> None:
        self.reconciler = self._reconciler()
        self.reconciler.load()

    def asked_after_a_restart(self) -> bool:
        """Whether a daemon that comes back puts its policy to flows as another one."""
        self.restart()
        self.plug(PORT)
        plan = self.datapath.plans[-1]
        assert isinstance(plan, Flip)
        return not plan.same_policy

    def plug(self, *ports: Port) -> None:
        self.reconciler.vnics_changed({port.vnic: port for port in ports})

    def take(self, message: envelope.Message) -> Outcome:
        return self.reconciler.apply_message(message, time.monotonic_ns())

    def policy(self) -> envelope.Message:
        return self.manager.snapshot(
            rules={
                "1": rule(sources={"groups": ["g"]}),
                "2": rule("drop", action="drop", order=[9, 0, 0, 1]),
            },
            groups={"g": group()},
            vnics={WEB: vnic("10.0.0.1")},
        )
