"""Early drops: bpf/early.c by XDP on a device under flood, on demand and apart from all policy.

Owns the pins of each, `<pin_dir>/early/<device number>-<program id>/`: by them a daemon with no memory
recognises what a device bears as an early drop, by the name of the program the version of its source, and
finds list, rate and counters in its maps. It works on without a daemon. Pins of one that has ended are
removed by `tidy`."""

import hashlib
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vsfwd.datapath import bpf
from vsfwd.datapath.compiled import Compiled, compiled
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.inner import INNER, MapOfMaps, tidy
from vsfwd.datapath.loader import Programs
from vsfwd.datapath.maps import pack_prefix, unpack_prefix
from vsfwd.datapath.schema import SOURCE, TYPES, Outcome
from vsfwd.image import PrefixKey

OTHER_VERSION: Final = "other version"
_TEXT: Final = (SOURCE / "early.c").read_text()
_NAMES: Final = "early_"
_NAME: Final = _NAMES + hashlib.sha256((TYPES + _TEXT).encode()).hexdigest()[:8]
_DEFINED: Final = f"#define EARLY {_NAME}\n#line 1\n{_TEXT}"
_SAID: Final = struct.Struct("<2I")
"""The end of `struct early`: the limit as it was asked for."""
PINS: Final = "early"
"""The directory of all their pins, below `pin_dir`."""
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
    """The XDP program on a device, and where it is pinned if it is ours."""

    id: int
    mode: str
    pins: Path

    @property
    def name(self) -> str | None:
        """None: it is another tool's."""
        return next((path.name for path in self.pins.glob(f"{_NAMES}*")), None)


def compile_ahead(cache_dir: Path) -> None:
    """So that the first early drop finds this text compiled. Raises DatapathError."""
    compiled(_DEFINED, "early", cache_dir)


