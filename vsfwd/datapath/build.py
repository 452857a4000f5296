"""Compiles C to programs with bcc. The only module that imports bcc, and so LLVM, which nobody needs who has
compiled the same text before: `compiled` runs it in a process of its own, whose memory ends with it.

    python -m vsfwd.datapath.build < TEXT > COMPILED
"""

import ctypes
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from vsfwd.datapath import bpf
from vsfwd.datapath.compiled import Compiled, with_maps
from vsfwd.datapath.errors import DatapathError
from vsfwd.datapath.schema import SOURCE

# bcc looks here for a kernel tree when it is imported, and finds the shim.
os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
from bcc import BPF, lib

lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
lib.bpf_table_name.argtypes = lib.bpf_table_fd_id.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lib.bpf_num_tables.restype, lib.bpf_table_name.restype = ctypes.c_size_t, ctypes.c_char_p
"""Of libbcc's C interface (bcc_common.h), not declared in its Python module."""
_PART: Final = re.compile(r'^#include "(\w+\.c)"$', re.MULTILINE)


def compile_text(text: str) -> Compiled:
    """Of a main text that may include everything in bpf/."""
    with module_of(text) as module:
        fds = {}
        for number in range(lib.bpf_num_tables(module.module)):
            name = lib.bpf_table_name(module.module, number).decode()
            fds[name] = lib.bpf_table_fd_id(module.module, number)
        place = list(fds.values()).index
        names = [
            lib.bpf_function_name(module.module, number)
            for number in range(lib.bpf_num_functions(module.module))
        ]
        return Compiled(
            lib.bpf_module_license(module.module).decode(),
            {name: bpf.shape_of(fd) for name, fd in fds.items()},
            {name.decode(): with_maps(module.dump_func(name), place) for name in names},
        )


@contextmanager
def module_of(text: str) -> Iterator[Any]:
    """bcc's, which makes maps while it lives."""
    # Without debug information, which bcc asks for, the same programs come out in two thirds of the time.
    flags = [f"-I{SOURCE}", "-Wall", "-Wno-unused-function", "-g0"]
    # The UAPI headers of linux-libc-dev; the architecture's own are a directory deeper on Debian.
    for directory in ("/usr/include", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"):
        flags += ["-idirafter", directory]
    try:
        module = BPF(text=_PART.sub(_part, text).encode(), cflags=flags)
    except Exception as error:
        raise DatapathError(f"compile the datapath programs: {error}") from None
    try:
        yield module
    finally:
        module.cleanup()


def _part(include: re.Match[str]) -> str:
    """The file itself, since bcc rewrites access to maps in the main text only."""
    after = include.string.count("\n", 0, include.end()) + 2
    return f'#line 1 "{include[1]}"\n{(SOURCE / include[1]).read_text()}#line {after} "dfw.c"'


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(msgspec.msgpack.encode(compile_text(sys.stdin.read())))
    except DatapathError as error:
        sys.exit(str(error))
