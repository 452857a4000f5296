"""What a person asks for: the options of `lab up`, understood and checked before anything is started.

    web@host1#tier|web,linux+blue      VM "web" on host "host1", tags tier|web and linux, on segment "blue"

Names become parts of namespaces and of devices; the kernel limits a device's to 15 characters: hence
the lengths.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MAX_HOSTS: Final = 64
MAX_VMS: Final = 200
MAX_SEGMENTS: Final = 64
DEFAULT_SEGMENT: Final = "default"
_NUMBERS: Final = {"overlay": ("a VNI", 2**24 - 1, 5000), "vlan": ("a VLAN id", 4094, 100)}
"""By transport: what a segment's number is, its largest, and that of the default segment."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VM = re.compile(r"(?P<name>[^@#+]*)(@(?P<host>[^@#+]*))?(#(?P<tags>[^@#+]*))?(\+(?P<segment>[^@#+]*))?")


class BadSpec(ValueError):
    """Nothing can be built like this; the text names what is wrong."""


class Default(StrEnum):
    """Action of the default rule."""

    ALLOW = "allow"
    DROP = "drop"


class Transport(StrEnum):
    """What joins a segment's bridges of several hosts, in the words of NSX's transport zones: VXLAN, or one
    bridge in between, with a VLAN a segment."""

    OVERLAY = "overlay"
    VLAN = "vlan"


@dataclass(frozen=True)
class Tag:
    """Written "scope|tag" as in NSX, or "tag" alone."""

    scope: str
    tag: str

    def __str__(self) -> str:
        return f"{self.scope}|{self.tag}" if self.scope else self.tag


@dataclass(frozen=True)
class Segment:
    """`number`: its VNI or its VLAN id."""

    name: str
    number: int


@dataclass(frozen=True)
class Vm:
    name: str
    host: str
    tags: tuple[Tag, ...] = ()
    segment: str = DEFAULT_SEGMENT


@dataclass(frozen=True)
class Spec:
    """Checked: every name that is used is there, none is there twice."""

    hosts: tuple[str, ...]
    vms: tuple[Vm, ...]
    segments: tuple[Segment, ...]
    clusters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    datacenters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    default: Default = Default.DROP
    transport: Transport = Transport.OVERLAY


def parse(
    *,
    hosts: int = 2,
    vms: Sequence[str] = (),
    segments: Sequence[str] = (),
    clusters: Sequence[str] = (),
    datacenters: Sequence[str] = (),
    default: str = Default.DROP,
    transport: str = Transport.OVERLAY,
) -> Spec:
    """The options as typed. Raises BadSpec."""
    if not 1 <= hosts <= MAX_HOSTS:
        raise BadSpec(f"--hosts {hosts}: from 1 to {MAX_HOSTS}")
    names = tuple(f"host{number}" for number in range(1, hosts + 1))
    parsed_segments = _segments(segments, Transport(transport))
    known_segments = {segment.name for segment in parsed_segments}
    parsed_clusters = _members("--cluster", clusters, "host", set(names))
    return Spec(
        hosts=names,
        vms=_vms(vms, names, known_segments),
        segments=parsed_segments,
        clusters=parsed_clusters,
        datacenters=_members("--datacenter", datacenters, "cluster", set(parsed_clusters)),
        default=Default(default),
        transport=Transport(transport),
    )


