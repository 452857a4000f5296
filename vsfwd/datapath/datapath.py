"""The datapath as the daemon sees it: vNICs on and off, a plan in, counters, flows and events out.

Small on purpose: it composes `loader` (programs), `devices` (vNICs on and off), `vnics` and `slots` (which
is where), `takeover` (from older programs), `maps` (policy), `guards` (SpoofGuard), `conntrack` (flows) and
`events`. Everything that must outlive the daemon is in pinned maps; the tables here can be read back from
them. Closing a Datapath, or dying with it open, changes nothing that is enforced."""

from collections.abc import Iterable, Mapping, Set
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath import settings as settings_map
from vsfwd.datapath.attach import Hooks
from vsfwd.datapath.carry import find
from vsfwd.datapath.conntrack import Flow, FlowTables
from vsfwd.datapath.devices import Devices
from vsfwd.datapath.early import Early
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.events import Event, Events
from vsfwd.datapath.guards import Bindings
from vsfwd.datapath.inforce import InForce
from vsfwd.datapath.kernel import lacking
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import Policy, RuleCounters
from vsfwd.datapath.pins import remove_older
from vsfwd.datapath.portguard import PortGuard
from vsfwd.datapath.schema import Hold, Reason, constant, schema
from vsfwd.datapath.settings import Settings
from vsfwd.datapath.slots import Slots, TableUse
from vsfwd.datapath.snoops import Snoop, Snoops
from vsfwd.datapath.takeover import Takeover
from vsfwd.datapath.vnics import Vnics
from vsfwd.image import Flip, InPlace, Plan
from vsfwd.policy.model import SessionTimers

if TYPE_CHECKING:
    from vsfwd.datapath.flowstate import FlowStates


_DEFAULTS: Final = Settings()


