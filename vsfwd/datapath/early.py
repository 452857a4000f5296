"""Early drops: bpf/early.c by XDP on a device under flood, on demand and apart from all policy.

Owns nothing that outlives a call: the device holds the program, the program its maps, and they end together.
A daemon with no memory recognises an early drop by the name of the program, which also tells the version of
its source, and finds list, rate and counters in the program's maps. So it works on without a daemon, and
there is nothing to clean up after a device that is gone."""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import pack_prefix, unpack_prefix
from vsfwd.datapath.schema import SOURCE, TYPES, Outcome
from vsfwd.image import PrefixKey

OTHER_VERSION: Final = "other version"
_TEXT: Final = (SOURCE / "early.c").read_text()
_NAMES: Final = "early_"
_NAME: Final = _NAMES + hashlib.sha256((TYPES + _TEXT).encode()).hexdigest()[:8]
_SAID: Final = struct.Struct("<2I")
"""The end of `struct early`: the limit as it was asked for."""
_LOOPBACK: Final = 772
"""ARPHRD_LOOPBACK of linux/if_arp.h."""
_MODES: Final = {"xdp": "native", "xdpgeneric": "generic"}
"""pyroute2's words and ours."""
_FLAGS: Final = {"native": 4, "generic": 2}
"""XDP_FLAGS_DRV_MODE and XDP_FLAGS_SKB_MODE of linux/if_link.h, in the order they are tried."""
_ONLY_IF_NONE: Final = 1
"""XDP_FLAGS_UPDATE_IF_NOEXIST."""


@dataclass(frozen=True)
class EarlyDrop:
    """What is in force on one device. `mode` is native, generic, or OTHER_VERSION, which says that another
    vsfwd attached it and nothing else is known; `rate` is packets a second of one source, 0 without a
    limit."""

    device: str
    mode: str
    blocked: tuple[PrefixKey, ...] = ()
    rate: int = 0
    burst: int = 0
    passed: int = 0
    dropped_blocked: int = 0
    dropped_rate: int = 0


class _Found(NamedTuple):
    """The XDP program on a device."""

    fd: int
    name: str
    mode: str


