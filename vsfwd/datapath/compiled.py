"""Programs between compiler and kernel: instructions, and the maps they use, by name.

Nothing of a kernel is in them, nor of a run, so they are kept on disk: a host compiles a text once, and boots
without a compiler. What is kept is believed if nobody but us can have written it and it is whole; and the
kernel verifies it like what was compiled a moment ago."""

import hashlib
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import msgspec
import structlog

from vsfwd import files
from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.kernel import too_old
from vsfwd.datapath.schema import PINNED, SOURCE

log = structlog.get_logger(log="vsfwd.datapath")

_TEMPLATE: Final = "_template"
"""Ends the name of a map that only shows what is to be in a map of maps."""
KEPT: Final = 3
"""Texts of one name, those used last: a version that comes back finds its own."""
_IDENTITY: Final = 16
_DIGEST: Final = hashlib.sha256().digest_size
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_LOAD, _A_MAP = 0x18, 1
"""BPF_LD | BPF_IMM | BPF_DW, and BPF_PSEUDO_MAP_FD as its source, of linux/bpf.h."""


class Compiled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one text. An instruction that loads a map names it by its place in `tables`."""

    license: str
    tables: dict[str, bpf.Shape]
    programs: dict[str, bytes]

    @classmethod
    def kept(cls, path: Path) -> Self | None:
        """What `keep` has put there. None: nothing, or nothing to be believed."""
        with suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            digest, content = file.read(_DIGEST), file.read()
            ours = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS
            if ours and hashlib.sha256(content).digest() == digest:
                return msgspec.msgpack.decode(content, type=cls)
        return None

    def keep(self, path: Path) -> None:
        """Raises OSError."""
        content = msgspec.msgpack.encode(self)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, hashlib.sha256(content).digest() + content)

    @contextmanager
    def loaded(
        self, type_: bpf.ProgramType, own: Path | None = None, shared: Path | None = None
    ) -> Iterator[dict[str, int]]:
        """Descriptors of the programs by name. With `shared`, maps that are PINNED are those that lie there,
        or are put there; with `own`, others are pinned there, else they end with their programs. Raises
        DatapathError for what the kernel refuses."""
        with ExitStack() as closing:
            made: dict[str, int] = {}
            # A map of maps is made after the one that shows what is to be in it.
            for name in sorted(self.tables, key=lambda name: _inner(name) in self.tables):
                made[name] = self._open(name, made.get(_inner(name), 0), _pin(name, own, shared))
                closing.callback(os.close, made[name])
            fds = [made[name] for name in self.tables]
            # The kernel takes its time to verify them, and does so on as many CPUs as ask for it.
            with ThreadPoolExecutor() as pool:
                load = partial(self._load, type_, fds)
                programs = dict(zip(self.programs, pool.map(load, self.programs), strict=True))
            for fd in programs.values():
                closing.callback(os.close, fd)
            yield programs

    def _load(self, type_: bpf.ProgramType, fds: Sequence[int], name: str) -> int:
        try:
            code = with_maps(self.programs[name], fds.__getitem__)
            return bpf.load_program(type_, name, code, self.license)
        except OSError as error:
            said = f"{error.strerror}{too_old(os.uname().release)}"
            raise DatapathError(f"load program {name}: {said}") from None

    def _open(self, name: str, inner: int, pin: Path | None) -> int:
        try:
            if pin and pin.exists():
                return bpf.pinned(pin)
            fd = bpf.create_map(*self.tables[name], name, inner)
            if pin:
                bpf.pin(fd, pin)
            return fd
        except OSError as error:
            raise DatapathError(f"make map {name}: {error.strerror}") from None


def identity(text: str) -> str:
    """Names all that programs are made of: the text, what it may include, and what compiles it."""
    made_of = hashlib.sha256(text.encode())
    ours = (Path(__file__).with_name(name) for name in ("compiled.py", "build.py", "bpf.py"))
    for path in (*sorted(SOURCE.rglob("*.[ch]")), *ours):
        made_of.update(path.read_bytes())
    bcc = find_spec("bcc")
    for place in bcc.submodule_search_locations or () if bcc else ():
        made_of.update(Path(place, "version.py").read_bytes())
    return made_of.hexdigest()[:_IDENTITY]


def compiled(text: str, name: str, directory: Path | None) -> Compiled:
    """As `directory` has kept it, else by a compiler in a process of its own, and kept there from then on.
    Raises DatapathError."""
    path = directory and directory / f"{name}-{identity(text)}"
    found = Compiled.kept(path) if path else None
    if path and found:
        with suppress(OSError):  # of a disk that is read-only
            os.utime(path)
        return found
    argv = [sys.executable, "-m", "vsfwd.datapath.build"]
    done = subprocess.run(argv, input=text.encode(), stdout=subprocess.PIPE, cwd=SOURCE.parent)
    if done.returncode:
        raise DatapathError(f"compile {name}: the log has what the compiler says")
    made = msgspec.msgpack.decode(done.stdout, type=Compiled)
    if path:
        try:
            made.keep(path)
            for old in sorted(path.parent.glob(f"{name}-{'[0-9a-f]' * _IDENTITY}"), key=os.path.getmtime)[
                :-KEPT
            ]:
                old.unlink()
        except OSError as error:
            log.warning("compiled programs are not kept; the next start compiles again", reason=str(error))
    return made


def _inner(name: str) -> str:
    return f"{name}{_TEMPLATE}"


def _pin(name: str, own: Path | None, shared: Path | None) -> Path | None:
    if shared and name in PINNED:
        return shared / name
    return own / name if own and not name.endswith(_TEMPLATE) else None


def with_maps(instructions: bytes, renamed: Callable[[int], int]) -> bytes:
    """The same, with other numbers of maps."""
    code = bytearray(instructions)
    for at in range(0, len(code), bpf.INSTRUCTION):
        if code[at] == _LOAD and code[at + 1] >> 4 == _A_MAP:
            struct.pack_into("<i", code, at + 4, renamed(*struct.unpack_from("<i", code, at + 4)))
    return bytes(code)
