"""Attaches the programs to devices: the only place that says ingress and egress.

The kernel sees a vNIC from the host side of its veth: what the workload sends is *ingress* there, what it
receives is *egress*. In and out, everywhere else, are the workload's.

Two ways, and the kernel says which: a tcx chain (Linux 6.6), else filters of a clsact qdisc. Both outlive the
daemon, and in both a program is replaced in one step, so there is no moment without one. A restarted daemon
recognises its programs by their pins (`known`), and filters by their names.

Of each program there are two, the same but for the name: a chain takes a program only once, and to come to
its front again without a moment outside of it takes another."""

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.known import Known

_CHAIN: Final = {"out": 46, "in": 47}  # BPF_TCX_INGRESS and BPF_TCX_EGRESS of linux/bpf.h
_LOOPBACK: Final = 1
_PARENT: Final = {"out": 0xFFFFFFF2, "in": 0xFFFFFFF3}  # clsact's ingress and egress
_FILTER: Final = {"out": "vsfwd_out", "in": "vsfwd_in"}
_ALL_PROTOCOLS: Final = 3
_PROGRAM_ID: Final = 11
"""TCA_BPF_ID of linux/pkt_cls.h."""
_PRIORITY: Final = 1
_HANDLE: Final = 1
_GONE: Final = (errno.ENODEV, errno.ENOENT)
Twins = Mapping[str, tuple[int, int]]
"""Descriptors of the programs for each direction."""
_NO_FILTER: Final = (*_GONE, errno.EINVAL)
"""EINVAL is also the answer where there is no clsact qdisc."""


def kernel_has_tcx() -> bool:
    try:
        bpf.attached_programs(_LOOPBACK, _CHAIN["out"])
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