class Early:
    """Early drops of this network namespace."""

    def __init__(self, programs: Programs) -> None:
        self._key = programs.layouts("prefixes")[0]
        self._programs = programs
        self._netlink = IPRoute()

    def attach(self, device: str, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        """Drops on `device` from now on what comes from `blocked`, and of each source what is beyond `rate`
        packets a second and `burst` at once. Where that is done already, list and limit are replaced, without
        a moment that has neither, and counters go on."""
        with self._program(self._link(device)) as found:
            if found is None:
                self._load(device, blocked, rate, burst)
            elif found.name != _NAME:
                raise DatapathError(f"device {device}: has the XDP program {found.name!r}; detach that first")
            else:
                self._fill(device, found.fd, blocked, rate, burst)

    def detach(self, device: str) -> None:
        link = self._link(device)
        with self._program(link) as found:
            if found is None or not found.name.startswith(_NAMES):
                raise DatapathError(f"device {device}: has no early drop")
            try:
                self._set(link["index"], -1, _FLAGS[found.mode])
            except NetlinkError as error:
                raise DatapathError(f"device {device}: detach the early drop: {error}") from None

    def all(self) -> list[EarlyDrop]:
        drops = []
        for link in self._netlink.get_links():
            with self._program(link) as found:
                if found is not None and found.name.startswith(_NAMES):
                    drops.append(self._read(link.get_attr("IFLA_IFNAME"), found))
        return drops

    @contextmanager
    def program(self, device: str) -> Iterator[int]:
        """The program on a device, for test runs."""
        with self._program(self._link(device)) as found:
            if found is None:
                raise DatapathError(f"device {device}: has no XDP program")
            yield found.fd

    def _link(self, device: str) -> Any:
        try:
            (link,) = self._netlink.link("get", ifname=device)
        except NetlinkError as error:
            raise DatapathError(f"device {device}: {os.strerror(error.code)}") from None
        if link["ifi_type"] == _LOOPBACK:
            raise DatapathError(f"device {device}: the loopback carries what this host says to itself")
        return link

    @contextmanager
    def _program(self, link: Any) -> Iterator[_Found | None]:
        """The XDP program of a device, whosever it is."""
        xdp = link.get_attr("IFLA_XDP")
        number = xdp and xdp.get_attr("IFLA_XDP_PROG_ID")
        with ExitStack() as closing:
            try:
                fd = closing.enter_context(bpf.program_by_id(number)) if number else None
            except FileNotFoundError:  # gone meanwhile
                fd = None
            if fd is None:
                yield None
            else:
                mode = _MODES.get(xdp.get_attr("IFLA_XDP_ATTACHED"), "offloaded")
                yield _Found(fd, bpf.program_info(fd).name, mode)

    def _load(self, device: str, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        """A program of its own, filled before it sees a packet; native where the driver has that."""
        from vsfwd.datapath.build import XDP, compile_text, load_function  # LLVM, only where it is needed

        module = compile_text(f"#define EARLY {_NAME}\n#line 1\n{_TEXT}", self._programs.pins)
        refused = []
        try:
            program = load_function(module, _NAME, XDP)
            self._fill(device, program, blocked, rate, burst)
            index = self._link(device)["index"]
            for mode, flag in _FLAGS.items():
                try:
                    return self._set(index, program, flag | _ONLY_IF_NONE)
                except NetlinkError as error:
                    refused.append(f"{mode}: {os.strerror(error.code)}")
        finally:
            module.cleanup()
        raise DatapathError(f"device {device}: attach the early drop: {', '.join(refused)}")

    def _set(self, index: int, program: int, flags: int) -> None:
        """-1 for no program."""
        attributes = [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", flags)]
        self._netlink.link("set", index=index, xdp={"attrs": attributes})

    def _fill(self, device: str, program: int, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        keys = [pack_prefix(self._key, prefix) for prefix in blocked]
        try:
            with _maps(program) as maps, ExitStack() as closing:
                trie = bpf.create_map(
                    bpf.MapType.LPM_TRIE, self._key.size, 4, max(len(keys), 1), bpf.F_NO_PREALLOC, "blocked"
                )
                closing.callback(os.close, trie)
                bpf.update_batch(trie, b"".join(keys), bytes(4 * len(keys)), len(keys))
                bpf.put_inner(maps["blocked"], 0, trie)
                bpf.update(
                    maps["settings"], bytes(4), self._programs.limit(rate, burst) + _SAID.pack(rate, burst)
                )
        except OSError as error:
            raise DatapathError(
                f"device {device}: write {len(keys)} prefixes of the early drop: {error}"
            ) from None

    def _read(self, device: str, found: _Found) -> EarlyDrop:
        if found.name != _NAME:
            return EarlyDrop(device, OTHER_VERSION)
        with _maps(found.fd) as maps:
            trie = bpf.inner_map(maps["blocked"], 0)
            try:
                pairs = bpf.items(trie, self._key.size, 4, 4096) if trie is not None else ()
                blocked = tuple(sorted(unpack_prefix(self._key, key) for key, _ in pairs))
            finally:
                if trie is not None:
                    os.close(trie)
            return EarlyDrop(
                device,
                found.mode,
                blocked,
                *_SAID.unpack((bpf.lookup(maps["settings"], bytes(4), 24) or bytes(24))[16:]),
                *(_count(maps["counts"], which) for which in Outcome),
            )

    def close(self) -> None:
        self._netlink.close()


@contextmanager
def _maps(program: int) -> Iterator[dict[str, int]]:
    """Those of a program, by name."""
    fds = bpf.program_maps(program)
    try:
        yield {bpf.map_name(fd): fd for fd in fds}
    finally:
        for fd in fds:
            os.close(fd)


def _count(fd: int, outcome: int) -> int:
    cpus = bpf.possible_cpus()
    return sum(
        struct.unpack(f"<{cpus}Q", bpf.lookup(fd, struct.pack("<I", outcome), 8 * cpus) or bytes(8 * cpus))
    )
