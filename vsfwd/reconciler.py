"""The owner of what this host enforces: desired state, compiler, and the image the kernel has.

Everything that changes policy or vNICs comes through here, one at a time, on one thread (`applythread`):
a message, a vNIC that is plugged or pulled, the state on disk at the start. Each becomes a desired state, an
image, a plan, and one log line that says what changed and how long it took.

What fails changes nothing: the last good policy stays in the kernel, in `state` and on disk. Only a disk that
takes nothing holds no policy up: what is enforced is saved when it can be. `state`, `image`
and `ports` are never changed but replaced, and may be read from any thread; each is whole in itself, and one
may be newer than another while something is applied.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vsfwd.datapath import Datapath, DatapathError
from vsfwd.image import Flip, Image, Nothing, Plan, diff
from vsfwd.incidents import Cause, Incidents
from vsfwd.lastgood import NO_POLICY, Behind, check_floor, last_good, name_of, position_in
from vsfwd.memory import give_back, no_collection
from vsfwd.policy import schedule
from vsfwd.policy.compile import Compiler
from vsfwd.policy.desired import DesiredState, Duplicate, OutOfStep, apply
from vsfwd.policy.layered import different
from vsfwd.policy.model import SessionTimers
from vsfwd.policy.schedule import Now
from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import Kind, Message, Refused
from vsfwd.protocol.messages import KINDS, Applied, Hello, Refusal, digest_text
from vsfwd.statefile import StateFile, Stored

log = structlog.get_logger(log="vsfwd.policy")

INSTALL_ATTEMPTS: Final = 3
INSTALL_PAUSE_S: Final = 0.2


@dataclass(frozen=True)
class Port:
    """A vNIC where it is plugged: the device on the host side. `slot` is the datapath's, and says nothing
    until it is attached."""

    vnic: str
    device: str
    ifindex: int
    mac: str
    slot: int = field(default=-1, compare=False)


@dataclass(frozen=True)
class Unattached:
    """A vNIC that is plugged, and why the programs are not on it."""

    port: Port
    reason: str


class Disposition(StrEnum):
    """What the broker is told about a message."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    """What became of a policy message, for the manager and for the broker."""

    report: Applied
    disposition: Disposition


@dataclass
class Counters:
    """Messages since the daemon started, and the last one that was enforced (`realised_at`: seconds since
    1970, 0 when there was none)."""

    applied: int = 0
    duplicate: int = 0
    refused: int = 0
    last_duration_us: int = 0
    realised_at: float = 0.0


def _now() -> Now:
    return Now(datetime.now(UTC).replace(tzinfo=None), datetime.now())


class Reconciler:
    def __init__(
        self,
        host: str,
        key: Ed25519PublicKey,
        datapath: Datapath,
        statefile: StateFile,
        version: str,
        now: Callable[[], Now] = _now,
        incidents: Incidents | None = None,
    ) -> None:
        self.state = NO_POLICY
        self.image: Image | None = None
        self.warnings: tuple[Refusal, ...] = ()
        self.ports: Mapping[str, Port] = {}
        self.unattached: Mapping[str, Unattached] = {}
        self.counters = Counters()
        self._host = host
        self._key = key
        self._datapath = datapath
        self._statefile = statefile
        self._version = version
        self._compiler = Compiler()
        self._now = now
        self._incidents = incidents or Incidents()
        self._closed: frozenset[int] = frozenset()
        self._floor = NO_POLICY.position
        """Of the newest policy that an earlier daemon enforced or saved."""
        self.not_saved = ""
        """Why the disk has not got what is enforced."""
        self.not_installed = ""
        """Why the kernel has not got it for the vNICs that are here now."""
        self._to_save: tuple[bytes, bytes] | None = None
        self._stale = False

    # -- what comes in ---------------------------------------------------------------------------------

    @no_collection()
    def load(self) -> None:
        """Take the last good policy from disk. Without one, and where the kernel has a newer one that a disk
        did not take, nothing is installed: what the kernel enforces stays, and new vNICs stay closed."""
        enforced = position_in(self._datapath.last_in_force())
        found = last_good(self._on_disk(), enforced, self._statefile.newest())
        self.state, self._floor = found.state, found.floor
        if found.lost:
            log.error("the last good policy is not loaded", reason=found.lost)
            self._incidents.note(Cause("dfw_policy_file_unusable", "CRITICAL", self._host), found.lost)
        if self.state is NO_POLICY:
            log.warning("no policy is loaded: new vNICs stay closed until the manager sends one")
        else:
            log.info("policy loaded", **_identity(self.state), **_sizes(self.state))

    def _on_disk(self) -> Iterator[tuple[str, DesiredState | str]]:
        for path, stored in self._statefile.policies():
            try:
                if isinstance(stored, str):
                    raise Refused(stored)
                found: DesiredState | str = self._proven(stored)
            except Exception as error:
                why = _why(error)
                log.error("policy on disk is not usable; trying the one before it", file=str(path), **why)
                found = why["reason"]
            yield path.name, found

    def _proven(self, stored: Stored) -> DesiredState:
        header = envelope.verify_header(self._key, stored.header, stored.signature, self._host)
        whole = msgspec.structs.replace(header, kind=Kind.SNAPSHOT, base=header.generation)
        if header.position < (oldest := self._statefile.oldest()):
            raise Refused(f"generation: {header.position} is older than {oldest}")
        return apply(NO_POLICY, whole, msgspec.json.encode(stored.objects))

    @no_collection()
    def apply_message(self, message: Message, received_ns: int) -> Outcome:
        """One policy message, from bytes to kernel and disk. `received_ns` (monotonic) is when it came in."""
        header = None
        try:
            header, json = envelope.unseal(self._key, message, self._host)
            wanted = apply(self.state, header, json)
            check_floor(wanted.position, self._floor)
            plan = self._install(wanted)
            duration_us = (time.monotonic_ns() - received_ns) // 1000
        except Duplicate:
            return self._duplicate()
        except Exception as error:
            return self._refuse(header, error)
        before, self.state = self.state, wanted
        self.counters.applied += 1
        self.counters.last_duration_us = duration_us
        self.counters.realised_at = time.time()
        log.info(
            "policy realised",
            **_identity(wanted),
            changed=_changes(before, wanted),
            plan=type(plan).__name__.lower(),
            duration_ms=round(duration_us / 1000, 1),
            refused=[f"{refusal.kind}/{refusal.id}: {refusal.reason}" for refusal in self.refusals()],
        )
        self._to_save = message.header, message.signature
        self.save()
        if isinstance(plan, Flip):
            del before
            give_back()
        return Outcome(self._report(duration_us=duration_us), Disposition.DONE)

    def _duplicate(self) -> Outcome:
        self.counters.duplicate += 1
        return Outcome(self._report(), Disposition.DONE)

    def save(self) -> None:
        """Write down what is enforced, where the disk has not got it. Who cannot is told to everybody and
        tries again; no newer policy waits for that."""
        if self._to_save is None:
            return
        try:
            self._statefile.save_policy(*self._to_save, self.state)
        except OSError as error:
            if str(error) != self.not_saved:
                log.error("policy is enforced but not saved; tried again", reason=str(error))
            self.not_saved = str(error)
            return
        if self.not_saved:
            log.info("policy is saved now", **_identity(self.state))
        self._to_save, self.not_saved = None, ""

    def _refuse(self, header: envelope.Header | None, error: Exception) -> Outcome:
        """Keep the last good policy. A snapshot is asked for only where one can help."""
        self.counters.refused += 1
        why = _why(error)
        self._stale = self._stale or why["exc_info"] is not None
        resync = isinstance(error, OutOfStep)
        generation = str(header.generation) if header else ""
        log.error(
            "policy message refused; the last good policy stays in force",
            message=generation,
            resync=resync,
            **why,
            **_identity(self.state),
        )
        report = self._report(Refusal("message", generation, why["reason"]), resync=resync)
        if isinstance(error, Behind):
            # So a manager that knows of nothing so new (restored, or another one) begins a newer epoch.
            epoch, newest = self._floor
            report = msgspec.structs.replace(report, epoch=epoch, generation=newest)
        return Outcome(report, Disposition.REFUSED)

    def vnics_changed(
        self, ports: Mapping[str, Port], bare: Set[str] = frozenset(), anew: Set[str] = frozenset()
    ) -> None:
        """Make the datapath serve exactly `ports`. First what is gone, so that no slot has two owners in one
        bank. A vNIC that cannot be attached is in `self.unattached` and not in `self.ports`, so the next call
        tries it again; those that lost their programs, or have not got them yet, are attached again: the
        `bare` ones, and what the datapath finds. Those that are here `anew` are on another device by the
        number of the one before, of which nothing is true here; no flip of the policy comes before the
        programs are on that."""
        bare, late = (bare | self._datapath.bare()) - anew, self._datapath.late()
        self.unattached = {vnic: failed for vnic, failed in self.unattached.items() if vnic in ports}
        again = [self._attach_anew(ports[vnic]) for vnic in anew & ports.keys()]
        gone = [vnic for vnic in self._datapath.slots if vnic not in ports]
        for vnic in gone:
            self._detach(vnic)
        kept = {
            vnic: port
            for vnic, port in self.ports.items()
            if ports.get(vnic) == port and vnic not in bare | anew | late
        } | {port.vnic: port for port in again if port is not None}
        for vnic in bare & self.ports.keys() & ports.keys():
            self._lost(ports[vnic])
        if gone or anew or self._stale:
            self.ports = kept
            self._refresh()
        new = [self._attach(port) for vnic, port in ports.items() if vnic not in kept]
        attached = kept | {port.vnic: port for port in new if port is not None}
        if attached != self.ports:
            self.ports = attached
            self._refresh()

    def mend(self) -> None:
        """Attach again what has lost its programs, or its place before the programs of others."""
        for vnic in self._datapath.bare() & self.ports.keys():
            self._lost(self.ports[vnic])
            if self._attach(self.ports[vnic]) is None:
                self.ports = {id: port for id, port in self.ports.items() if id != vnic}
        for vnic in self._datapath.behind() & self.ports.keys():
            device = self.ports[vnic].device
            cause = Cause("dfw_filter_behind_another", "CRITICAL", vnic)
            self._incidents.note(
                cause, f"another program sees the packets of {device} first, and may pass them"
            )

    def _lost(self, port: Port) -> None:
        log.warning("vNIC had lost its programs, or their place", vnic=port.vnic, device=port.device)
        cause = Cause("dfw_filter_removed", "CRITICAL", port.vnic)
        self._incidents.note(
            cause, f"somebody took the programs off {port.device}, or put another first; they are back"
        )

    def expect(self, vnics: Iterable[str]) -> None:
        """Their policy is to be in force from the moment on that they are attached. Raises DatapathError."""
        for vnic in vnics:
            self._datapath.reserve(vnic)
        self._refresh()

    def give_up(self, vnics: Iterable[str]) -> None:
        """Those of them that have not come will not."""
        for vnic in vnics:
            self._datapath.give_up(vnic)
        self._refresh()

    def _attach_anew(self, port: Port) -> Port | None:
        self._datapath.forget(port.vnic)
        return self._attach(port)

    def _attach(self, port: Port) -> Port | None:
        try:
            slot = self._datapath.attach(port.vnic, port.ifindex, port.mac)
        except DatapathError as error:
            self._not_attached(port, str(error))
            return None
        self.unattached = {vnic: failed for vnic, failed in self.unattached.items() if vnic != port.vnic}
        log.info(
            "vNIC attached",
            vnic=port.vnic,
            device=port.device,
            slot=slot,
            policy=port.vnic in self.state.vnics,
        )
        return replace(port, slot=slot)

    def _not_attached(self, port: Port, reason: str) -> None:
        """NSX for vSphere's event 301002, "filter config not applied to vNIC"."""
        failed = Unattached(replace(port, slot=-1), reason)
        if self.unattached.get(port.vnic) != failed:
            log.error("vNIC not attached; tried again every second", vnic=port.vnic, reason=reason)
        self.unattached = {**self.unattached, port.vnic: failed}
        self._incidents.note(Cause("dfw_filter_not_applied", "CRITICAL", port.vnic), reason)

    def _detach(self, vnic: str) -> None:
        try:
            self._datapath.detach(vnic)
        except DatapathError as error:
            log.error("vNIC not detached; tried again in a second", vnic=vnic, reason=str(error))
        else:
            log.info("vNIC detached", vnic=vnic)

    def follow_schedules(self) -> None:
        """Rules come into force and go out of it. What fails is tried again the next time."""
        closed = schedule.closed(self.state.rules, self._now())
        if closed == self._closed:
            return
        log.info(
            "schedules turned", opened=sorted(self._closed - closed), closed=sorted(closed - self._closed)
        )
        self._refresh()

    def enforced(self) -> DesiredState:
        """The policy without the rules that are not in force now."""
        return schedule.without(self.state, self._closed)

    # -- what goes out ---------------------------------------------------------------------------------

    def hello(self) -> Hello:
        state = self.state
        digest = digest_text(state.digest)
        return Hello(state.epoch, state.generation, digest, self._version, self.refusals())

    def heartbeat(self) -> Applied:
        """What is in force, said again: so a lost last message is found."""
        return self._report()

    def refusals(self) -> tuple[Refusal, ...]:
        """What of the policy is not in force, and why; vNICs without programs, and policy that is not saved,
        too."""
        generation = str(self.state.generation)
        troubles = {"not in force as it is": self.not_installed, "enforced, but not saved": self.not_saved}
        whole = (Refusal("message", generation, f"{what}: {why}") for what, why in troubles.items() if why)
        unattached = (Refusal("vnics", vnic, failed.reason) for vnic, failed in self.unattached.items())
        return (*whole, *self.state.refusals, *self.warnings, *unattached)

    def _report(self, *message: Refusal, resync: bool = False, duration_us: int = 0) -> Applied:
        state = self.state
        digest = digest_text(state.digest)
        refusals = (*message, *self.refusals())
        return Applied(state.epoch, state.generation, digest, resync, duration_us, refusals)

    # -- desired state to kernel -----------------------------------------------------------------------

    def _refresh(self) -> None:
        """The same policy for other vNICs. Without a policy there is nothing to install. Whatever goes wrong
        the daemon stays: one that a policy ends would end at every start, and hear of no better one."""
        if self.state is NO_POLICY:
            return
        try:
            self._install(self.state)
        except Exception as error:
            self._stale, why = True, _why(error)
            self.not_installed = why["reason"]
            log.error("the policy is not installed as it is; tried again in a second", **why)

    @no_collection()
    def _install(self, state: DesiredState) -> Plan:
        """Raises DatapathError; the kernel then still shows packets the bank it had."""
        closed = schedule.closed(state.rules, self._now())
        image = self._compiler.update(state, self._datapath.places, closed)
        spoilt = self._stale or not self._datapath.emptied.isdisjoint(image.vnics)
        plan, name = diff(None if spoilt else self.image, image), self._name(state, closed)
        if self.image is None and self._datapath.in_force() == name:
            plan = Flip(image, same_policy=True)
        before = self._datapath.last_in_force()
        try:
            plan = self._put(plan, name)
        except Exception:
            self._datapath.remember(before, ahead=True)
            raise
        self._datapath.set_timers(timers(state, self._datapath.places))
        self._datapath.remember(name)
        self.image, self._stale, self._closed, self.not_installed = plan.image, False, closed, ""
        self.warnings = image.warnings
        return plan

    def _put(self, plan: Plan, name: bytes) -> Plan:
        """What has been put into the kernel at last. Raises DatapathError after a few attempts."""
        for attempt in itertools.count(1):
            try:
                if not isinstance(plan, Nothing):
                    # What is in force by this name stays so, also for who comes after a kill right here.
                    if self._datapath.in_force() != name:
                        self._datapath.remember(name, ahead=True)
                    self._datapath.install(plan)
                break
            except DatapathError as error:
                log.warning("the kernel refused the tables", attempt=attempt, reason=str(error))
                # What the unseen bank holds is not known any more: build it whole.
                self._stale, plan = True, diff(None, plan.image)
                if attempt == INSTALL_ATTEMPTS:
                    raise
                time.sleep(INSTALL_PAUSE_S)
        return plan

    def _name(self, state: DesiredState, closed: frozenset[int]) -> bytes:
        """Of all that an image is made of: what a restart finds as it was is not put to flows again."""
        made_of = self._version, state.digest, sorted(closed), sorted(self._datapath.places.items())
        return name_of(state.position, made_of)