class Hooks:
    """Programs on the devices of this network namespace."""

    def __init__(self, pin_dir: Path) -> None:
        """`pin_dir` is where our programs are pinned, of all versions."""
        try:
            self.known = Known(pin_dir)
        except OSError as error:
            raise DatapathError(f"open the programs below {pin_dir}: {error}") from None
        self._clsact = _Clsact()
        self._tcx = _Tcx(self.known) if kernel_has_tcx() else None

    @property
    def way(self) -> str:
        return "tcx" if self._tcx else "clsact"

    def attached(self, ifindex: int) -> bool:
        """Whether both programs, of whichever version, are on the device that has this number now. Where
        there is tcx, those of a daemon before it had come count, too."""
        return (self._tcx is not None and self._tcx.attached(ifindex)) or self._clsact.attached(ifindex)

    def programs(self, ifindex: int) -> set[int]:
        """Ids of ours on a device, of whichever version."""
        return (self._tcx.programs(ifindex) if self._tcx else set()) | self._clsact.programs(ifindex)

    def borne(self) -> set[int]:
        """Ids of ours on all devices."""
        return {id_ for ifindex, _ in socket.if_nameindex() for id_ in self.programs(ifindex)}

    def bare(self, devices: Iterable[int]) -> set[int]:
        """Devices on which a program is missing, or behind another tool's; cheap enough for every second. By
        clsact only a qdisc that is gone is seen here: of a single filter the kernel sends a message."""
        return (self._tcx or self._clsact).bare(devices)

    def behind(self, ifindex: int) -> bool:
        """Whether another program sees packets before ours, and may let them pass. By clsact that is another
        filter of the first priority, since of those the latest is asked first."""
        try:
            return (self._tcx or self._clsact).behind(ifindex)
        except (OSError, NetlinkError) as error:
            raise DatapathError(f"look at the programs of device {ifindex}: {error}") from None

    def attach(self, ifindex: int, twins: Twins) -> None:
        """Both programs, in place of whichever version of them is there, and before those of others."""
        try:
            if self._tcx is None:
                self._clsact.attach(ifindex, twins)
            else:
                self._tcx.attach(ifindex, twins)
                self._clsact.detach(ifindex)
        except (OSError, NetlinkError) as error:
            raise DatapathError(f"attach the programs to device {ifindex}: {error}") from None

    def detach(self, ifindex: int) -> None:
        """No program of ours on the device afterwards. A device that is gone has none."""
        try:
            if self._tcx is not None:
                self._tcx.detach(ifindex)
            self._clsact.detach(ifindex)
        except (OSError, NetlinkError) as error:
            raise DatapathError(f"detach the programs from device {ifindex}: {error}") from None

    def close(self) -> None:
        self.known.close()
        self._clsact.close()

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Tcx:
    """Without a bpf_link, which would end with the daemon or have to be pinned."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def _ours(self, chain: list[int]) -> list[int]:
        return [id_ for id_ in chain if id_ in self._known]

    def programs(self, ifindex: int) -> set[int]:
        return {id_ for direction in _CHAIN for id_ in self._ours(self._chain(ifindex, direction))}

    def attached(self, ifindex: int) -> bool:
        return all(self._ours(self._chain(ifindex, direction)) for direction in _CHAIN)

    def bare(self, devices: Iterable[int]) -> set[int]:
        return {ifindex for ifindex in devices if self.behind(ifindex) or not self.attached(ifindex)}

    def behind(self, ifindex: int) -> bool:
        chains = (self._chain(ifindex, direction) for direction in _CHAIN)
        return any(self._ours(chain)[:1] != chain[:1] for chain in chains)

    def attach(self, ifindex: int, twins: Twins) -> None:
        """Where a chain refuses, what the other one had is there again: a flow that one direction finds in
        the tables of one version, and the other in those of another, does not go on."""
        with ExitStack() as unless_done:
            for direction, pair in twins.items():
                chain = self._chain(ifindex, direction)
                first, rest = self._ours(chain)[:1], self._ours(chain)[1:]
                self._take_off(ifindex, direction, rest)
                ids = {bpf.object_id(program): program for program in pair}
                other = next(program for id_, program in ids.items() if id_ not in first)
                if not first or first != chain[:1]:
                    bpf.attach_first(ifindex, _CHAIN[direction], other)
                    self._take_off(ifindex, direction, first)
                elif first[0] not in ids:
                    bpf.replace_program(ifindex, _CHAIN[direction], other, self._known[first[0]])
                else:
                    continue
                if first:
                    before = self._known[first[0]]
                    unless_done.callback(bpf.replace_program, ifindex, _CHAIN[direction], before, other)
            unless_done.pop_all()

    def detach(self, ifindex: int) -> None:
        for direction in _CHAIN:
            self._take_off(ifindex, direction, self._ours(self._chain(ifindex, direction)))

    def _take_off(self, ifindex: int, direction: str, programs: list[int]) -> None:
        for program in programs:
            try:
                bpf.detach_program(ifindex, _CHAIN[direction], self._known[program])
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def _chain(self, ifindex: int, direction: str) -> list[int]:
        """Ids, in the order they run."""
        try:
            return bpf.attached_programs(ifindex, _CHAIN[direction])
        except OSError as error:
            if error.errno in _GONE:
                return []
            raise


def filter_name(message: Any) -> str:
    """Of a filter that netlink tells of: what its program was attached as."""
    options = message.get_attr("TCA_OPTIONS") if message.get_attr("TCA_KIND") == "bpf" else None
    return (options.get_attr("TCA_BPF_NAME") if options else None) or ""


def is_ours(message: Any) -> bool:
    return filter_name(message) in _FILTER.values()


def _program_id(message: Any) -> int:
    """pyroute2 does not know the attribute, and leaves it as it came."""
    for name, attribute in message.get_attr("TCA_OPTIONS")["attrs"]:
        if name == "UNKNOWN" and attribute["header"]["type"] == _PROGRAM_ID:
            return int(struct.unpack_from("<I", attribute.data, attribute.offset + 4)[0])
    raise DatapathError(f"device {message['index']}: the kernel does not tell which program a filter has")


class _Clsact:
    """A filter is replaced where it stands: same parent, priority and handle."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def attached(self, ifindex: int) -> bool:
        return all(self._filtered(ifindex, direction) for direction in _PARENT)

    def programs(self, ifindex: int) -> set[int]:
        filters = (each for direction in _PARENT for each in self._filters(ifindex, direction))
        return {_program_id(each) for each in filters if is_ours(each)}

    def bare(self, devices: Iterable[int]) -> set[int]:
        qdiscs = self._netlink.get_qdiscs()
        return set(devices) - {qdisc["index"] for qdisc in qdiscs if qdisc.get_attr("TCA_KIND") == "clsact"}

    def behind(self, ifindex: int) -> bool:
        return any(
            _FILTER[direction] in (names := self._names(ifindex, direction))
            and names[0] != _FILTER[direction]
            for direction in _PARENT
        )

    def attach(self, ifindex: int, twins: Twins) -> None:
        try:
            self._netlink.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        for direction, (program, _) in twins.items():
            self._netlink.tc(
                "replace-filter",
                "bpf",
                ifindex,
                _HANDLE,
                fd=program,
                name=_FILTER[direction],
                parent=_PARENT[direction],
                prio=_PRIORITY,
                protocol=_ALL_PROTOCOLS,
                classid=1,
                direct_action=True,
            )

    def detach(self, ifindex: int) -> None:
        """The qdisc stays: others may have filters in it."""
        for direction in _PARENT:
            if self._filtered(ifindex, direction):
                self._netlink.tc(
                    "del-filter",
                    "bpf",
                    ifindex,
                    _HANDLE,
                    parent=_PARENT[direction],
                    prio=_PRIORITY,
                    protocol=_ALL_PROTOCOLS,
                )

    def _filtered(self, ifindex: int, direction: str) -> bool:
        return _FILTER[direction] in self._names(ifindex, direction)

    def _names(self, ifindex: int, direction: str) -> list[str]:
        """Those that are no programs have none."""
        return [filter_name(each) for each in self._filters(ifindex, direction)]

    def _filters(self, ifindex: int, direction: str) -> list[Any]:
        """In the order they run."""
        try:
            filters = list(self._netlink.get_filters(ifindex, parent=_PARENT[direction]))
        except NetlinkError as error:
            if error.code in _NO_FILTER:
                return []
            raise
        return [each for each in filters if each["handle"]]

    def close(self) -> None:
        self._netlink.close()
