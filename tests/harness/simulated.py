"""A host without a kernel: the daemon's own link and reconciler, on a datapath that only remembers.

Bytes from the broker, signatures, order, desired state, compiler, the file on disk and what is reported are
the real ones. Netlink and eBPF are not there: what is plugged is said by the test.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from tests.harness.fakedatapath import FakeDatapath
from vsfwd.applythread import ApplyThread
from vsfwd.broker import BrokerLink
from vsfwd.config import Config
from vsfwd.policy.desired import DesiredState
from vsfwd.protocol.envelope import Header, Kind, Message
from vsfwd.protocol.messages import Binding, Bindings, Event, Reply, Request
from vsfwd.reconciler import Disposition, Port, Reconciler
from vsfwd.statefile import StateFile


@dataclass(frozen=True)
class Took:
    """A policy message, after which another state is in force. `at_ns`: when, monotonic."""

    state: DesiredState
    kind: Kind
    at_ns: int


class SimulatedHost:
    """`took` is called with each state that comes into force."""

    def __init__(
        self,
        config: Config,
        vnics: Sequence[Binding],
        apply_thread: ApplyThread,
        took: Callable[["SimulatedHost", Took], None],
    ) -> None:
        self.id = config.host_id
        self.vnics = tuple(vnics)
        self.datapath = FakeDatapath()
        self.statefile = StateFile(config.state_dir)
        self.reconciler = Reconciler(
            config.host_id, config.public_key(), self.datapath, self.statefile, "simulated"
        )
        self.link = BrokerLink(config, self._policy, self._request, lambda event: None, self._greet)
        self._apply_thread = apply_thread
        self._took = took

    async def run(self) -> None:
        """As the daemon starts: what is on disk, then the vNICs, then the broker."""
        ports = {each.vnic: Port(each.vnic, each.device, 1, each.mac) for each in self.vnics}
        try:
            await self._apply_thread(self.reconciler.load)
            await self._apply_thread(self.reconciler.vnics_changed, ports)
            await self.link.run()
        finally:
            self.statefile.close()

    async def _policy(self, message: Message) -> bool:
        before = self.reconciler.state
        outcome = await self._apply_thread(self.reconciler.apply_message, message, time.monotonic_ns())
        after = self.reconciler.state
        if after is not before:
            header = msgspec.json.decode(message.header, type=Header)
            self._took(self, Took(after, header.kind, time.monotonic_ns()))
        self.link.report(outcome.report)
        return outcome.disposition is Disposition.DONE

    async def _request(self, request: Request) -> None:
        if request.method == "report":
            for event in self._greet():
                self.link.send(event)
        self.link.send(Reply(request.id))

    def _greet(self) -> Sequence[Event]:
        return self.reconciler.hello(), Bindings(self.vnics)
