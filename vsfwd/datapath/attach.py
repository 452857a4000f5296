"""Attaches the programs to devices: the only place that says ingress and egress.

The kernel sees a vNIC from the host side of its veth: what the workload sends is *ingress* there, what it
receives is *egress*. In and out, everywhere else, are the workload's.

A filter is replaced in one step (same parent, priority and handle), so there is no moment without a program.
A restarted daemon recognises its filters by that place and by their name."""

import errno
import re
from types import TracebackType
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vsfwd.datapath.errors import DatapathError

_CLSACT_PARENT: Final = 0xFFFFFFF1
_PARENT: Final = {"out": 0xFFFFFFF2, "in": 0xFFFFFFF3}  # clsact's ingress and egress
_ALL_PROTOCOLS: Final = 3
_PRIORITY: Final = 1
_HANDLE: Final = 1
_NAME: Final = re.compile("vsfwd_(in|out)")
_GONE: Final = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


class Hooks:
    """Filters on the devices of this network namespace."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def attached(self, ifindex: int) -> bool:
        """Whether a program of ours is on the device that has this number now."""
        try:
            filters = [
                f for parent in _PARENT.values() for f in self._netlink.get_filters(ifindex, parent=parent)
            ]
        except NetlinkError as error:
            if error.code in _GONE:
                return False
            raise
        options = (f.get_attr("TCA_OPTIONS") for f in filters if f.get_attr("TCA_KIND") == "bpf")
        return any(_NAME.fullmatch(found.get_attr("TCA_BPF_NAME") or "") for found in options if found)

    def attach(self, ifindex: int, vnic_in: int, vnic_out: int) -> None:
        """Both programs, in place of whichever version of them is there."""
        try:
            try:
                self._netlink.tc("add", "clsact", ifindex)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            self._filter(ifindex, "in", vnic_in)
            self._filter(ifindex, "out", vnic_out)
        except NetlinkError as error:
            raise DatapathError(f"attach the programs to device {ifindex}: {error}") from None

    def _filter(self, ifindex: int, direction: str, program: int) -> None:
        self._netlink.tc(
            "replace-filter",
            "bpf",
            ifindex,
            _HANDLE,
            fd=program,
            name=f"vsfwd_{direction}",
            parent=_PARENT[direction],
            prio=_PRIORITY,
            protocol=_ALL_PROTOCOLS,
            classid=1,
            direct_action=True,
        )

    def detach(self, ifindex: int) -> None:
        """No program of ours on the device afterwards. A device that is gone has none."""
        for parent in _PARENT.values():
            try:
                self._netlink.tc(
                    "del-filter",
                    "bpf",
                    ifindex,
                    _HANDLE,
                    parent=parent,
                    prio=_PRIORITY,
                    protocol=_ALL_PROTOCOLS,
                )
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise DatapathError(f"detach the programs from device {ifindex}: {error}") from None

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