def check_name(lab: str) -> None:
    """The name of a lab. No dash, so that no lab's namespaces look like another's."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,14}", lab):
        raise BadSpec(f"lab name {lab!r}: a small letter, then up to 14 small letters and digits")


def parse_tag(text: str) -> Tag:
    """NSX counts at most 128 characters of scope and 256 of tag."""
    scope, bar, tag = text.rpartition("|")
    if not tag or (bar and not scope) or "|" in scope:
        raise BadSpec(f"tag {text!r}: write scope|tag or tag")
    if len(scope) > 128 or len(tag) > 256:
        raise BadSpec(f"tag {text!r}: a scope has at most 128 characters, a tag 256")
    if not text.isprintable():
        raise BadSpec(f"tag {text!r}: only characters that can be printed")
    return Tag(scope, tag)


def _vms(texts: Sequence[str], hosts: Sequence[str], segments: set[str]) -> tuple[Vm, ...]:
    if len(texts) > MAX_VMS:
        raise BadSpec(f"--vm: {len(texts)} VMs, at most {MAX_VMS}")
    vms: dict[str, Vm] = {}
    for number, text in enumerate(texts):
        vm = _vm(text, hosts[number % len(hosts)])
        if vm.name in vms:
            raise BadSpec(f"--vm {text}: there is a VM {vm.name!r} already")
        if vm.host not in hosts:
            raise BadSpec(f"--vm {text}: no host {vm.host!r}, there are {', '.join(hosts)}")
        if vm.segment not in segments:
            raise BadSpec(f"--vm {text}: no segment {vm.segment!r}, there are {', '.join(sorted(segments))}")
        vms[vm.name] = vm
    return tuple(vms.values())


def _vm(text: str, host: str) -> Vm:
    """`host` is where it goes when it does not say."""
    found = _VM.fullmatch(text)
    if not found:
        raise BadSpec(f"--vm {text}: write NAME[@HOST][#tag,tag][+segment]")
    tags = [] if found["tags"] is None else found["tags"].split(",")
    if len(tags) > 30:
        raise BadSpec(f"--vm {text}: {len(tags)} tags, at most 30")
    return Vm(
        name=_name("--vm", text, found["name"], 14),
        host=host if found["host"] is None else found["host"],
        tags=tuple(parse_tag(tag) for tag in tags),
        segment=DEFAULT_SEGMENT if found["segment"] is None else found["segment"],
    )


def _segments(texts: Sequence[str], transport: Transport) -> tuple[Segment, ...]:
    kind, largest, default = _NUMBERS[transport]
    segments = {DEFAULT_SEGMENT: Segment(DEFAULT_SEGMENT, default)}
    for text in texts:
        left, _, right = text.partition("=")
        name = _name("--segment", text, left, 12)
        if not right.isascii() or not right.isdecimal() or not 1 <= int(right) <= largest:
            raise BadSpec(f"--segment {text}: {kind} is a number from 1 to {largest}")
        if name in segments:
            raise BadSpec(f"--segment {text}: there is a segment {name!r} already")
        if any(segment.number == int(right) for segment in segments.values()):
            raise BadSpec(f"--segment {text}: {kind.removeprefix('a ')} {right} is taken")
        segments[name] = Segment(name, int(right))
    if len(segments) > MAX_SEGMENTS:
        raise BadSpec(f"--segment: {len(segments)} segments, at most {MAX_SEGMENTS}")
    return tuple(segments.values())


def _members(option: str, texts: Sequence[str], kind: str, known: set[str]) -> dict[str, tuple[str, ...]]:
    """NAME=MEMBER,MEMBER; a member belongs to one of them only."""
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for text in texts:
        left, _, right = text.partition("=")
        name = _name(option, text, left, 64)
        if name in found:
            raise BadSpec(f"{option} {text}: {name!r} is there already")
        members = tuple(right.split(",")) if right else ()
        for member in members:
            if member not in known:
                raise BadSpec(
                    f"{option} {text}: no {kind} {member!r}, there are {', '.join(sorted(known)) or 'none'}"
                )
            if member in taken:
                raise BadSpec(f"{option} {text}: {kind} {member!r} is a member already")
            taken.add(member)
        found[name] = members
    return found


def _name(option: str, text: str, name: str, longest: int) -> str:
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise BadSpec(
            f"{option} {text}: name {name!r}: 1 to {longest} letters, digits, '-', '_', first no '-' or '_'"
        )
    return name
