"""Compiles C to programs with bcc. The only module that imports bcc, and so LLVM: whoever finds its programs
pinned does not import this."""

import os
import re
import sysconfig
from pathlib import Path
from typing import Any, Final

from vsfwd.datapath import bpf
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.schema import SOURCE

# bcc looks here for a kernel tree when it is imported, and finds the shim.
os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
from bcc import BPF

TC: Final = BPF.SCHED_CLS
XDP: Final = BPF.XDP
_PART: Final = re.compile(r'^#include "(\w+\.c)"$', re.MULTILINE)


def build(pins: Path, names: tuple[str, ...], into: Path) -> None:
    """Pins the programs of dfw.c there. Maps are taken from `pins`, as far as they are pinned."""
    module = compile_text((SOURCE / "dfw.c").read_text(), pins)
    try:
        for name in names:
            bpf.pin(load_function(module, name, TC), into / name)
    except OSError as error:
        raise DatapathError(f"pin the programs in {into}: {error.strerror}") from None
    finally:
        module.cleanup()


def _part(include: re.Match[str]) -> str:
    """The file itself, since bcc rewrites access to maps in the main text only."""
    after = include.string.count("\n", 0, include.end()) + 2
    return f'#line 1 "{include[1]}"\n{(SOURCE / include[1]).read_text()}#line {after} "dfw.c"'


def compile_text(text: str, pins: Path) -> Any:
    """A bcc module of a main text that may include everything in bpf/."""
    # Without debug information, which bcc asks for, the same programs come out in two thirds of the time.
    flags = [f"-I{SOURCE}", f'-DPINS="{pins}"', "-Wall", "-Wno-unused-function", "-g0"]
    # The UAPI headers of linux-libc-dev; the architecture's own are a directory deeper on Debian.
    for directory in ("/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"):
        flags += ["-idirafter", directory]
    try:
        return BPF(text=_PART.sub(_part, text).encode(), cflags=flags)
    except Exception as error:
        raise DatapathError(f"compile the datapath programs: {error}") from None


def load_function(module: Any, name: str, kind: int) -> int:
    """A descriptor of the program, which the module owns."""
    try:
        return int(module.load_func(name.encode(), kind).fd)
    except Exception as error:
        raise DatapathError(f"load program {name}: {error}") from None
