"""Programs by their ids, which a test may ask for, as root. vsfwd may not, and does without."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from vsfwd.datapath import bpf
from vsfwd.datapath.build import lib

CHAINS: Final = (46, 47)
"""BPF_TCX_INGRESS and BPF_TCX_EGRESS of linux/bpf.h."""


@contextmanager
def _opened(id_: int) -> Iterator[int]:
    fd = lib.bpf_prog_get_fd_by_id(id_)
    assert fd >= 0, f"no program {id_}"
    try:
        yield fd
    finally:
        os.close(fd)


def program_name(id_: int) -> str:
    with _opened(id_) as fd:
        (name,) = struct.unpack_from("<64x16s", bpf._info(fd, bpf._buffer(80)))  # struct bpf_prog_info
        return str(name.rstrip(b"\0").decode())


def detach(ifindex: int, chain: int, id_: int) -> None:
    with _opened(id_) as fd:
        bpf.detach_program(ifindex, chain, fd)


def take_all_off(ifindex: int) -> None:
    """Of both chains, whosever they are."""
    for chain in CHAINS:
        for id_ in bpf.attached_programs(ifindex, chain):
            detach(ifindex, chain, id_)
