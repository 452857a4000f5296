"""The context agent: tells the manager what guests say of themselves, and who is logged on to them, as the
context agent of an NSX host does for guest introspection.

Whatever knows a guest - VMware's or QEMU's guest tools, a hypervisor's hook, the lab - keeps a file for it in
`guests_dir` of vsfwd.toml, ID-OF-THE-VM.json, written beside and renamed:

    {"os_name": "Debian 12", "computer_name": "web01",
     "users": [{"name": "alice", "domain": "EXAMPLE", "session": "ssh", "since": 1795390000}]}

Every field may be left out. The directory is looked at every second; what changed is told, and everything
again now and then, and whenever this process starts. A file that cannot be read is logged, its VM stays as it
was told last, and no other waits for it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
import structlog

import vsfwd.ipc.bus_interface as api
from vsfwd.components.member import Member, agent
from vsfwd.config import Config
from vsfwd.policy.model import is_uuid
from vsfwd.protocol.components import MAX_BODY, Body, as_body
from vsfwd.protocol.context import COMPONENT, GONE, START, VM, Guest

log = structlog.get_logger(log="vsfwd.context")

LOOK_S: Final = 1.0
REPEAT_S: Final = 600.0
MAX_FILES: Final = 4096
_MAX_COMPLAINTS: Final = 10
"""At once; somebody may fill the directory."""

Stamp = Annotated[tuple[int, int, int], "inode, time of change in ns, size"]


class Guests:
    """The directory. `told`: what was told of each VM, by its file as it was then."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, Stamp] = {}
        self._complaints: set[str] = set()
        self.known: dict[str, Body] = {}

    def changes(self) -> Iterator[tuple[str, Body]]:
        """Topic and body of what is otherwise than it was told."""
        there = dict(self._files())
        for vm in self._seen.keys() - there.keys():
            del self._seen[vm]
            if self.known.pop(vm, None) is not None:
                yield GONE, {"vm": vm}
        for vm, stamp in there.items():
            if self._seen.get(vm) == stamp:
                continue
            self._seen[vm] = stamp
            try:
                body = self._read(vm)
            except (OSError, msgspec.MsgspecError, ValueError) as error:
                log.error("guest file not taken", vm=vm, reason=str(error))
                continue
            if self.known.get(vm) != body:
                self.known[vm] = body
                yield VM, body

    def all(self) -> list[tuple[str, Body]]:
        return [(VM, body) for body in self.known.values()]

    def asked(self, question: Body) -> Body:
        """Of the VM that is named, or which VMs there are."""
        if "vm" not in question:
            return {"vms": sorted(self.known)[: MAX_BODY // 64], "count": len(self.known)}
        if question["vm"] not in self.known:
            raise ValueError(f"vm: nothing is known of {str(question['vm'])[:64]!r}")
        return self.known[question["vm"]]

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        try:
            paths = sorted(path for path in self._directory.iterdir() if path.match("[!.]*.json"))
        except FileNotFoundError:
            reason = f"{self._directory} does not exist yet"
            if reason not in self._complaints:
                log.info("no guests yet", reason=reason)
            self._complaints = {reason}
            return
        except OSError as error:
            self._complain({f"{self._directory}: {error.strerror}"})
            return
        self._complain({f"{path}: not the id of a VM" for path in paths if not is_uuid(path.stem)})
        for path in paths[:MAX_FILES]:
            if is_uuid(path.stem):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                yield path.stem, (stat.st_ino, stat.st_mtime_ns, stat.st_size)

    def _complain(self, complaints: set[str]) -> None:
        """Once of each, as long as it stays so."""
        for new in sorted(complaints - self._complaints)[:_MAX_COMPLAINTS]:
            log.error("guest file not taken", reason=new)
        self._complaints = complaints

    def _read(self, vm: str) -> Body:
        path = self._directory / f"{vm}.json"
        with path.open("rb") as file:
            text = file.read(MAX_BODY + 1)
        if len(text) > MAX_BODY:
            raise ValueError(f"more than {MAX_BODY} bytes")
        guest = msgspec.json.decode(text, type=Guest)
        return {"vm": vm, **as_body(guest)}


async def run(config: Config) -> None:
    member, guests = Member(config.socket, COMPONENT), Guests(config.guests_dir)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_tell(member, guests), name="tell")
        tasks.create_task(member.serve({VM: guests.asked}), name="serve")


async def _tell(member: Member, guests: Guests) -> NoReturn:
    clock = asyncio.get_running_loop().time
    changes = list(guests.changes())  # what is wrong with the files is said also while vsfwd is away
    await member.publish(START, {})
    repeat = clock() + REPEAT_S
    while True:
        for topic, body in changes:
            await _publish(member, topic, body)
        if clock() >= repeat:
            for topic, body in guests.all():
                await _publish(member, topic, body)
            repeat = clock() + REPEAT_S
        await asyncio.sleep(LOOK_S)
        changes = list(guests.changes())


async def _publish(member: Member, topic: str, body: Body) -> None:
    try:
        await member.publish(topic, body)
    except api.Invalid as error:
        log.error("guest not told", vm=body["vm"], reason=error.parameters["reason"])


main = agent("vsfw-context-agent", "Tell the manager what guests say of themselves, and who is on them.", run)


if __name__ == "__main__":
    main()
