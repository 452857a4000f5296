"""What has happened on this host that somebody should hear of, though it may be mended already: programs
that were taken off a vNIC, a port guard that was changed. Kept until `vsfwd.alarms` takes its next sample.

May be noted and taken from any thread."""

from typing import Final, NamedTuple

FEATURE: Final = "distributed_firewall"


class Cause(NamedTuple):
    """What an alarm is about; `entity` is the id of a vNIC, or of the host."""

    event_type: str
    severity: str
    entity: str

    @property
    def feature(self) -> str:
        if self.event_type.startswith("management_channel_"):
            return "communication"
        return "certificates" if self.event_type.startswith("certificate_") else FEATURE


class Incidents:
    def __init__(self) -> None:
        self._noted: dict[Cause, str] = {}

    def note(self, cause: Cause, description: str) -> None:
        self._noted[cause] = description

    def take(self) -> dict[Cause, str]:
        """Those since the last call."""
        taken, self._noted = self._noted, {}
        return taken
