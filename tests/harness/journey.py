"""One test for both families and both directions: a packet's journey through one vNIC."""

from dataclasses import dataclass

from scapy.packet import Packet

from tests.harness.datapath import Host, Port, Seen
from tests.harness.packets import Net

VNICS = {"here": "10.0.0.1 fd00::1 web"}


@dataclass(frozen=True)
class Journey:
    """From `source` to `destination`, one of which is the workload."""

    host: Host
    port: Port
    net: Net
    inward: bool

    @property
    def source(self) -> str:
        return self.net.peer if self.inward else self.net.here

    @property
    def destination(self) -> str:
        return self.net.here if self.inward else self.net.peer

    @property
    def ends(self) -> tuple[str, str]:
        return self.source, self.destination

    def take(self, packet: Packet) -> Seen:
        return self.port.receive(packet) if self.inward else self.port.send(packet)

    def frame(self, packet: Packet) -> Packet:
        return self.port.frame_in(packet) if self.inward else self.port.frame_out(packet)

    def wire(self, *frames: bytes) -> None:
        """Through the device itself."""
        self.port.wire(*frames, inward=self.inward)

    def install(self, *rules: str, marks: str = "") -> None:
        self.host.install(rules, vnics={name: f"{text} {marks}" for name, text in VNICS.items()})