def timers(state: DesiredState, here: Iterable[str]) -> dict[str, SessionTimers]:
    """Of the vNICs here, by id, those that have timers of their own."""
    vnics = ((id, state.vnics.get(id)) for id in here)
    return {id: vnic.timers for id, vnic in vnics if vnic and vnic.timers}


def _why(error: Exception) -> dict[str, Any]:
    """In the log's words. What nobody expected is a mistake of ours, and is told with where it happened."""
    if isinstance(error, Refused | DatapathError):
        return {"reason": str(error), "exc_info": None}
    return {"reason": f"internal error: {error!r}", "exc_info": error}


def _identity(state: DesiredState) -> dict[str, int | str]:
    return {"epoch": state.epoch, "generation": state.generation, "digest": digest_text(state.digest)[:12]}


def _sizes(state: DesiredState) -> dict[str, int]:
    return {kind: len(state.raw[kind]) for kind in KINDS}


def _changes(before: DesiredState, after: DesiredState) -> str:
    """Objects put and deleted, as in "+3 rules, -1 vnics"; what is put over itself does not count."""
    parts = []
    for kind in KINDS:
        old, new = before.raw[kind], after.raw[kind]
        touched = different(old, new)
        put = sum(id in new for id in touched)
        deleted = len(touched) - put
        parts += [f"+{put} {kind}"] * bool(put) + [f"-{deleted} {kind}"] * bool(deleted)
    return ", ".join(parts) or "nothing"