class Early:
    """Early drops of this network namespace."""

    def __init__(self, programs: Programs) -> None:
        self._key = programs.layouts("prefixes")[0]
        self._programs = programs
        self._pins = programs.pins.parent / PINS
        self._netlink = IPRoute()
        self._made: Compiled | None = None

    def compile(self) -> Compiled:
        """On any thread, since a compiler takes its time. Raises DatapathError."""
        if self._made is None:
            self._made = compiled(_DEFINED, "early", self._programs.cache_dir)
        return self._made

    def attach(self, device: str, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        """Drops on `device` from now on what comes from `blocked`, and of each source what is beyond `rate`
        packets a second and `burst` at once. Where that is done already, list and limit are replaced, without
        a moment that has neither, and counters go on."""
        found = _found(self._pins, self._link(device))
        if found is None:
            self._load(device, blocked, rate, burst)
        elif found.name != _NAME:
            whose = found.name or "of another tool"
            raise DatapathError(
                f"device {device}: has the XDP program {found.id} ({whose}); detach that first"
            )
        else:
            self._fill(device, found.pins, blocked, rate, burst)

    def detach(self, device: str) -> None:
        if not take_off(self._netlink, self._pins, self._link(device)):
            raise DatapathError(f"device {device}: has no early drop")

    def all(self) -> list[EarlyDrop]:
        with_program = ((link, _found(self._pins, link)) for link in self._netlink.get_links())
        return [
            self._read(link.get_attr("IFLA_IFNAME"), found)
            for link, found in with_program
            if found and found.name
        ]

    def tidy(self) -> None:
        """No pins of an early drop that has ended, with its device or because somebody took it off."""
        for pins in self._pins.iterdir() if self._pins.is_dir() else ():
            try:
                (link,) = self._netlink.link("get", index=int(pins.name.partition("-")[0]))
                found = _found(self._pins, link)
            except NetlinkError:
                found = None
            if found is None or found.pins != pins:
                shutil.rmtree(pins)

    @contextmanager
    def program(self, device: str) -> Iterator[int]:
        """The program on a device, for test runs."""
        found = _found(self._pins, self._link(device))
        if found is None or found.name is None:
            raise DatapathError(f"device {device}: has no early drop")
        with bpf.closing(bpf.pinned(found.pins / found.name)) as fd:
            yield fd

    def _link(self, device: str) -> Any:
        try:
            (link,) = self._netlink.link("get", ifname=device)
        except NetlinkError as error:
            raise DatapathError(f"device {device}: {os.strerror(error.code)}") from None
        if link["ifi_type"] == _LOOPBACK:
            raise DatapathError(f"device {device}: the loopback carries what this host says to itself")
        return link

    def _load(self, device: str, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        """A program of its own, pinned and filled before it sees a packet; native where the driver has
        that."""
        index, refused = self._link(device)["index"], []
        unfinished = self._pins / f"{index}-unfinished"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            (unfinished / INNER).mkdir(parents=True)
            with self.compile().loaded(bpf.ProgramType.XDP, unfinished) as programs:
                program = programs[_NAME]
                bpf.pin(program, unfinished / _NAME)
                self._fill(device, unfinished, blocked, rate, burst)
                pins = unfinished.rename(self._pins / f"{index}-{bpf.object_id(program)}")
                for mode, flag in _FLAGS.items():
                    try:
                        return _set(self._netlink, index, program, flag | _ONLY_IF_NONE)
                    except NetlinkError as error:
                        refused.append(f"{mode}: {os.strerror(error.code)}")
            shutil.rmtree(pins)
        except OSError as error:
            raise DatapathError(f"device {device}: pin the early drop: {error}") from None
        raise DatapathError(f"device {device}: attach the early drop: {', '.join(refused)}")

    def _fill(self, device: str, pins: Path, blocked: Sequence[PrefixKey], rate: int, burst: int) -> None:
        keys = [pack_prefix(self._key, prefix) for prefix in blocked]
        try:
            made = bpf.create_map(
                bpf.MapType.LPM_TRIE, self._key.size, 4, max(len(keys), 1), bpf.F_NO_PREALLOC, "blocked"
            )
            with bpf.closing(made) as trie, _maps(pins) as maps:
                bpf.update_batch(trie, b"".join(keys), bytes(4 * len(keys)), len(keys))
                lists = MapOfMaps(maps["blocked"], pins / INNER)
                tidy(pins / INNER, [lists])
                lists.put(0, trie)
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
        with _maps(found.pins) as maps:
            trie = MapOfMaps(maps["blocked"], found.pins / INNER).get(0)
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


def take_off(netlink: IPRoute, pins: Path, link: Any) -> bool:
    """Whether there was an early drop of ours, of whichever version, on a device. `pins`: where they are
    pinned. Raises DatapathError."""
    found = _found(pins, link)
    if found is None or found.name is None:
        return False
    try:
        _set(netlink, link["index"], -1, _FLAGS[found.mode])
    except NetlinkError as error:
        device = link.get_attr("IFLA_IFNAME")
        raise DatapathError(f"device {device}: detach the early drop: {error}") from None
    shutil.rmtree(found.pins)
    return True


def _found(pins: Path, link: Any) -> _Found | None:
    """The XDP program of a device, whosever it is."""
    xdp = link.get_attr("IFLA_XDP")
    id_ = xdp and xdp.get_attr("IFLA_XDP_PROG_ID")
    if not id_:
        return None
    mode = _MODES.get(xdp.get_attr("IFLA_XDP_ATTACHED"), "offloaded")
    return _Found(id_, mode, pins / f"{link['index']}-{id_}")


def _set(netlink: IPRoute, index: int, program: int, flags: int) -> None:
    """-1 for no program."""
    attributes = [("IFLA_XDP_FD", program), ("IFLA_XDP_FLAGS", flags)]
    netlink.link("set", index=index, xdp={"attrs": attributes})


@contextmanager
def _maps(pins: Path) -> Iterator[dict[str, int]]:
    """Those of an early drop, by name."""
    with ExitStack() as closing:
        fds = {}
        for path in pins.iterdir():
            if path.is_file() and not path.name.startswith(_NAMES):
                fds[path.name] = bpf.pinned(path)
                closing.callback(os.close, fds[path.name])
        yield fds


def _count(fd: int, outcome: int) -> int:
    cpus = bpf.possible_cpus()
    return sum(
        struct.unpack(f"<{cpus}Q", bpf.lookup(fd, struct.pack("<I", outcome), 8 * cpus) or bytes(8 * cpus))
    )