class Datapath:
    """Use `open`, and as a context manager."""

    def __init__(self, programs: Programs, hooks: Hooks, settings: Settings) -> None:
        self._programs = programs
        self._hooks = hooks
        self.lacks = lacking({"tcx": hooks.way == "tcx", "jit": bpf.program_info(programs.vnic_in).jited > 0})
        """Features that this kernel has not got, and what that means."""
        self.port_guard = PortGuard(settings.guard_ports)
        if not self.port_guard.on:
            self.port_guard.remove()  # while the programs still stamp what it asks for
        self._stamp = settings_map.stamp_for(self.port_guard, programs)
        self.mark = settings_map.write(programs, settings, self._stamp)
        self._policy = Policy(programs)
        self._in_force = InForce(programs, self._policy)
        self._bindings = Bindings(programs)
        self._flows = FlowTables(programs)
        self._events = Events(programs)
        self._snoops = Snoops(programs)
        self._vnics = Vnics(programs, self._flows)
        self._slots = Slots(
            programs, settings, self._vnics, self._flows, self._policy, self._bindings, self._snoops
        )
        self.departed = self._slots.departed
        self._takeover = Takeover(programs, hooks, self._vnics, self._slots, self._flows)
        self._devices = Devices(programs, hooks, self.port_guard, self._vnics, self._slots, self._takeover)
        self.early = Early(programs)

    @classmethod
    def open(cls, pin_dir: Path, settings: Settings = _DEFAULTS, cache_dir: Path | None = None) -> "Datapath":
        """Opens the programs, or loads them as `cache_dir` has kept them, or compiles them; and takes over
        whatever is pinned under `pin_dir`: flows, slots and counters go on, and devices that bear our
        programs get these in one step each. The port guard comes last: by then every program stamps."""
        with ExitStack() as unless_opened:
            hooks = unless_opened.enter_context(Hooks(pin_dir))
            datapath = cls._open(pin_dir, settings, cache_dir, hooks)
            unless_opened.pop_all()
        return datapath

    @classmethod
    def _open(cls, pin_dir: Path, settings: Settings, cache_dir: Path | None, hooks: Hooks) -> "Datapath":
        try:
            before = find(pin_dir, hooks)
            if before:
                before.link(pin_dir / schema())
            programs = Programs(pin_dir, cache_dir)
            hooks.known.read()
            if before:
                before.fill(programs)
        except OSError as error:
            raise DatapathError(f"take over the maps of an older daemon: {error}") from None
        datapath = cls(programs, hooks, settings)
        taken_over = datapath._takeover.adopt(before, datapath.flow_states) if before else []
        taken_over += datapath._devices.renew()
        guard = datapath.port_guard
        # Those that bear another version's programs and are in no map of this one are attached later.
        filtered = {n for n in guard.protected_in_force() if datapath._hooks.attached(n)}
        guard.install(datapath._stamp, filtered.union(taken_over))
        return datapath

    def remove_older_pins(self) -> list[str]:
        """Those of other versions, once all devices that they served bear our programs; answers the schemas
        that are gone with all their maps. And those of early drops that have ended with their device."""
        try:
            self.early.tidy()
            return remove_older(self._programs.directory, self._hooks)
        except OSError as error:
            raise DatapathError(f"remove pins of an older daemon: {error}") from None

    def configure(self, settings: Settings) -> None:
        """Lifetimes and limits for the programs, from the next packet on."""
        settings_map.write(self._programs, settings, self._stamp)
        self._slots.set_timeouts(settings.timeouts_s)

    # ---- vNICs ----

    @property
    def slots(self) -> dict[str, int]:
        """vNIC id to slot, of all vNICs that are attached."""
        return self._vnics.slots

    @property
    def devices(self) -> dict[str, int]:
        """vNIC id to device number, of all vNICs that are attached."""
        return {id_: vnic.ifindex for id_, vnic in self._vnics.items()}

    @property
    def places(self) -> dict[str, int]:
        """As `slots`, and of the vNICs that are to come (`reserve`)."""
        return self._slots.places

    def free_slots(self) -> int:
        return constant("SLOTS") - len(self.places)

    def reserve(self, vnic_id: str) -> None:
        """A slot for a vNIC that is to come: policy and flows are in their place before it is."""
        self._slots.reserve(vnic_id)

    def give_up(self, vnic_id: str) -> None:
        """It does not come."""
        self._slots.give_up(vnic_id)

    def attach(self, vnic_id: str, ifindex: int, mac: str) -> int:
        """Puts the programs on a device and answers the vNIC's slot. A new vNIC is closed until a plan names
        its slot: DHCP passes, and ARP and neighbour discovery by which it claims no address; nothing does if
        it is held. Idempotent; a known vNIC on another device keeps slot and flows."""
        return self._devices.attach(vnic_id, ifindex, mac)

    def detach(self, vnic_id: str) -> None:
        """Takes the programs off and forgets the vNIC and its flows. Its slot may be given to another one."""
        self._devices.detach(vnic_id)

    def forget(self, vnic_id: str) -> None:
        """As `detach`, of a vNIC whose device is gone while another has its number. Programs that are on that
        stay, and nothing passes them: it is attached next."""
        self._devices.forget(vnic_id)

    def bare(self) -> set[str]:
        """vNICs whose programs somebody took off, or has put others before: to be attached again."""
        return self._devices.bare()

    def late(self) -> set[str]:
        """vNICs that bear an older version's programs and policy still, as their devices did not take ours:
        to be attached again."""
        return set(self._takeover.late)

    def behind(self) -> set[str]:
        """vNICs at which another program stays before ours, as far as `attach` found any."""
        return self._devices.behind()

    # ---- vNICs whose VM changes host ----

    def hold(self, vnic_id: str, why: Hold, *, settled: bool = True) -> None:
        """No packet that comes from now on passes, or all that the policy allows do (`Hold.NONE`). Of a vNIC
        that is not attached yet: from when it is, but for what is frozen, since that ends with its device.
        `settled`: those under way are done when this returns."""
        self._vnics.hold(vnic_id, why, settled=settled)

    def settle(self, vnic_id: str) -> None:
        """Returns when packets that are under way are done with the flows of a vNIC that is attached."""
        self._flows.settle(self.slots[vnic_id])

    def holds(self) -> dict[str, Hold]:
        """Of the vNICs that are held. One that its VM has brought to life is not any more."""
        return self._vnics.holds()

    @property
    def held(self) -> dict[str, Hold]:
        """As `holds` has last found it."""
        return self._vnics.held

    @cached_property
    def flow_states(self) -> "FlowStates":
        """Flows that change host."""
        from vsfwd.datapath.flowstate import FlowStates  # numpy, for which no start of the daemon waits

        return FlowStates(self._programs, self._flows, self._policy)

    def empty(self, vnic_id: str) -> None:
        """No flow of it is left."""
        self._slots.empty(vnic_id)

    # ---- policy ----

    def install(self, plan: Plan) -> None:
        """When this returns, every packet is decided by `plan.image`. On an exception the policy is what it
        was."""
        guards = plan.image.guards
        added = self._bindings.add(guards)
        try:
            if isinstance(plan, Flip):
                ahead = {slot for slot, rows in plan.image.vnics.items() if rows.ahead}
                self._vnics.ask_ahead(ahead, also=True)
                self._policy.flip(plan)
                self._vnics.ask_ahead(ahead)
            elif isinstance(plan, InPlace):
                self._policy.in_place(plan)
        except Exception:
            self._bindings.remove(added)
            raise
        guarded = self._vnics.guard(guards)
        if self._bindings.keep(guards) or guarded:
            self._policy.ask_again()
        self._takeover.relieve()

    @property
    def emptied(self) -> Set[int]:
        """Slots that were closed since `install` has last put a whole image in force."""
        return self._policy.emptied

    def in_force(self) -> bytes:
        """The name by which a daemon, this one or an earlier, remembers the policy in force; or none."""
        return self._in_force.name()

    def last_in_force(self) -> bytes:
        """The name remembered last, whether the tables are still made of that or about to be."""
        return self._in_force.last()

    def remember(self, name: bytes, *, ahead: bool = False) -> None:
        """`ahead`: before it is in force, so that a daemon that is killed meanwhile has said it."""
        self._in_force.remember(name, ahead=ahead)

    def modes(self) -> dict[int, str]:
        """By slot of the attached vNICs, what the kernel does there: closed, enforced or excluded, by this
        daemon's policy or by one that an earlier daemon left."""
        return {
            slot: self._takeover.mode(id_) if id_ in self._takeover else self._policy.mode(slot)
            for id_, slot in self.slots.items()
        }

    def closed(self) -> set[str]:
        """Attached vNICs without a policy."""
        modes = self.modes()
        return {id_ for id_, slot in self.slots.items() if modes[slot] == "closed"}

    def set_timers(self, profiles: Mapping[str, SessionTimers]) -> None:
        """By vNIC id: how long its flows live, each from its next packet on."""
        self._slots.set_timers(profiles)

    # ---- what happened ----

    def counted_rules(self) -> set[int]:
        return self._policy.counters.owners()

    def rule_counters(self, rules: Iterable[int] | None = None) -> dict[int, RuleCounters]:
        """By rule id; of all that are counted, or of some of them."""
        return self._policy.counters.read(self.counted_rules() if rules is None else rules)

    def table_use(self, vnic_id: str) -> TableUse | None:
        """None of one that is not attached any more."""
        slot = self.slots.get(vnic_id)
        return None if slot is None else self._slots.table_use(slot)

    def drops(self, slots: Iterable[int] | None = None) -> dict[int, dict[Reason, int]]:
        """By slot, of all attached vNICs or of some: the reasons that have occurred since it was attached."""
        return {slot: self._slots.drops(slot) for slot in (self.slots.values() if slots is None else slots)}

    def unfiltered(self) -> dict[int, int]:
        """By slot, the packets that passed because the vNIC is excluded, since it was attached."""
        return {slot: self._slots.unfiltered(slot) for slot in self.slots.values()}

    def flows(self, slot: int) -> list[Flow]:
        return self._flows.flows(slot)

    def seen(self, slot: int, within_s: float) -> list[tuple[Flow, float]]:
        """Flows of the last seconds, ended ones too as far as the table still has them, each with the
        seconds since its last packet."""
        return list(self._flows.seen(slot, self._slots.timers.read(slot), within_s))

    def know(self, slot: int, addresses: Set[int]) -> None:
        """The programs need not show again that the vNIC claims these addresses; others they will."""
        self._bindings.know(slot, addresses)

    def snoops(self) -> int:
        """A descriptor that is readable when `poll_snoops` has something."""
        return self._snoops.ring.fd

    def poll_snoops(self) -> list[Snoop]:
        return self._snoops.ring.poll()

    def events(self) -> int:
        """A descriptor that is readable when `poll_events` has something."""
        return self._events.ring.fd

    def poll_events(self) -> list[Event]:
        return self._events.ring.poll()

    def check(self) -> None:
        """That the kernel runs our programs. Raises DatapathError."""
        self._programs.jiffies()

    def status(self) -> dict[str, Any]:
        return {
            "schema": schema(),
            "pins": str(self._programs.pins),
            "hz": self._programs.hz,
            "policy_seq": self._policy.seq,
            "bank": self._policy.bank,
            "vnics": len(self._vnics),
            "attached_by": self._hooks.way,
            "kernel_lacks": ", ".join(self.lacks) or "nothing",
            "vnics_behind": sum(self._hooks.behind(vnic.ifindex) for vnic in self._vnics.values()),
            "port_guard": self.port_guard.status(),
            "events_lost": self._events.lost(),
        }

    @property
    def vnic_in(self) -> int:
        """Descriptor of the program that sees what goes to a workload."""
        return self._programs.vnic_in

    @property
    def vnic_out(self) -> int:
        return self._programs.vnic_out

    def close(self) -> None:
        self.departed.close()
        self.early.close()
        self._policy.close()
        self._vnics.close()
        self._slots.timers.close()
        self._snoops.ring.close()
        self._events.ring.close()
        self._hooks.close()
        self._programs.close()

    def __enter__(self) -> "Datapath":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
